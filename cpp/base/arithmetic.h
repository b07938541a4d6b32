// What an op multiplies, which decides how fast a processor can be at most.
#pragma once

#include <cstdint>

namespace lamella {

/// fp32 numbers; bf16 pairs, where an instruction multiplies them; int8 numbers, several to a 32-bit sum.
enum class Arithmetic : std::uint8_t { f32, bf16, int8 };
/// "f32", "bf16", "int8".
[[nodiscard]] constexpr const char* to_string(Arithmetic arithmetic) noexcept {
  switch (arithmetic) {
    case Arithmetic::f32: return "f32";
    case Arithmetic::bf16: return "bf16";
    case Arithmetic::int8: return "int8";
  }
  return "?";
}

}  // namespace lamella
