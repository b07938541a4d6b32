#include <algorithm>
#include <cstdlib>
#include <optional>
#include <string>

#include "cpu/kernels/vector/kernel_sets.h"
#include "cpu/machine.h"
#include "formats.h"
#include "kernel_testing.h"
#include "lamella/error.h"

namespace lamella::cpu::testing {
namespace {

using lamella::testing::all_formats;

TEST(KernelTables, ReferenceAndBaselineAreEverywhere) {
  const auto sets = available_kernel_sets();
  ASSERT_GE(sets.size(), 2U);
  EXPECT_EQ(sets[0], KernelSet::reference);
  EXPECT_EQ(sets[1], KernelSet::baseline);
  EXPECT_TRUE(std::is_sorted(sets.begin(), sets.end()));
}

#ifdef LAMELLA_BUILT_SETS
TEST(KernelTables, EverySetThatIsBuiltIsAvailableWhereTheProcessorRunsIt) {
  std::string expected = "reference baseline", got;
  const std::string built = "," LAMELLA_BUILT_SETS ",";
  for (const KernelSet set : {KernelSet::avx2, KernelSet::avx512, KernelSet::avx512_vnni})
    if (built.find(std::string(",") + to_string(set) + ",") != std::string::npos && processor_runs(set))
      expected += std::string(" ") + to_string(set);
  for (const KernelSet set : available_kernel_sets()) got += std::string(got.empty() ? "" : " ") + to_string(set);
  EXPECT_EQ(got, expected);
}
#endif

TEST(KernelTables, AreCompleteAndNamed) {
  for (const Target& target : all_targets()) {
    const KernelTable& table = target.kernels();
    EXPECT_STREQ(table.name, to_string(target.set));
    EXPECT_EQ(table.dtype, target.dtype);
    for (const bool present :
         {table.norm != nullptr, table.embed != nullptr, table.linear != nullptr, table.add_bias != nullptr,
          table.rope != nullptr, table.kv_write != nullptr, table.split_heads != nullptr, table.merge_heads != nullptr,
          table.attention != nullptr, table.activate != nullptr, table.residual != nullptr,
          table.gather_rows != nullptr, table.mean_pool != nullptr, table.best_token != nullptr})
      EXPECT_TRUE(present) << table.name;
    for (const bool present :
         {table.norm_qkv != nullptr, table.layout_attention != nullptr, table.norm_mlp_up != nullptr,
          table.output_residual != nullptr, table.greedy_head != nullptr})
      EXPECT_EQ(present, target.set != KernelSet::reference) << table.name;
  }
}

TEST(KernelTables, RefusalListsWhatThereIs) {
  try {
    static_cast<void>(kernel_table(KernelSet::reference, DataType::bf16));
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_NE(std::string(error.what()).find("baseline (float32"), std::string::npos) << error.what();
  }
  EXPECT_THROW(static_cast<void>(kernel_table(KernelSet::baseline, DataType::i32)), Error);
}

/// LAMELLA_ISA for a while.
class IsaVariable {
 public:
  explicit IsaVariable(const char* value) {
    if (const char* now = std::getenv(name)) before_ = now;
    setenv(name, value, 1);
  }
  ~IsaVariable() {
    if (before_) setenv(name, before_->c_str(), 1);
    else unsetenv(name);
  }
  IsaVariable(const IsaVariable&) = delete;
  IsaVariable& operator=(const IsaVariable&) = delete;

 private:
  static constexpr const char* name = "LAMELLA_ISA";
  std::optional<std::string> before_;
};

TEST(KernelTables, TheWayOfALinearFollowsFormatAndTokens) {
  for (const Target& target : vector_targets()) {
    const KernelTable& kernels = target.kernels();
    for (const WeightFormat& format : all_formats()) {
      SCOPED_TRACE(::testing::Message() << kernels.name << ", " << to_string(kernels.dtype) << ", "
                                        << to_string(format));
      EXPECT_TRUE(kernels.linear_way(format, 1, true).whole_panels);
      EXPECT_EQ(kernels.linear_way(format, 1, true).tokens, 1);
      EXPECT_FALSE(kernels.linear_way(format, 64, true).whole_panels);
      bool blocked = false;
      for (std::int64_t tokens = 1; tokens <= shared_tile_tokens; ++tokens) {
        const LinearWay way = kernels.linear_way(format, tokens, true),
                        general = kernels.linear_way(format, tokens, false);
        EXPECT_FALSE(general.whole_panels) << tokens;
        EXPECT_EQ(general.outputs, kernels.linear_way(format, shared_tile_tokens, true).outputs) << tokens;
        EXPECT_TRUE(way.whole_panels || way.tokens == general.tokens) << tokens;
        EXPECT_TRUE(!blocked || !way.whole_panels) << tokens;  // once there are many tokens, more are not few
        blocked = !way.whole_panels;
        EXPECT_GE(way.tokens, 1) << tokens;
        EXPECT_LE(way.tokens, std::min<std::int64_t>(tokens, 8)) << tokens;
        EXPECT_EQ(panel_outputs % way.outputs, 0) << tokens;
        EXPECT_EQ(way.arithmetic == Arithmetic::int8, has_int8_inputs(format)) << tokens;
      }
    }
  }
}

TEST(KernelTables, LamellaIsaForcesASet) {
  for (const KernelSet set : available_kernel_sets()) {
    const IsaVariable variable(to_string(set));
    EXPECT_EQ(default_kernel_set(), set);
    EXPECT_GT(measure_peak(default_kernel_set(), Arithmetic::f32, 1, 0.001), 0.0) << to_string(set);
  }
  const IsaVariable empty("");
  EXPECT_EQ(default_kernel_set(), available_kernel_sets().back());
}

TEST(KernelTables, LamellaIsaOfAnotherNameIsRefused) {
  for (const char* wrong : {"avx1024", "AVX2", "avx2 ", "none"}) {
    const IsaVariable variable(wrong);
    try {
      static_cast<void>(default_kernel_set());
      FAIL() << wrong;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
      EXPECT_NE(std::string(error.what()).find("LAMELLA_ISA is"), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("baseline"), std::string::npos) << error.what();
    }
  }
}

TEST(KernelTables, SharesCoverAllUnitsOnceAndEvenly) {
  for (const std::int64_t units : {0, 1, 2, 7, 64, 65})
    for (const int count : {1, 2, 3, 8, 70}) {
      std::int64_t next = 0;
      for (int index = 0; index < count; ++index) {
        const Range range = share(units, Worker{.index = index, .count = count});
        EXPECT_EQ(range.begin, next);
        EXPECT_LE(range.end - range.begin, (units + count - 1) / count);
        next = range.end;
      }
      EXPECT_EQ(next, units);
    }
}

}  // namespace
}  // namespace lamella::cpu::testing
