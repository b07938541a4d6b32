#include "comm/reduce.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include "base/check.h"
#include "base/float_bits.h"

namespace lamella::comm {
namespace {

/// Elements that are reduced at a time: their sums stay in the first-level cache while one source after the other is added.
constexpr std::size_t run = 1024;

struct F32 {
  using Stored = float;
  using Sum = float;
  static Sum load(Stored x) { return x; }
  static Stored store(Sum x) { return x; }
};
struct Bf16 {
  using Stored = std::uint16_t;
  using Sum = float;
  static Sum load(Stored x) { return f32_from_bf16(x); }
  static Stored store(Sum x) { return x == x ? bf16_from_f32(x) : std::uint16_t{0x7fc0}; }
};
struct F16 {
  using Stored = std::uint16_t;
  using Sum = float;
  static Sum load(Stored x) { return f32_from_f16(x); }
  static Stored store(Sum x) { return x == x ? f16_from_f32(x) : std::uint16_t{0x7e00}; }
};
struct I32 {
  using Stored = std::int32_t;
  using Sum = std::int32_t;
  static Sum load(Stored x) { return x; }
  static Stored store(Sum x) { return x; }
};

template <Reduction Kind, typename Sum>
Sum combine(Sum a, Sum b) {
  if constexpr (Kind == Reduction::maximum) return a > b || a != a ? a : b;  // a NaN in b is no smaller than a
  else if constexpr (std::is_integral_v<Sum>)
    return static_cast<Sum>(static_cast<std::uint32_t>(a) + static_cast<std::uint32_t>(b));
  else return a + b;
}

template <Reduction Kind, typename Type>
void reduce_as(const Elements& to, std::span<const void* const> sources) {
  using Stored = typename Type::Stored;
  std::array<typename Type::Sum, run> sums;
  for (std::size_t begin = 0; begin < to.count; begin += run) {
    const std::size_t count = std::min(run, to.count - begin);
    const Stored* first = static_cast<const Stored*>(sources[0]) + begin;
    for (std::size_t i = 0; i < count; ++i) sums[i] = Type::load(first[i]);
    for (const void* source : sources.subspan(1)) {
      const Stored* next = static_cast<const Stored*>(source) + begin;
      for (std::size_t i = 0; i < count; ++i) sums[i] = combine<Kind>(sums[i], Type::load(next[i]));
    }
    Stored* result = static_cast<Stored*>(to.data) + begin;
    for (std::size_t i = 0; i < count; ++i) result[i] = Type::store(sums[i]);
  }
}

template <Reduction Kind>
void reduce_by_type(const Elements& to, std::span<const void* const> sources) {
  switch (to.type) {
    case DataType::f32: return reduce_as<Kind, F32>(to, sources);
    case DataType::f16: return reduce_as<Kind, F16>(to, sources);
    case DataType::bf16: return reduce_as<Kind, Bf16>(to, sources);
    case DataType::i32: return reduce_as<Kind, I32>(to, sources);
    case DataType::i8: break;
  }
  throw Error(ErrorCode::internal, concat("a reduction of ", to_string(to.type)));
}

}  // namespace

void reduce(const Elements& to, std::span<const void* const> sources, Reduction reduction) {
  check(!sources.empty(), "a reduction over no rank");
  if (reduction == Reduction::sum) reduce_by_type<Reduction::sum>(to, sources);
  else reduce_by_type<Reduction::maximum>(to, sources);
}

}  // namespace lamella::comm
