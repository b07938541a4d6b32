// Whole engines to the bit: a request's logits do not depend on what else runs, how its prompt is cut into steps, how
// many threads compute, which GeMM few tokens take or, in fp32, whether ops are fused; on every kernel set, in every
// weight format, for every kind of layer. Planted kernels that sum in another order must be noticed.
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "formats.h"
#include "models.h"
#include "plan/kv_groups.h"
#include "planted_kernels.h"
#include "recording_device.h"
#include "seed.h"

namespace lamella::testing {
namespace {

/// What may change without changing a bit.
struct Company {
  int threads = 1;
  std::int64_t sequences = 1, step_tokens = 512;
  bool deep_fusion = true, sbi_gemm = true;
  std::int64_t spare_blocks =
      1000;  // of the KV cache, beside those of the longest request: few, and many are preempted
  int steps_in_flight = 1;
  std::vector<std::size_t> requests;  // in the order in which they come
};

std::ostream& operator<<(std::ostream& out, const Company& company) {
  return out << company.requests.size() << " requests, " << company.threads << " threads, " << company.sequences
             << " sequences and " << company.step_tokens << " tokens a step, fusion " << company.deep_fusion
             << ", SBI-GeMM " << company.sbi_gemm << ", " << company.spare_blocks << " spare blocks, "
             << company.steps_in_flight << " steps in flight";
}

/// An engine under test.
struct Subject {
  ModelSpec spec;
  std::vector<WeightFormat> formats;
  const cpu::KernelTable& kernels;
  bool change_fusion = false;  // fused and plain plans give the same bits
  std::optional<DataType> kv_cache_dtype = {};
};

class EngineExactness : public ::testing::Test {
 protected:
  [[nodiscard]] std::int64_t draw(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random_);
  }
  template <typename T>
  const T& any_of(const std::vector<T>& values) {
    return values[static_cast<std::size_t>(draw(0, static_cast<std::int64_t>(values.size()) - 1))];
  }

  /// A context of several parts of attention.
  static void lengthen(ModelSpec& spec) {
    spec.max_positions = 600;
    if (spec.embedding.position_rows > 0) spec.embedding.position_rows = 600;
  }
  /// A model of a family with sizes on and off every grid.
  ModelSpec resized(ModelSpec spec) {
    lengthen(spec);
    spec.hidden = any_of<std::int64_t>({30, 36, 64, 65, 130, 200});
    const auto head_dim = any_of<std::int32_t>({6, 10, 16, 34});
    for (LayerSpec& layer : spec.layers) {
      const auto width = any_of<std::int64_t>({50, 64, 97, 160, 257});
      (layer.mlp.experts ? layer.mlp.experts->intermediate : layer.mlp.intermediate) = width;
      layer.attention.head_dim = head_dim;
    }
    return spec;
  }
  /// Half of them with windows: one for all layers, or one for some.
  ModelSpec any_decoder() {
    ModelSpec spec =
        resized(any_of<ModelSpec>({llama_like(), gpt2_like(), neox_like(), mixtral_like(), qwen_moe_like(),
                                   gpt_moe_like(), sigmoid_moe_like(), normed_heads(2, false), normed_heads(2, true)}));
    const auto window = any_of<std::int32_t>({0, 0, static_cast<std::int32_t>(draw(2, 60)), 16, 300});
    const bool all = draw(0, 2) == 0;
    for (LayerSpec& layer : spec.layers) layer.attention.window = all || draw(0, 1) == 0 ? window : 0;
    return spec;
  }

  /// One format for all matrices, or any for each.
  std::vector<WeightFormat> formats_of(const ModelSpec& spec, const WeightFormat* only) {
    std::vector<WeightFormat> formats;
    for (const WeightDeclaration& weight : declare_weights(spec))
      formats.push_back(is_vector(weight.id.slot)
                            ? formats::f32
                            : fitting(only != nullptr ? *only : any_of(all_formats()), weight.id.slot));
    return formats;
  }

