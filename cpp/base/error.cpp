#include "lamella/error.h"

#include "base/check.h"

namespace lamella {

std::string_view to_string(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::internal: return "INTERNAL";
    case ErrorCode::invalid_checkpoint: return "INVALID_CHECKPOINT";
    case ErrorCode::unsupported_model: return "UNSUPPORTED_MODEL";
    case ErrorCode::checkpoint_changed: return "CHECKPOINT_CHANGED";
    case ErrorCode::invalid_argument: return "INVALID_ARGUMENT";
    case ErrorCode::context_too_long: return "CONTEXT_TOO_LONG";
    case ErrorCode::out_of_memory: return "OUT_OF_MEMORY";
    case ErrorCode::io_error: return "IO_ERROR";
    case ErrorCode::overloaded: return "OVERLOADED";
    case ErrorCode::cancelled: return "CANCELLED";
    case ErrorCode::deadline: return "DEADLINE";
    case ErrorCode::numeric: return "NUMERIC";
    case ErrorCode::engine_dead: return "ENGINE_DEAD";
    case ErrorCode::chat_template: return "CHAT_TEMPLATE";
    case ErrorCode::rank_failed: return "RANK_FAILED";
  }
  return "INTERNAL";
}

std::string quoted(std::string_view text) {
  constexpr std::size_t limit = 256;
  constexpr char hex[] = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text) {
    if (out.size() + 5 > limit) return out + "...\"";
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f) {
      out += {'\\', 'x', hex[byte >> 4], hex[byte & 15]};
    } else {
      out += c;
    }
  }
  return out + '"';
}

}  // namespace lamella
