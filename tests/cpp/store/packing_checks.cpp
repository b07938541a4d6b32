#include "packing_checks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>

#include "../io/checkpoint_files.h"
#include "io/containers/store_verify.h"
#include "memory/resident_weights.h"
#include "rank_weights.h"
#include "seed.h"
#include "store/load_store.h"
#include "store/load_weights.h"

namespace lamella::testing {

std::uint64_t recorded_seed() {
  const std::uint64_t seed = fresh_seed();
  ::testing::Test::RecordProperty("seed", std::to_string(seed));
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  return seed;
}

std::vector<std::string> names_in(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::ranges::sort(names);
  return names;
}

void expect_loaded_bytes(const Packing& packing, const PackReport& report) {
  const io::File file(packing.file);
  const io::StoreHeader header = io::read_store_header(file);
  EXPECT_EQ(header.digest, report.digest);
  EXPECT_EQ(header.file_bytes, report.file_bytes);
  EXPECT_EQ(header.dtype, packing.dtype);
  io::PreadReader reader;
  ThreadTeam team(2);
  EXPECT_NO_THROW(io::verify_store(file, reader, header, team));

  std::vector<WeightDeclaration> declared = declare_weights(packing.checkpoint.spec());
  set_formats(declared, packing.formats());
  ResidentWeights weights(declared);
  load_weights(only(weights), packing.checkpoint.recipe(), packing.checkpoint.tensors(), reader, team);
  ASSERT_EQ(header.weights.size(), declared.size());
  const std::string bytes = test::content(packing.file);
  ResidentWeights loaded(declared);
  load_store(loaded, open_store(packing.file), reader, team);
  for (const io::StoreWeight& weight : header.weights) {
    const auto stored =
        std::as_bytes(std::span(bytes)).subspan(header.segments[weight.segment].offset + weight.offset, weight.bytes);
    ASSERT_TRUE(std::ranges::equal(stored, weights.bytes(weight.id))) << to_string(weight.id);
    ASSERT_TRUE(std::ranges::equal(loaded.bytes(weight.id), weights.bytes(weight.id))) << to_string(weight.id);
  }
}

}  // namespace lamella::testing
