// Packed stores for Python: what a store says about itself, and whether its bytes are what they were.
#include <nanobind/nanobind.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/function.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <functional>
#include <tuple>

#include "base/checksum.h"
#include "bindings.h"
#include "cpu/machine.h"
#include "gil.h"
#include "io/containers/store_layout.h"
#include "io/containers/store_verify.h"
#include "named_choice.h"
#include "progress.h"
#include "store/packed_store.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace lamella {
namespace {

PackedStore open_released(const std::filesystem::path& path) {
  const GilReleased others_may_run;
  return open_store(path);
}

/// One choice a declared weight, in their order: all of them are kept.
std::vector<NamedChoice> formats_of(const PackedStore& store) {
  std::vector<WeightDeclaration> declared = declare_weights(store.header.model);
  set_formats(declared, io::declared_formats(store.header));
  std::vector<NamedChoice> named;
  named.reserve(declared.size());
  for (const WeightDeclaration& weight : declared)
    named.push_back(named_choice(weight, to_string(weight.format), Conversion::kept));
  return named;
}

using SegmentTuple = std::tuple<std::string, std::uint64_t, std::uint64_t, std::string>;

std::vector<SegmentTuple> segments_of(const PackedStore& store) {
  std::vector<SegmentTuple> segments;
  segments.reserve(store.header.segments.size());
  for (const io::StoreSegment& segment : store.header.segments)
    segments.emplace_back(io::segment_name(segment), segment.offset, segment.bytes, hex(segment.xxh64));
  return segments;
}

void verify(const PackedStore& store, const ProgressFunction& progress) {
  const GilReleased others_may_run;
  PythonProgress told(progress);
  ThreadTeam team(cpu::usable_cores());
  io::PreadReader reader;
  io::verify_store(*store.file, reader, store.header, team, std::ref(told));
}

}  // namespace

void bind_store(nb::module_& m) {
  nb::class_<PackedStore>(m, "PackedStore", "An open packed store: its header, and the file with the weights.")
      .def_prop_ro(
          "path", [](const PackedStore& store) { return std::filesystem::path(store.file->path()); },
          nb::sig("def path(self) -> pathlib.Path"))
      .def_prop_ro("spec", [](const PackedStore& store) { return store.header.model; })
      .def_prop_ro(
          "dtype", [](const PackedStore& store) { return store.header.dtype; },
          "What \"auto\" stood for when the model was packed.")
      .def_prop_ro(
          "source", [](const PackedStore& store) { return store.header.source; },
          "What the store was packed from, in words.")
      .def_prop_ro(
          "digest", [](const PackedStore& store) { return store.header.digest; },
          "\"sha256:...\" over model, formats and checksums: equal for equal models.")
      .def_prop_ro("layout", [](const PackedStore& store) { return store.header.layout; })
      .def_prop_ro("file_bytes", [](const PackedStore& store) { return store.header.file_bytes; })
      .def("formats", formats_of, "One choice a declared weight, in their order; all of them are kept.")
      .def("segments", segments_of, "(name, offset in the file, bytes, XXH64) of each segment, in the file's order.")
      .def("verify", verify, "progress"_a = nb::none(),
           "Reads every byte, on all cores, and checks it; CheckpointError names the first damaged segment. `progress` "
           "is called with (bytes read, bytes in all).");

  m.def("open_store", open_released, "path"_a, nb::sig("def open_store(path: str | os.PathLike[str]) -> PackedStore"),
        "Opens a packed store, or the one that a folder holds; reads its header only.");
  m.def("is_store", is_store, "path"_a, nb::sig("def is_store(path: str | os.PathLike[str]) -> bool"),
        "Whether `open_store` is what opens the path. False for what cannot be opened.");
}

}  // namespace lamella
