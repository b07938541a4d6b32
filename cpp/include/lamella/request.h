// What a caller asks of the engine, and what comes back.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "lamella/error.h"
#include "lamella/sampling_params.h"

namespace lamella {

struct Request {
  std::vector<std::int32_t> prompt;  // token ids
  SamplingParams sampling;
};

using RequestId = std::uint64_t;

enum class FinishReason : std::uint8_t { running, stop, length, cancelled, error };
[[nodiscard]] constexpr std::string_view to_string(FinishReason reason) noexcept {
  switch (reason) {
    case FinishReason::running: return "running";
    case FinishReason::stop: return "stop";
    case FinishReason::length: return "length";
    case FinishReason::cancelled: return "cancelled";
    case FinishReason::error: return "error";
  }
  return "?";
}

/// What has happened to a request since the last look. Once `reason` is not `running` the request is over.
struct Progress {
  std::vector<std::int32_t> new_tokens;  // the stop token itself is not among them
  FinishReason reason = FinishReason::running;
  std::optional<Error> error;  // where reason is error
  double first_token_s = 0.0;  // seconds from submission to the first token; 0 before it
};

}  // namespace lamella
