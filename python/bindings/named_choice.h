// What becomes of one weight, as Python is told.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "memory/resident_weights.h"
#include "store/choose_formats.h"

namespace lamella {

/// A weight's format beside what the file stores.
struct NamedChoice {
  std::string weight, stored, conversion;
  WeightFormat format;
  std::int64_t bytes;  // in memory
};

inline NamedChoice named_choice(const WeightDeclaration& weight, std::string_view stored, Conversion conversion) {
  return {.weight = to_string(weight.id),
          .stored = std::string(stored),
          .conversion = std::string(to_string(conversion)),
          .format = weight.format,
          .bytes = static_cast<std::int64_t>(ResidentWeights::planned_bytes(std::span(&weight, 1)))};
}

}  // namespace lamella
