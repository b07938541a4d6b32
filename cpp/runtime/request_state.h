// The life of a request in the engine: one readable state machine.
//
//     submit ──> rejected                   refused before it was accepted; it never had a state
//        │
//        v
//     waiting ──> running ──> finished      at a stop token, at max_tokens, or where its caller says it is enough
//        │         ^   │ ├──> cancelled     its caller left or said so, or the engine was closed
//        │         │   │ └──> failed        its logits were no numbers, or its step broke
//        │         │   v
//        │       preempted                  its blocks were needed by older requests; its tokens stay
//        │         │
//        └─────────┴──> finished, cancelled, failed: as from running, without having had a place
//
// What is true in each state: blocks of the KV cache are held in `running` alone; a place among max_num_seqs too. A
// preempted request waits at its place in the order of arrival and computes its tokens again when it runs; nobody can
// tell from its results. `finished`, `cancelled` and `failed` are final, and every accepted request reaches exactly one.
#pragma once

#include <cstdint>
#include <string_view>

namespace lamella {

enum class RequestState : std::uint8_t { waiting, running, preempted, finished, cancelled, failed };

[[nodiscard]] constexpr std::string_view to_string(RequestState state) noexcept {
  switch (state) {
    case RequestState::waiting: return "waiting";
    case RequestState::running: return "running";
    case RequestState::preempted: return "preempted";
    case RequestState::finished: return "finished";
    case RequestState::cancelled: return "cancelled";
    case RequestState::failed: return "failed";
  }
  return "?";
}

[[nodiscard]] constexpr bool is_final(RequestState state) noexcept { return state >= RequestState::finished; }

/// Whether the machine has an edge from one state to the other.
[[nodiscard]] constexpr bool may_follow(RequestState from, RequestState to) noexcept {
  switch (from) {
    case RequestState::waiting:
    case RequestState::preempted: return to == RequestState::running || is_final(to);
    case RequestState::running: return to != RequestState::running && to != RequestState::waiting;
    case RequestState::finished:
    case RequestState::cancelled:
    case RequestState::failed: return false;
  }
  return false;
}

}  // namespace lamella
