// Row D1 of the error contract.
#include <gtest/gtest.h>

#include "lamella/error.h"
#include "runtime/memory_budget.h"

namespace lamella::testing {
namespace {

constexpr std::uint64_t mib = 1 << 20;

BudgetRequest decoder() {
  return {.weights = 100 * mib,
          .activations = 10 * mib,
          .kv_bytes_per_block = mib,
          .max_num_seqs = 8,
          .max_model_len = 160,
          .available = 1000 * mib};
}

TEST(MemoryBudget, GivesFullSequencesWhereTheyFit) { EXPECT_EQ(split_memory(decoder()).kv_blocks, 80); }

TEST(MemoryBudget, TakesAtMostAQuarterOfWhatIsLeftByDefault) {
  BudgetRequest request = decoder();
  request.max_num_seqs = 1000;
  const MemorySplit split = split_memory(request);
  EXPECT_EQ(split.kv_blocks, static_cast<std::int64_t>((900 - 110) / 4));
  EXPECT_LE(split.total(), split.budget);
}

TEST(MemoryBudget, AlwaysHoldsOneWholeSequence) {
  BudgetRequest request = decoder();
  request.budget = 121 * mib;
  EXPECT_EQ(split_memory(request).kv_blocks, 10);
}

TEST(MemoryBudget, D1_RefusesBeforeLoadingWithTheTableAndWhatWouldFit) {
  BudgetRequest request = decoder();
  request.budget = 115 * mib;
  try {
    static_cast<void>(split_memory(request));
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::out_of_memory);
    const std::string text = error.what();
    for (const char* part : {"weights 100.00 MiB", "KV cache 10.00 MiB", "activations 10.00 MiB", "budget 115.00 MiB",
                             "free on this machine 1000.00 MiB", "max_model_len=80",
                             "memory_budget (--memory-budget) of at least 120.00 MiB"})
      EXPECT_NE(text.find(part), std::string::npos) << text;
  }
}

TEST(MemoryBudget, D1_AdvisesASmallerCacheWhereTheUserAskedForTooLargeAOne) {
  BudgetRequest request = decoder();
  request.kv = 2000 * mib;
  try {
    static_cast<void>(split_memory(request));
    FAIL() << "accepted";
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("kv_cache_memory (--kv-cache-memory) of at most 790.00 MiB"), std::string::npos) << text;
    EXPECT_EQ(text.find("max_model_len"), std::string::npos) << text;
  }
  request.kv = 790 * mib;
  EXPECT_EQ(split_memory(request).kv_blocks, 790);
}

TEST(MemoryBudget, GivesWindowedLayersTheirWindow) {
  BudgetRequest request = decoder();
  request.retention = {.windows = {0, 20}, .tokens_in_flight = 16};
  EXPECT_EQ(split_memory(request).kv_blocks, 8 * (10 + 4));
  request.budget = 119 * mib;  // with nine blocks: five places of the full group, four of the windowed one
  try {
    static_cast<void>(split_memory(request));
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("max_model_len=80 "), std::string::npos) << error.what();
  }
}

TEST(MemoryBudget, D1_SaysWhenTheWeightsAloneAreTooLarge) {
  BudgetRequest request = decoder();
  request.budget = 50 * mib;
  try {
    static_cast<void>(split_memory(request));
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("the weights and activations alone exceed it"), std::string::npos)
        << error.what();
  }
}

TEST(MemoryBudget, D1_ABudgetIsNoMoreThanWhatTheMachineHasFree) {
  BudgetRequest request = decoder();
  request.budget = std::uint64_t{1} << 50;
  request.max_num_seqs = 1000;
  MemorySplit split = split_memory(request);
  EXPECT_EQ(split.kv_blocks, (1000 - 110) / 2);
  EXPECT_LE(split.total(), request.available);

  request.available = 115 * mib;  // less than one sequence needs
  for (const std::uint64_t weights : {100 * mib, 200 * mib}) {
    request.weights = weights;
    try {
      static_cast<void>(split_memory(request));
      FAIL() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::out_of_memory);
      const std::string text = error.what();
      EXPECT_NE(text.find("budget 1.00 PiB, free on this machine 115.00 MiB"), std::string::npos) << text;
      EXPECT_NE(text.find(weights == 100 * mib ? "max_model_len=80" : "exceed what is free"), std::string::npos)
          << text;
      EXPECT_NE(text.find(" of free memory"), std::string::npos) << text;
      EXPECT_EQ(text.find("--memory-budget"), std::string::npos) << "a larger budget would not help: " << text;
    }
  }
}

TEST(MemoryBudget, EncodersNeedBlocksForOneStepOnly) {
  BudgetRequest request = decoder();
  request.keeps_kv = false;
  request.step_tokens = 512;
  EXPECT_EQ(split_memory(request).kv_blocks, 32 + 8);
}

}  // namespace
}  // namespace lamella::testing
