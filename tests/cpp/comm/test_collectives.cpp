// Every collective over drawn sizes, types and groups against plain loops, among threads. Run under ThreadSanitizer as
// well.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "base/float_bits.h"
#include "comm/local_world.h"
#include "drawn_calls.h"
#include "ranks.h"
#include "seed.h"

namespace lamella::comm::testing {
namespace {

using lamella::testing::fresh_seed;
using lamella::testing::sanitized;

TEST(Collectives, GiveWhatPlainLoopsGive) {
  const std::uint64_t seed = fresh_seed();
  SCOPED_TRACE(::testing::Message() << "LAMELLA_SEED=" << seed);
  Random random(seed);
  for (const int size : {1, 2, 3, 4, 5, 8}) {
    const Calls calls(random, size, sanitized ? 25 : 60);
    LocalWorld world(size);
    const Ends ends = world.all();
    run_sound_ranks(size, [&](int rank) { run_calls(*ends[static_cast<std::size_t>(rank)], calls); });
  }
}

TEST(Collectives, OfGroupsThatCrossDoNotMeet) {  // rows and columns of two by three ranks, in both orders of members
  const std::uint64_t seed = fresh_seed();
  SCOPED_TRACE(::testing::Message() << "LAMELLA_SEED=" << seed);
  Random random(seed);
  LocalWorld world(6);
  std::vector<Ends> rows, columns;
  for (int row = 0; row < 2; ++row) rows.push_back(world.group({"row", {3 * row + 2, 3 * row, 3 * row + 1}}));
  for (int column = 0; column < 3; ++column) columns.push_back(world.group({"column", {column, column + 3}}));
  const auto end_of = [](std::vector<Ends>& groups, int rank) -> Communicator& {
    for (Ends& group : groups)
      for (const auto& end : group)
        if (end->members().ranks[static_cast<std::size_t>(end->rank())] == rank) return *end;
    throw std::logic_error("a rank without a group");
  };
  const Calls in_rows(random, 3, 20), in_columns(random, 2, 20);
  run_sound_ranks(6, [&](int rank) {
    for (std::size_t i = 0; i < 20; i += 5) {
      run_calls(end_of(rows, rank), in_rows, i, i + 5);
      run_calls(end_of(columns, rank), in_columns, i, i + 5);
    }
  });
}

TEST(Collectives, KeepNaN) {
  for (const DataType type : {DataType::f32, DataType::bf16, DataType::f16}) {
    for (const std::size_t count : {std::size_t{7}, std::size_t{40000}}) {
      for (const Reduction reduction : {Reduction::sum, Reduction::maximum}) {
        LocalWorld world(3);
        const Ends ends = world.all();
        run_sound_ranks(3, [&](int rank) {
          Buffer data(count * size_of(type));
          const std::size_t at = count - 1 - static_cast<std::size_t>(rank);  // another place on each rank
          if (type == DataType::f32) {
            const float nan = NAN;
            std::memcpy(data.data() + at * 4, &nan, 4);
          } else {
            const std::uint16_t nan = 0xffff;
            std::memcpy(data.data() + at * 2, &nan, 2);
          }
          ends[static_cast<std::size_t>(rank)]->all_reduce({data.data(), count, type}, reduction);
          for (std::size_t i = 0; i < count; ++i) {
            float x = 0.0F;
            std::uint16_t bits = 0;
            if (type == DataType::f32) std::memcpy(&x, data.data() + i * 4, 4);
            else std::memcpy(&bits, data.data() + i * 2, 2);
            if (type == DataType::bf16) x = f32_from_bf16(bits);
            if (type == DataType::f16) x = f32_from_f16(bits);
            ASSERT_EQ(std::isnan(x), i + 3 >= count) << i;
          }
        });
      }
    }
  }
}

}  // namespace
}  // namespace lamella::comm::testing
