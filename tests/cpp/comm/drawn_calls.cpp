#include "drawn_calls.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/float_bits.h"
#include "seed.h"

namespace lamella::comm::testing {
namespace {

using lamella::testing::sanitized;

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

}  // namespace

Calls::Calls(Random& random, int size, int count) {
  for (int i = 0; i < count; ++i) {
    problems.push_back(draw_problem(random, size));
    kinds.push_back(draw(random, 0, 6));
  }
}

void run_calls(Communicator& ends, const Calls& calls, std::size_t begin, std::size_t end) {
  for (std::size_t i = begin; i < end; ++i) {
    SCOPED_TRACE(::testing::Message() << "call " << i << " of kind " << calls.kinds[i] << ", rank " << ends.rank());
    const Problem& problem = calls.problems[i];
    switch (calls.kinds[i]) {
      case 0: check_all_reduce(ends, problem); break;
      case 1: check_reduce_scatter(ends, problem); break;
      case 2: check_all_gather(ends, problem); break;
      case 3: check_broadcast(ends, problem); break;
      case 4: check_all_to_all(ends, problem); break;
      case 5: check_messages(ends, problem); break;
      default: ends.barrier();
    }
  }
}

}  // namespace lamella::comm::testing
