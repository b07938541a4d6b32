// Writing packed stores, for Python.
#include <nanobind/nanobind.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/function.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <functional>

#include "bindings.h"
#include "cpu/cpu_device.h"
#include "gil.h"
#include "progress.h"
#include "store/pack_store.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace lamella {
namespace {

PackReport pack_released(const ModelSpec& spec, const LoadRecipe& recipe, const io::TensorTable& tensors,
                         const std::vector<WeightFormat>& formats, DataType dtype,
                         const std::map<std::string, std::string>& source, const std::filesystem::path& file,
                         bool replace, int threads, const ProgressFunction& progress,
                         const std::function<void(std::string_view)>& notice,
                         const std::function<void()>& before_publishing) {
  const GilReleased others_may_run;
  PythonProgress told(progress);
  cpu::CpuDevice device({.threads = threads});
  io::PreadReader reader;
  return pack_store(
      {.model = spec, .recipe = recipe, .tensors = tensors, .formats = formats, .dtype = dtype, .source = source},
      {.file = file,
       .replace = replace,
       .progress = std::ref(told),
       .notice = notice,
       .before_publishing = before_publishing},
      reader, device.team());
}

}  // namespace

void bind_pack(nb::module_& m) {
  nb::class_<PackReport>(m, "PackReport", "What was written, and what was there already.")
      .def_ro("digest", &PackReport::digest)
      .def_ro("file_bytes", &PackReport::file_bytes)
      .def_ro("segments", &PackReport::segments)
      .def_ro("kept_segments", &PackReport::kept_segments, "Segments found written by a packing that was cut short.")
      .def_ro("kept_bytes", &PackReport::kept_bytes);

  m.def("pack_store", pack_released, "spec"_a, "recipe"_a, "tensors"_a, "weight_formats"_a, "dtype"_a, "source"_a,
        "file"_a, "replace"_a, "threads"_a = 0, "progress"_a = nb::none(), "notice"_a = nb::none(),
        "before_publishing"_a = nb::none(),
        nb::sig("def pack_store(spec: ModelSpec, recipe: collections.abc.Sequence[WeightSource], tensors: TensorTable, "
                "weight_formats: collections.abc.Sequence[WeightFormat], dtype: DataType, "
                "source: collections.abc.Mapping[str, str], file: str | os.PathLike[str], replace: bool, "
                "threads: int = 0, progress: collections.abc.Callable[[int, int], None] | None = None, "
                "notice: collections.abc.Callable[[str], None] | None = None, "
                "before_publishing: collections.abc.Callable[[], None] | None = None) -> PackReport"),
        "Writes a packed store; see cpp/store/pack_store.h. lamella.pack wraps it.");
  m.def("partial_path", partial_path, "store"_a,
        nb::sig("def partial_path(store: str | os.PathLike[str]) -> pathlib.Path"),
        "Where a store is until it is whole.");
  m.def("journal_path", journal_path, "store"_a,
        nb::sig("def journal_path(store: str | os.PathLike[str]) -> pathlib.Path"), "What stands beside it meanwhile.");
  m.attr("store_file_name") = nb::str(io::store_file_name.data(), io::store_file_name.size());
}

}  // namespace lamella
