#include "runtime/store_engine.h"

#include <utility>

#include "base/check.h"
#include "io/containers/store_layout.h"
#include "io/containers/store_verify.h"
#include "store/load_parts.h"
#include "store/load_store.h"

namespace lamella {

EngineConfig config_of(const PackedStore& store) {
  return {.dtype = store.header.dtype, .weight_formats = io::declared_formats(store.header)};
}

std::unique_ptr<EngineCore> engine_from_store(const PackedStore& store, const EngineConfig& config,
                                              std::vector<std::unique_ptr<Device>> devices,
                                              const LoadProgress& progress) {
  if (config.weight_formats != io::declared_formats(store.header))
    throw Error(ErrorCode::invalid_argument, concat(store.file->path(),
                                                    ": a packed store's weights keep their formats; pack the model "
                                                    "again for others, and begin with config_of(store)"));
  io::PreadReader reader;
  return std::make_unique<EngineCore>(
      store.header.model, config, std::move(devices), [&](RankWeights ranks, ThreadTeam& team) {
        if (ranks.size() == 1) return load_store(*ranks.front(), store, reader, team, progress);
        LoadProgress checking, reading;
        std::uint64_t checked = 0;
        if (progress) {
          const std::uint64_t parts = bytes_of_parts(ranks, store);
          checking = [&, parts](std::uint64_t done, std::uint64_t total) { progress(done, (checked = total) + parts); };
          reading = [&](std::uint64_t done, std::uint64_t total) { progress(checked + done, checked + total); };
        }
        io::verify_store(*store.file, reader, store.header, team, checking);
        load_parts(ranks, store, reader, team, reading);
      });
}

}  // namespace lamella
