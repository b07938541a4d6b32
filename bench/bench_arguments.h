// Arguments by position, as the benches take them; what is missing has a default.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/check.h"
#include "cpu/kernels/contracts.h"

namespace lamella::bench {

struct Arguments {
  int count;
  char** values;

  [[nodiscard]] std::int64_t number(int at, std::int64_t otherwise) const {
    return at < count ? std::atoll(values[at]) : otherwise;
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
    for (; at < count; ++at) all.push_back(std::atoll(values[at]));
    return all.empty() ? otherwise : all;
  }
};

}  // namespace lamella::bench
