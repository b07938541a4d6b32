// What an engine will take, computed before the first weight is read (row D1 of the error contract).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "memory/kv_cache.h"
#include "model/model_spec.h"
#include "plan/plan.h"

namespace lamella {

/// The split of an engine's memory, in bytes.
struct MemorySplit {
  std::uint64_t weights = 0;
  std::uint64_t kv = 0;
  std::uint64_t activations = 0;
  std::uint64_t budget = 0;
  std::int64_t kv_blocks = 0;

  [[nodiscard]] std::uint64_t total() const noexcept { return weights + kv + activations; }
};

struct BudgetRequest {
  std::uint64_t weights = 0;
  std::uint64_t activations = 0;
  std::uint64_t kv_bytes_per_block = 0;  // all slots
  KvRetention retention = {};
  std::int64_t max_num_seqs = 0;
  std::int64_t max_model_len = 0;
  bool keeps_kv = true;                  // false: encoders, whose blocks live for one step
  std::int64_t step_tokens = 0;          // encoders: the pool covers one step
  std::uint64_t available = 0;           // memory free on this machine
  std::optional<std::uint64_t> budget;   // the user's own limit
  std::optional<std::uint64_t> kv;       // the user's own size of the KV pool; decoders'
};

/// Gives the KV pool what max_num_seqs full sequences need, but at most a quarter of what weights and activations leave
/// (half of it under an explicit budget), and at least one full sequence; or what the user asked for, rounded down to
/// blocks. A budget above the memory available is not more than that memory. Errors: invalid_argument where the user's
/// size holds no block; out_of_memory with the whole table and the options that would fit, before anything is
/// allocated.
[[nodiscard]] MemorySplit split_memory(const BudgetRequest& request);

/// "1.23 GiB".
[[nodiscard]] std::string human_bytes(std::uint64_t bytes);

}  // namespace lamella
