#include "embed/c_error.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

namespace lamella {
namespace {

/// Both sides of every code. The numbers are for ever: new ones go to the end.
constexpr std::array<std::pair<ErrorCode, lamella_code>, 15> codes = {{
    {ErrorCode::internal, LAMELLA_INTERNAL},
    {ErrorCode::invalid_checkpoint, LAMELLA_INVALID_CHECKPOINT},
    {ErrorCode::unsupported_model, LAMELLA_UNSUPPORTED_MODEL},
    {ErrorCode::checkpoint_changed, LAMELLA_CHECKPOINT_CHANGED},
    {ErrorCode::invalid_argument, LAMELLA_INVALID_ARGUMENT},
    {ErrorCode::context_too_long, LAMELLA_CONTEXT_TOO_LONG},
    {ErrorCode::out_of_memory, LAMELLA_OUT_OF_MEMORY},
    {ErrorCode::io_error, LAMELLA_IO_ERROR},
    {ErrorCode::overloaded, LAMELLA_OVERLOADED},
    {ErrorCode::cancelled, LAMELLA_CANCELLED},
    {ErrorCode::deadline, LAMELLA_DEADLINE},
    {ErrorCode::numeric, LAMELLA_NUMERIC},
    {ErrorCode::engine_dead, LAMELLA_ENGINE_DEAD},
    {ErrorCode::chat_template, LAMELLA_CHAT_TEMPLATE},
    {ErrorCode::rank_failed, LAMELLA_RANK_FAILED},
}};

constexpr const char* no_memory_text = "the host ran out of memory";

// Two, for the message that needs memory which is not there: the second points to a text that needs none.
thread_local std::string kept_message;              // NOLINT(bugprone-dynamic-static-initializers)
thread_local const char* last_message = "";

}  // namespace

lamella_code c_code(ErrorCode code) noexcept {
  const auto* found = std::ranges::find(codes, code, &std::pair<ErrorCode, lamella_code>::first);
  return found == codes.end() ? LAMELLA_INTERNAL : found->second;
}

lamella_code c_failed(const Error& error) noexcept {
  try {
    kept_message = error.what();
    last_message = kept_message.c_str();
  } catch (...) {
    last_message = no_memory_text;
  }
  return c_code(error.code());
}

}  // namespace lamella

extern "C" {

uint32_t lamella_abi_version(void) { return LAMELLA_ABI_VERSION; }

const char* lamella_code_name(lamella_code code) {
  if (code == LAMELLA_OK) return "OK";
  const auto* found = std::ranges::find(lamella::codes, code, &std::pair<lamella::ErrorCode, lamella_code>::second);
  return found == lamella::codes.end() ? "UNKNOWN" : lamella::to_string(found->first).data();
}

const char* lamella_last_error(void) { return lamella::last_message; }

}  // extern "C"
