// What an engine has done and holds, at one moment.
#pragma once

#include <cstdint>

namespace lamella {

/// Of one engine. The figures of a group belong to the same moment; received = running + finished + cancelled +
/// rejected + failed, whenever one looks.
struct Statistics {
  // Requests. Those of a list that was refused all count as rejected.
  std::int64_t received = 0, running = 0, finished = 0, cancelled = 0, rejected = 0, failed = 0;
  // The KV cache, in blocks of kv_block_tokens tokens: in all, held by requests, and kept for prompts that begin alike.
  std::int64_t kv_blocks_total = 0, kv_blocks_used = 0, kv_blocks_kept = 0;
  // Since the engine was opened. Tokens reused are those of prompts that the cache already held.
  std::int64_t steps = 0, preemptions = 0, reused_tokens = 0;
  double step_s = 0.0, executor_s = 0.0;  // seconds in steps, and of them in the model itself
  // Memory, in bytes.
  std::uint64_t bytes_weights = 0, bytes_kv = 0, bytes_activations = 0;
};

}  // namespace lamella
