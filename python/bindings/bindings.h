// The parts of the compiled module; each is bound in a file of its own.
#pragma once

#include <nanobind/nanobind.h>

namespace lamella {

void bind_containers(nanobind::module_& m);
void bind_model(nanobind::module_& m);
void bind_formats(nanobind::module_& m);
void bind_store(nanobind::module_& m);
void bind_pack(nanobind::module_& m);
void bind_plan(nanobind::module_& m);
void bind_sampling(nanobind::module_& m);
void bind_ranks(nanobind::module_& m);
void bind_engine(nanobind::module_& m);

}  // namespace lamella
