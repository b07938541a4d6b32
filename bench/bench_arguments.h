// Arguments by position, as the benches take them; what is missing has a default.
#pragma once

#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "base/check.h"
#include "cpu/kernels/contracts.h"
#include "lamella/error.h"

namespace lamella::bench {

struct Arguments {
  int count;
  char** values;

  /// Errors: invalid_argument for what is not a whole number.
  [[nodiscard]] std::int64_t number(int at, std::int64_t otherwise) const {
    if (at >= count) return otherwise;
    const std::string_view text = values[at];
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(text.begin(), text.end(), number);
    if (error != std::errc() || end != text.end() || number < 0)
      throw Error(ErrorCode::invalid_argument,
                  concat(quoted(text), " is not a whole number; the source names the arguments"));
    return number;
  }
  [[nodiscard]] std::string text(int at) const { return at < count ? values[at] : ""; }
  /// The kernel set of that name; without one the best. Errors: invalid_argument for a set that this machine has not.
  [[nodiscard]] cpu::KernelSet kernel_set(int at) const {
    return text(at).empty() ? cpu::available_kernel_sets().back() : cpu::kernel_set_named(values[at], "the set");
  }
  /// Whether a list as "bf16,int4" holds `name`; an empty one holds all.
  [[nodiscard]] bool wants(int at, const std::string& name) const {
    return text(at).empty() || concat(",", text(at), ",").find(concat(",", name, ",")) != std::string::npos;
  }
  /// All numbers from `at` on.
  [[nodiscard]] std::vector<std::int64_t> numbers(int at, std::vector<std::int64_t> otherwise) const {
    std::vector<std::int64_t> all;
    for (; at < count; ++at) all.push_back(number(at, 0));
    return all.empty() ? otherwise : all;
  }
};

}  // namespace lamella::bench
