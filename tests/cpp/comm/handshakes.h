// Handshakes of three ranks, for communicators of every kind.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "comm/handshake.h"

namespace lamella::comm::testing {

/// What a rank brings: texts that outlive the call.
struct Parts {
  std::string version = "0.1.0", model = "gpt2", options = "bf16";

  [[nodiscard]] std::vector<HandshakePart> list() const {
    const auto bytes = [](const std::string& text) { return std::as_bytes(std::span(text)); };
    return {{"version", bytes(version)}, {"model", bytes(model)}, {"options", bytes(options)}};
  }
};

/// Of three ranks: rank 1 has another model, rank 2 that and other options.
inline Parts differing_parts(int rank) {
  Parts parts;
  if (rank > 0) parts.model = "llama";
  if (rank == 2) parts.options = "fp32";
  return parts;
}
inline constexpr std::string_view told_of_differing_parts =
    "ranks do not run the same: beside rank 0, rank 1 differs in \"model\"; rank 2 differs in \"model\" and "
    "\"options\"; "
    "all must be started with the same version, model and options";

}  // namespace lamella::comm::testing
