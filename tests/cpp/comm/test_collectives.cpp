// Every collective over drawn sizes, types and groups against plain loops. Run under ThreadSanitizer as well.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>

#include "base/float_bits.h"
#include "comm/local_world.h"
#include "ranks.h"
#include "seed.h"

namespace lamella::comm::testing {
namespace {

using lamella::testing::fresh_seed;
using lamella::testing::sanitized;
using Random = std::mt19937_64;
using Buffer = std::vector<std::byte>;

int draw(Random& random, int least, int most) { return std::uniform_int_distribution<int>(least, most)(random); }

/// Sizes on both sides of what is staged and of whole lines.
std::size_t draw_count(Random& random) {
  constexpr int edges[] = {0, 1, 15, 16, 17, 63, 8191, 8192, 8193, 16384, 20001};
  if (draw(random, 0, 1) == 0) return static_cast<std::size_t>(edges[draw(random, 0, std::size(edges) - 1)]);
  return static_cast<std::size_t>(draw(random, 1, sanitized ? 12000 : 40000));
}

Buffer draw_elements(Random& random, DataType type, std::size_t count) {
  Buffer data(count * size_of(type));
  for (std::size_t i = 0; i < count; ++i) {
    const float x = std::normal_distribution<float>()(random);
    std::byte* place = data.data() + i * size_of(type);
    const auto put = [&](auto value) { std::memcpy(place, &value, sizeof value); };
    switch (type) {
      case DataType::f32: put(x); break;
      case DataType::bf16: put(bf16_from_f32(x)); break;
      case DataType::f16: put(f16_from_f32(x)); break;
      case DataType::i32: put(static_cast<std::int32_t>(random())); break;
      case DataType::i8: break;
    }
  }
  return data;
}

/// Element `i` reduced over all ranks' buffers, one after the other.
template <typename Stored, typename Load, typename Store>
void reduce_element(std::span<const Buffer> all, std::size_t i, Reduction reduction, std::byte* to, Load load,
                    Store store) {
  const auto at = [&](std::size_t rank) {
    Stored x;
    std::memcpy(&x, all[rank].data() + i * sizeof x, sizeof x);
    return load(x);
  };
  auto sum = at(0);
  for (std::size_t rank = 1; rank < all.size(); ++rank)
    sum = reduction == Reduction::sum ? static_cast<decltype(sum)>(sum + at(rank)) : std::max(sum, at(rank));
  const Stored result = store(sum);
  std::memcpy(to, &result, sizeof result);
}

Buffer reduced(std::span<const Buffer> all, DataType type, Reduction reduction) {
  Buffer result(all[0].size());
  for (std::size_t i = 0; i < result.size() / size_of(type); ++i) {
    std::byte* to = result.data() + i * size_of(type);
    switch (type) {
      case DataType::f32:
        reduce_element<float>(all, i, reduction, to, [](float x) { return x; }, [](float x) { return x; });
        break;
      case DataType::bf16: reduce_element<std::uint16_t>(all, i, reduction, to, f32_from_bf16, bf16_from_f32); break;
      case DataType::f16: reduce_element<std::uint16_t>(all, i, reduction, to, f32_from_f16, f16_from_f32); break;
      case DataType::i32:
        reduce_element<std::uint32_t>(
            all, i, reduction, to,
            [&](std::uint32_t x) {  // sums wrap, maxima are signed
              return reduction == Reduction::sum ? std::int64_t{x} : std::int64_t{static_cast<std::int32_t>(x)};
            },
            [](std::int64_t x) { return static_cast<std::uint32_t>(x); });
        break;
      case DataType::i8: break;
    }
  }
  return result;
}

constexpr DataType types[] = {DataType::f32, DataType::bf16, DataType::f16, DataType::i32};

/// What one call needs and must give, drawn before the ranks begin: data of all, and the same dice for each.
struct Problem {
  int size;
  DataType type;
  Reduction reduction;
  std::size_t count;  // elements of each rank
  int root;
  std::vector<Buffer> data;  // of each rank
  std::vector<std::vector<std::size_t>> counts;  // all_to_all: [from][to]
  std::vector<Buffer> sent;
};

Problem draw_problem(Random& random, int size) {
  Problem problem{.size = size,
                  .type = types[draw(random, 0, 3)],
                  .reduction = draw(random, 0, 1) == 0 ? Reduction::sum : Reduction::maximum,
                  .count = draw_count(random),
                  .root = draw(random, 0, size - 1)};
  for (int rank = 0; rank < size; ++rank) {
    problem.data.push_back(draw_elements(random, problem.type, problem.count));
    std::vector<std::size_t> counts(static_cast<std::size_t>(size));
    for (std::size_t& count : counts)
      count = static_cast<std::size_t>(draw(random, 0, 3) == 0 ? 0 : draw(random, 0, 5000));
    const std::size_t bytes = std::accumulate(counts.begin(), counts.end(), std::size_t{0});
    problem.sent.push_back(draw_elements(random, DataType::i32, bytes / 4 + 1));
    problem.sent.back().resize(bytes);
    problem.counts.push_back(std::move(counts));
  }
  return problem;
}

void check_all_reduce(Communicator& ends, const Problem& p) {
  Buffer mine = p.data[static_cast<std::size_t>(ends.rank())];
  ends.all_reduce({mine.data(), p.count, p.type}, p.reduction);
  EXPECT_EQ(mine, reduced(p.data, p.type, p.reduction));
}

void check_reduce_scatter(Communicator& ends, const Problem& p) {
  const auto size = static_cast<std::size_t>(p.size), rank = static_cast<std::size_t>(ends.rank());
  const std::size_t each = p.count / size, bytes = each * size_of(p.type);
  Buffer all = p.data[rank], mine(bytes);
  all.resize(bytes * size);
  const Buffer before = all;
  ends.reduce_scatter({all.data(), each * size, p.type}, {mine.data(), each, p.type}, p.reduction);
  EXPECT_EQ(all, before);
  const Buffer expected = reduced(p.data, p.type, p.reduction);
  EXPECT_TRUE(std::equal(mine.begin(), mine.end(), expected.begin() + static_cast<std::ptrdiff_t>(rank * bytes)));
}

void check_all_gather(Communicator& ends, const Problem& p) {
  // Rank i brings the first i + 1 or fewer columns of its rows of bytes.
  const std::size_t rows = 1 + p.count % 7, longest = p.data[0].size() / rows;
  std::vector<std::size_t> widths;
  for (std::size_t i = 0; i < p.data.size(); ++i) widths.push_back(longest - std::min(longest, i * (p.count % 3)));
  Buffer expected;
  for (std::size_t row = 0; row < rows; ++row)
    for (std::size_t i = 0; i < p.data.size(); ++i) {
      const auto begin = p.data[i].begin() + static_cast<std::ptrdiff_t>(row * widths[i]);
      expected.insert(expected.end(), begin, begin + static_cast<std::ptrdiff_t>(widths[i]));
    }
  Buffer mine = p.data[static_cast<std::size_t>(ends.rank())], all(expected.size());
  mine.resize(rows * widths[static_cast<std::size_t>(ends.rank())]);
  ends.all_gather(mine, all, widths, rows);
  std::fill(mine.begin(), mine.end(), std::byte{0xee});  // it may change at once
  EXPECT_EQ(all, expected);
}

void check_broadcast(Communicator& ends, const Problem& p) {
  Buffer data = p.data[static_cast<std::size_t>(ends.rank())];
  ends.broadcast(data, p.root);
  EXPECT_EQ(data, p.data[static_cast<std::size_t>(p.root)]);
  std::fill(data.begin(), data.end(), std::byte{0xee});
}

void check_all_to_all(Communicator& ends, const Problem& p) {
  const auto me = static_cast<std::size_t>(ends.rank());
  Buffer mine = p.sent[me], expected;
  std::vector<std::size_t> received;
  for (std::size_t from = 0; from < p.counts.size(); ++from) {
    const auto& counts = p.counts[from];
    received.push_back(counts[me]);
    const auto begin =
        p.sent[from].begin() + static_cast<std::ptrdiff_t>(std::accumulate(
                                   counts.begin(), counts.begin() + static_cast<std::ptrdiff_t>(me), std::size_t{0}));
    expected.insert(expected.end(), begin, begin + static_cast<std::ptrdiff_t>(counts[me]));
  }
  Buffer to(expected.size());
  ends.all_to_all(mine, p.counts[me], to, received);
  std::fill(mine.begin(), mine.end(), std::byte{0xee});
  EXPECT_EQ(to, expected);
}

/// Everyone sends to everyone, some of it twice, and receives in another order.
void check_messages(Communicator& ends, const Problem& p) {
  const int me = ends.rank();
  for (int i = 1; i < p.size; ++i) {
    const int to = (me + i) % p.size;
    Buffer mine = p.data[static_cast<std::size_t>(me)];
    ends.send(mine, to);
    std::fill(mine.begin(), mine.end(), std::byte{0xee});
    ends.send(p.sent[static_cast<std::size_t>(me)], to);
  }
  for (int from = p.size - 1; from >= 0; --from) {
    if (from == me) continue;
    Buffer first(p.data[static_cast<std::size_t>(from)].size()), second(p.sent[static_cast<std::size_t>(from)].size());
    ends.receive(first, from);
    ends.receive(second, from);
    EXPECT_EQ(first, p.data[static_cast<std::size_t>(from)]);
    EXPECT_EQ(second, p.sent[static_cast<std::size_t>(from)]);
  }
}

/// Runs drawn calls, the same on all ranks, one after the other with nothing between them.
void run_problems(Communicator& ends, std::span<const Problem> problems, std::span<const int> calls) {
  for (std::size_t i = 0; i < problems.size(); ++i) {
    switch (calls[i]) {
      case 0: check_all_reduce(ends, problems[i]); break;
      case 1: check_reduce_scatter(ends, problems[i]); break;
      case 2: check_all_gather(ends, problems[i]); break;
      case 3: check_broadcast(ends, problems[i]); break;
      case 4: check_all_to_all(ends, problems[i]); break;
      case 5: check_messages(ends, problems[i]); break;
      default: ends.barrier();
    }
  }
}

struct Calls {
  std::vector<Problem> problems;
  std::vector<int> kinds;

  Calls(Random& random, int size, int count) {
    for (int i = 0; i < count; ++i) {
      problems.push_back(draw_problem(random, size));
      kinds.push_back(draw(random, 0, 6));
    }
  }
};

TEST(Collectives, GiveWhatPlainLoopsGive) {
  const std::uint64_t seed = fresh_seed();
  SCOPED_TRACE(::testing::Message() << "LAMELLA_SEED=" << seed);
  Random random(seed);
  for (const int size : {1, 2, 3, 4, 5, 8}) {
    const Calls calls(random, size, sanitized ? 25 : 60);
    LocalWorld world(size);
    const Ends ends = world.all();
    run_sound_ranks(
        size, [&](int rank) { run_problems(*ends[static_cast<std::size_t>(rank)], calls.problems, calls.kinds); });
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
    for (int i = 0; i < 20; i += 5) {
      const auto some = [&](const Calls& calls) {
        return std::pair(std::span(calls.problems).subspan(static_cast<std::size_t>(i), 5),
                         std::span(calls.kinds).subspan(static_cast<std::size_t>(i), 5));
      };
      run_problems(end_of(rows, rank), some(in_rows).first, some(in_rows).second);
      run_problems(end_of(columns, rank), some(in_columns).first, some(in_columns).second);
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