  /// 1 to 40 ragged requests, each with a first token of its own: short ones, some around a KV block's border, a few
  /// that cross the borders of attention's parts in their prompts or while they generate.
  std::vector<Request> ragged_requests(std::int64_t vocabulary, std::int64_t count) {
    std::vector<Request> requests;
    for (std::int64_t i = 0; i < count; ++i) {
      std::int64_t length = any_of<std::int64_t>({1, 2, 15, 16, 17, draw(1, 60), draw(1, 60)});
      if (i == 0) length = draw(250, 256);
      if (i == count / 2 && draw(0, 1) == 0) length = draw(300, 590);
      std::mt19937 ids(static_cast<unsigned>(random_()));
      Request request{.prompt = random_tokens(ids, vocabulary, static_cast<std::size_t>(length)),
                      .sampling = {.max_tokens = draw(1, 9), .temperature = 0.8, .seed = random_()}};
      request.prompt.front() = static_cast<std::int32_t>(i);
      requests.push_back(std::move(request));
    }
    return requests;
  }

  /// Runs the company's requests together and returns all logits from which their tokens were drawn.
  static LogitRows logits_in(const Company& company, const Subject& subject, const std::vector<Request>& requests) {
    LogitRows rows;
    const std::int64_t most_places = KvBlockPool::blocks_for(subject.spec.max_positions);
    const Plan plan = build_plan(subject.spec, {.dtype = subject.kernels.dtype,
                                                .kv_dtype = subject.kv_cache_dtype,
                                                .kv_pool_blocks = 1,
                                                .bounds = {1, 1, 1, most_places}});
    const KvRetention retention{
        .windows = kv_groups(subject.spec, most_places * kv_block_tokens).windows,
        .tokens_in_flight = std::max(company.step_tokens, company.sequences) * company.steps_in_flight};
    std::int64_t longest = 0;
    for (const Request& request : requests)
      longest = std::max(longest, static_cast<std::int64_t>(request.prompt.size()) + request.sampling.max_tokens);
    const std::int64_t blocks = retention.most_blocks(longest) + company.spare_blocks;
    EngineCore engine(subject.spec,
                      {.dtype = subject.kernels.dtype,
                       .kv_cache_dtype = subject.kv_cache_dtype,
                       .weight_formats = subject.formats,
                       .deep_fusion = company.deep_fusion,
                       .sbi_gemm = company.sbi_gemm,
                       .max_num_seqs = company.sequences,
                       .max_num_batched_tokens = company.step_tokens,
                       .kv_cache_memory = static_cast<std::uint64_t>(blocks) * KvMemory::bytes_per_block(plan),
                       .steps_in_flight = company.steps_in_flight},
                      std::make_unique<RecordingDevice>(company.threads, subject.kernels, rows),
                      [](RankWeights ranks, ThreadTeam&) { fill_lively(*ranks.front(), 7); });
    Listener listener(engine);
    for (const std::size_t i : company.requests) listener.submit(requests[i]);
    while (listener.open() > 0) listener.listen();
    engine.close();
    return rows;
  }

  Company any_company(std::size_t requests, bool change_fusion) {
    Company company{
        .threads = static_cast<int>(draw(1, 4)),
        .sequences = draw(1, 40),
        .step_tokens = any_of<std::int64_t>({requests < 9 ? 1 : 33, draw(2, 15), 16, 17, draw(18, 80), 512}),
        .deep_fusion = !change_fusion || draw(0, 1) == 1,
        .sbi_gemm = draw(0, 1) == 1,
        .spare_blocks = any_of<std::int64_t>({0, draw(1, 6), 1000}),
        .steps_in_flight = static_cast<int>(draw(1, 3))};
    for (std::size_t i = 0; i < requests; ++i) company.requests.push_back(i);
    std::ranges::shuffle(company.requests, random_);
    return company;
  }

