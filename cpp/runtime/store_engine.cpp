#include "runtime/store_engine.h"

#include <utility>

#include "base/check.h"
#include "io/containers/store_layout.h"
#include "store/load_store.h"

namespace lamella {

EngineConfig config_of(const PackedStore& store) {
  return {.dtype = store.header.dtype, .weight_formats = io::declared_formats(store.header)};
}

std::unique_ptr<EngineCore> engine_from_store(const PackedStore& store, const EngineConfig& config,
                                              std::unique_ptr<Device> device, const LoadProgress& progress) {
  if (config.weight_formats != io::declared_formats(store.header))
    throw Error(ErrorCode::invalid_argument, concat(store.file->path(),
                                                    ": a packed store's weights keep their formats; pack the model "
                                                    "again for others, and begin with config_of(store)"));
  io::PreadReader reader;
  return std::make_unique<EngineCore>(
      store.header.model, config, std::move(device),
      [&](ResidentWeights& weights, ThreadTeam& team) { load_store(weights, store, reader, team, progress); });
}

}  // namespace lamella
