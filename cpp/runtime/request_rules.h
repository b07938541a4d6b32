// What a request must keep to before it is accepted.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "lamella/request.h"
#include "memory/kv_cache.h"

namespace lamella {

/// The limits of one engine.
struct RequestRules {
  std::string family;
  bool is_encoder = false;
  std::int64_t vocabulary = 0;
  std::int64_t max_model_len = 0;  // tokens
  std::int64_t kv_blocks = 0;      // of the whole cache
  KvRetention retention = {};

  /// Errors: invalid_argument, context_too_long, and out_of_memory with the figures for a request that the whole KV
  /// cache could not hold.
  void validate(const Request& request) const;
  /// Errors: invalid_argument and context_too_long.
  void validate_tokens(std::span<const std::int32_t> tokens) const;
  /// Errors: out_of_memory.
  void validate_fits(std::int64_t prompt, std::int64_t max_tokens) const;
};

/// Validates every item; where there are several, the error names the index of the first that does not pass.
template <typename Item, typename Validate>
void validate_each(std::string_view what, const std::vector<Item>& items, const Validate& validate_one) {
  for (std::size_t i = 0; i < items.size(); ++i) {
    try {
      validate_one(items[i]);
    } catch (const Error& error) {
      if (items.size() == 1) throw;
      throw Error(error.code(), concat(what, " ", i, ": ", error.what()));
    }
  }
}

}  // namespace lamella
