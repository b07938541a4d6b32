// An engine from a packed store, for services without Python: the store brings the model, its weights and their formats.
//
//   const PackedStore store = open_store("smollm2/");
//   EngineConfig config = config_of(store);
//   config.max_num_seqs = 8;
//   const auto engine =
//       engine_from_store(store, config, cpu::cpu_devices(store.header.model, config.parallel, cpu::CpuOptions{}));
#pragma once

#include <memory>

#include "runtime/engine_core.h"
#include "store/load_weights.h"
#include "store/packed_store.h"

namespace lamella {

/// The store's dtype and its weights' formats; everything else at its default. The dtype may be changed: kernels take
/// every format with every dtype of activations.
[[nodiscard]] EngineConfig config_of(const PackedStore& store);

/// An engine with the store's weights, all of them read and checked; the store may go afterwards. Several ranks read, after
/// all of it was checked, their parts of it. `config.weight_formats`
/// are those of config_of(store): another list is an invalid_argument. Errors: those of Engine, load_store() and load_parts().
[[nodiscard]] std::unique_ptr<EngineCore> engine_from_store(const PackedStore& store, const EngineConfig& config,
                                                            std::vector<std::unique_ptr<Device>> devices,
                                                            const LoadProgress& progress = {});

}  // namespace lamella
