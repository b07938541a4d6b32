// Before the first collective: do all ranks run the same?
#pragma once

#include <chrono>
#include <span>
#include <string>

#include "comm/communicator.h"

namespace lamella::comm {

/// Something that all ranks must have alike: its name for messages ("model", "options", "version"), and what it is.
struct HandshakePart {
  std::string label;
  Bytes content;
};

/// Called first by all ranks of a group, each with its own parts. Waits `timeout` for all to come, then compares: one
/// all_gather of 40 bytes a rank, and a second one only where they differ. Errors: rank_failed on all ranks, naming all
/// who stayed away, or who differ from the group's first rank, and in which parts. The communicator can be used after a
/// difference was told, but not after a rank stayed away.
void shake_hands(Communicator& ranks, std::span<const HandshakePart> parts,
                 std::chrono::milliseconds timeout = std::chrono::seconds(60));

}  // namespace lamella::comm
