// lamella._core: the C++ core for Python. Thin: every function here converts arguments and calls one C++ function.
#include <nanobind/nanobind.h>

#include <new>

#include "bindings.h"
#include "lamella/error.h"

namespace nb = nanobind;

namespace {

/// Raises the Python class that lamella.errors keeps for the error's code, with the code beside the message.
void raise_in_python(const lamella::Error& error) {
  const std::string_view code = lamella::to_string(error.code());
  const nb::object errors = nb::module_::import_("lamella.errors");
  const nb::object type = errors.attr("class_for_code")(nb::str(code.data(), code.size()));
  const nb::object raised = type(nb::str(error.what()), nb::str(code.data(), code.size()));
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
  lamella::bind_containers(m);
  lamella::bind_model(m);
  lamella::bind_formats(m);
  lamella::bind_plan(m);
  lamella::bind_engine(m);
}
