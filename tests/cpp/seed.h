// Random tests draw afresh at every run; their failures say with which seed.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <random>
#include <string_view>

namespace lamella::testing {

/// The environment variable LAMELLA_SEED, or a number that is new at every call.
inline std::uint64_t fresh_seed() {
  if (const char* given = std::getenv("LAMELLA_SEED")) return std::strtoull(given, nullptr, 0);
  return std::random_device{}();
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool sanitized = true;
#else
inline constexpr bool sanitized = false;
#endif

/// Whether the long versions of tests run (scripts/test.sh --stage full); never under sanitizers, where they take hours.
inline bool full_stage() {
  if (sanitized) return false;
  const char* stage = std::getenv("LAMELLA_STAGE");
  return stage != nullptr && std::string_view(stage) == "full";
}

}  // namespace lamella::testing
