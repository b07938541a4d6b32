// The error contract of the engine: one typed error, whose code decides which class Python and other bindings raise.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace lamella {

/// What went wrong, as a caller would sort it. Each code maps to one Python class and one process exit code.
enum class ErrorCode : std::uint8_t {
  internal,            // a broken invariant of ours; never the caller's fault
  invalid_checkpoint,  // damaged, incomplete or contradictory model files
  unsupported_model,   // sound files that ask for something this engine does not have
  checkpoint_changed,  // the files changed or were cut short while they were read
  invalid_argument,    // an option or a request field outside its range
  context_too_long,    // prompt, or prompt plus max_tokens, beyond the context
  out_of_memory,       // budget, host or KV memory: asked, free and budget are in the message
  io_error,            // the operating system refused: errno, file and offset are in the message
  overloaded,
  cancelled,
  deadline,
  numeric,             // NaN or infinity where a number is needed
  engine_dead,         // the engine broke and serves nothing any more; the message has the cause
  chat_template,       // the model's chat template is missing, hostile or wrong
  rank_failed,         // a rank of a parallel job is gone, stuck or at odds with the others; the message names it
};

/// The code's stable name in upper case, as reliability.md lists it, for example "INVALID_CHECKPOINT".
[[nodiscard]] std::string_view to_string(ErrorCode code) noexcept;

/// The exception that the core throws for whatever a user or the outside world can cause. `what()` says what happened,
/// where (file, tensor, offset, field), what was expected against what was found, and how to mend it.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  [[nodiscard]] ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

/// A value or an Error, for the public C++ border, where no exception crosses. `value()` throws the Error where there
/// is no value; `error()` may be asked for only where there is one.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}      // NOLINT(google-explicit-constructor): reads as `return value;`
  Result(Error error) : state_(std::move(error)) {}  // NOLINT(google-explicit-constructor): reads as `return error;`

  [[nodiscard]] bool ok() const noexcept { return std::holds_alternative<T>(state_); }
  explicit operator bool() const noexcept { return ok(); }
  [[nodiscard]] const Error& error() const { return std::get<Error>(state_); }
  [[nodiscard]] T& value() & {
    if (!ok()) throw std::get<Error>(state_);
    return std::get<T>(state_);
  }
  [[nodiscard]] const T& value() const& {
    if (!ok()) throw std::get<Error>(state_);
    return std::get<T>(state_);
  }
  /// By value: `for (auto& item : list().value())` would otherwise walk a list that is gone.
  [[nodiscard]] T value() && {
    if (!ok()) throw std::get<Error>(state_);
    return std::get<T>(std::move(state_));
  }

 private:
  std::variant<T, Error> state_;
};

/// Of what has nothing to return: done, or an Error.
template <>
class [[nodiscard]] Result<void> {
 public:
  Result() noexcept = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT(google-explicit-constructor): reads as `return error;`

  [[nodiscard]] bool ok() const noexcept { return !error_; }
  explicit operator bool() const noexcept { return ok(); }
  [[nodiscard]] const Error& error() const { return error_.value(); }
  void value() const {
    if (error_) throw *error_;
  }

 private:
  std::optional<Error> error_;
};

}  // namespace lamella
