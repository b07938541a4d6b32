// Which layers of a model share a block table of the KV cache, and which share its memory.
#pragma once

#include <cstdint>
#include <vector>

#include "model/model_spec.h"

namespace lamella {

/// More groups than this would cost more in tables than they save in blocks.
inline constexpr std::size_t most_kv_groups = most_windows;

/// Layers that keep K and V for equally long form a group with a block table of its own. A group has at most `slots`
/// layers, and one layer of every group lies in each slot: a block is the same size whichever group holds it, so that
/// all groups take theirs from one pool.
struct KvGroups {
  struct Place {
    std::uint32_t group = 0, slot = 0;
  };
  std::vector<std::int32_t> windows;  // of each group: tokens that a token sees, itself included; 0: all. Longest first
  std::vector<Place> layers;
  std::uint32_t slots = 0;
};

/// The groups of a model whose sequences have at most `longest` tokens: a window that no sequence outgrows counts as
/// none. Layers of one retention are spread over several groups where that leaves fewer places of the slots empty, as
/// with three windowed layers for every full one. Bidirectional layers are in group 0 and share slot 0: they need K and
/// V within their step alone.
[[nodiscard]] KvGroups kv_groups(const ModelSpec& spec, std::int64_t longest);

/// The layer's window, 0 where no sequence of at most `longest` tokens outgrows it.
[[nodiscard]] inline std::int32_t binding_window(const AttentionSpec& attention, std::int64_t longest) noexcept {
  return attention.window < longest ? attention.window : 0;
}

}  // namespace lamella
