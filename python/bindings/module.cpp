// lamella._core: the C++ core for Python. Thin: every function here converts arguments and calls one C++ function.
#include <nanobind/nanobind.h>

#include <string_view>

#include "bindings.h"
#include "gil.h"
#include "lamella/error.h"

namespace nb = nanobind;

namespace {

/// Raises the Python class that lamella.errors keeps for the error's code, with the code beside the message.
void raise_in_python(const lamella::Error& error) {
  const std::string_view code = lamella::to_string(error.code());
  const nb::object errors = nb::module_::import_("lamella.errors");
  const nb::object type = errors.attr("class_for_code")(nb::str(code.data(), code.size()));
  // A message may hold a path, and a path on Linux is bytes: those that are not UTF-8 are shown as \xff.
  const std::string_view what = error.what();
  const auto message =
      nb::steal(PyUnicode_DecodeUTF8(what.data(), static_cast<Py_ssize_t>(what.size()), "backslashreplace"));
  if (!message.is_valid()) throw nb::python_error();
  const nb::object raised = type(message, nb::str(code.data(), code.size()));
  PyErr_SetObject(type.ptr(), raised.ptr());
}

void translate(const std::exception_ptr& pointer, void* /*payload*/) {
  try {
    std::rethrow_exception(pointer);
  } catch (const lamella::Error& error) {
    raise_in_python(error);
  }
}

}  // namespace

NB_MODULE(_core, m) {
  m.doc() = "The compiled core of lamella. Use the package's own functions; this module's surface may change.";
  m.attr("version") = LAMELLA_VERSION;
  nb::register_exception_translator(translate);
  lamella::watch_for_the_interpreters_end();
  lamella::bind_containers(m);
  lamella::bind_model(m);
  lamella::bind_formats(m);
  lamella::bind_store(m);
  lamella::bind_pack(m);
  lamella::bind_plan(m);
  lamella::bind_sampling(m);
  lamella::bind_ranks(m);
  lamella::bind_engine(m);
}
