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
  SamplingParams sampling = {};
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

/// What is new about one choice of a request (see SamplingParams::n) since the last look. Once `reason` is not
/// `running` the choice is over; a request is over when all its choices are.
struct Progress {
  RequestId id = 0;
  std::int32_t choice = 0;
  std::vector<std::int32_t> new_tokens;  // the stop token itself is not among them
  std::vector<double> times_s;           // of each new token: seconds from submission to the end of its step
  /// If asked for, of each new token: itself first, then the best ones, it may be among them.
  std::vector<std::vector<TokenLogprob>> logprobs;
  /// If asked for, once, with the first news of choice 0: the same for each token of the prompt; nothing for the first.
  std::vector<std::vector<TokenLogprob>> prompt_logprobs;
  FinishReason reason = FinishReason::running;
  std::optional<Error> error;  // where reason is error
  double first_token_s = 0.0;  // seconds from submission to the first token; 0 before it
};

}  // namespace lamella