  /// Where the logits of the requests first have other bits in one of some drawn companies than they have alone, one
  /// after the other on one thread; empty where they never have.
  std::string difference(const Subject& subject, std::int64_t count, int companies) {
    const std::vector<Request> requests = ragged_requests(subject.spec.vocab, count);
    Company alone;
    for (std::size_t i = 0; i < requests.size(); ++i) alone.requests.push_back(i);
    const LogitRows expected = logits_in(alone, subject, requests);
    for (int i = 0; i < companies; ++i) {
      const Company company = any_company(requests.size(), subject.change_fusion);
      const LogitRows rows = logits_in(company, subject, requests);
      for (const auto& [place, row] : expected) {
        const auto found = rows.find(place);
        if (found == rows.end() || !same_bits(found->second, row))
          return (std::ostringstream() << "request " << place.first << ", position " << place.second << ": " << company)
              .str();
      }
      if (rows.size() != expected.size()) return "rows that nobody asked for";
    }
    return "";
  }

  std::uint64_t seed_ = fresh_seed();
  std::mt19937_64 random_{seed_};

 private:
  static bool same_bits(std::span<const float> a, std::span<const float> b) {
    return std::ranges::equal(std::as_bytes(a), std::as_bytes(b));
  }

  ::testing::ScopedTrace trace_{__FILE__, __LINE__, "LAMELLA_SEED=" + std::to_string(seed_)};
};

/// Every kernel table; under sanitizers some.
std::vector<const cpu::KernelTable*> tables_to_run(std::mt19937_64& random) {
  std::vector<const cpu::KernelTable*> tables = {&cpu::kernel_table(cpu::KernelSet::reference, DataType::f32)};
  for (const cpu::KernelSet set : cpu::available_kernel_sets())
    for (const DataType dtype : {DataType::f32, DataType::f16, DataType::bf16})
      if (set != cpu::KernelSet::reference) tables.push_back(&cpu::kernel_table(set, dtype));
  if (sanitized) {  // other errors are looked for, at ten times the time
    std::ranges::shuffle(tables, random);
    tables.resize(std::min<std::size_t>(tables.size(), 4));
  }
  return tables;
}

TEST_F(EngineExactness, CompanyChunksThreadsAndFusionChangeNoLogit) {
  for (const cpu::KernelTable* kernels : tables_to_run(random_)) {
    std::vector<WeightFormat> some = all_formats();
    std::ranges::shuffle(some, random_);
    some.resize(full_stage() ? 20 : sanitized ? 1 : 4);
    some.push_back({});  // stands for a mixture
    for (std::size_t i = 0; i < some.size(); ++i) {
      const bool mixed = i + 1 == some.size();
      const ModelSpec spec = any_decoder();
      const Subject subject{
          .spec = spec,
          .formats = formats_of(spec, mixed ? nullptr : &some[i]),
          .kernels = *kernels,
          .change_fusion = kernels->dtype == DataType::f32 && kernels->norm_qkv != nullptr,
          .kv_cache_dtype = any_of<std::optional<DataType>>(
              {std::nullopt, DataType::f32, DataType::f16, DataType::bf16, DataType::i8, DataType::i8})};
      EXPECT_EQ(difference(subject, any_of<std::int64_t>({1, 2, draw(3, 9), draw(10, 40)}), full_stage() ? 2 : 1), "")
          << kernels->name << " " << to_string(kernels->dtype) << ", " << spec.family << " of width " << spec.hidden
          << " in " << (mixed ? "any formats" : to_string(some[i])) << ", KV in "
          << (subject.kv_cache_dtype ? to_string(*subject.kv_cache_dtype) : "the dtype");
    }
  }
}

TEST_F(EngineExactness, CompanyAndThreadsChangeNoRowOfAnEncoder) {
  for (const cpu::KernelTable* kernels : tables_to_run(random_)) {
    const ModelSpec spec = resized(bert_like());
    std::vector<std::vector<std::int32_t>> inputs;
    for (const Request& request : ragged_requests(spec.vocab, draw(1, 40))) inputs.push_back(request.prompt);
    const std::vector<WeightFormat> formats = formats_of(spec, nullptr);
    const auto encode = [&](const Company& company, bool together) {
      LogitRows unused;
      EngineCore engine(spec,
                        {.dtype = kernels->dtype,
                         .weight_formats = formats,
                         .sbi_gemm = company.sbi_gemm,
                         .max_num_seqs = company.sequences,
                         .max_num_batched_tokens = company.step_tokens},
                        std::make_unique<RecordingDevice>(company.threads, *kernels, unused),
                        [](RankWeights ranks, ThreadTeam&) { fill_lively(*ranks.front(), 8); });
      std::vector<std::vector<float>> rows;
      for (const Pooling pooling : {Pooling::none, Pooling::mean, Pooling::pooler}) {
        if (together) {
          for (std::vector<float>& row : engine.encode(inputs, pooling)) rows.push_back(std::move(row));
          continue;
        }
        for (const std::vector<std::int32_t>& input : inputs) rows.push_back(engine.encode({input}, pooling).front());
      }
      return rows;
    };
    const std::vector<std::vector<float>> alone = encode({}, false);
    for (int i = 0; i < 2; ++i) {
      const Company company = any_company(inputs.size(), false);
      EXPECT_EQ(encode(company, true), alone) << kernels->name << " " << to_string(kernels->dtype) << ": " << company;
    }
  }
}

struct Plant {
  const char* name;
  cpu::KernelTable kernels;
};

/// fp32 kernels of the best set, each table with one kernel that sums in an order of its own.
std::vector<Plant> plants() {
  const cpu::KernelTable fused = cpu::kernel_table(cpu::available_kernel_sets().back(), DataType::f32);
  cpu::KernelTable plain = fused;
  plain.norm_qkv = nullptr;  // without fused kernels, an engine runs the plain plan
  std::vector<Plant> all = {{"linear by tokens", plain},       {"linear by threads", plain},
                            {"attention by tokens", plain},    {"attention by threads", plain},
                            {"fused linear by tokens", fused}, {"fused linear by threads", fused}};
  all[0].kernels.linear = planted_linear<OrderBy::tokens>;
  all[1].kernels.linear = planted_linear<OrderBy::threads>;
  all[2].kernels.attention = planted_attention<OrderBy::tokens>;
  all[3].kernels.attention = planted_attention<OrderBy::threads>;
  all[4].kernels.output_residual = planted_output_residual<OrderBy::tokens>;
  all[5].kernels.output_residual = planted_output_residual<OrderBy::threads>;
  return all;
}

TEST_F(EngineExactness, APlantedReorderingIsNoticed) {
  if (sanitized) GTEST_SKIP() << "tests the tests above, a minute where a sanitizer slows them down";
  const std::vector<WeightFormat> some = {formats::bf16, formats::int8_weight_only, formats::int8, formats::q4_1,
                                          formats::int4_a8};
  std::vector<Plant> some_plants = plants();
  std::ranges::shuffle(some_plants, random_);
  for (const Plant& plant : some_plants)
    for (const WeightFormat& format : {formats::f32, any_of(some)}) {
      // Several groups in every row: a sum of integers with one scale knows no order.
      ModelSpec spec = any_of<ModelSpec>({llama_like(), gpt2_like(), neox_like()});
      lengthen(spec);
      spec.hidden = 200;
      for (LayerSpec& layer : spec.layers) {
        layer.mlp.intermediate = 257;
        layer.attention.head_dim = 34;
      }
      Subject subject{.spec = spec, .formats = formats_of(spec, &format), .kernels = plant.kernels};
      // The head leaves its inputs alone, as in the presets: rounding them to int8 hides most differences of an ulp.
      for (WeightFormat* head : {&subject.formats.front(), &subject.formats.back()}) head->input = LinearInput::dtype;
      // 20 companies, of which the first that differs ends the search: all on one or two threads is one in a million.
      EXPECT_NE(difference(subject, draw(30, 40), 20), "") << plant.name << ", " << to_string(format);
    }
}

}  // namespace
}  // namespace lamella::testing
