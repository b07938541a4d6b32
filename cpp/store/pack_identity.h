// What a store is being packed from and into, in a few digits: whether an unfinished store may be gone on with.
#pragma once

#include <string>

#include "io/containers/store.h"
#include "io/tensor_table.h"
#include "model/load_recipe.h"

namespace lamella {

/// Raise it with any change of the code that changes a byte of what packing writes for some model: quantisers, formats,
/// rotation, layout. The version stays the same between two releases, and a store that the code before such a change
/// began must not be finished by the code after it.
inline constexpr int packing_revision = 1;

/// 64 hexadecimal digits over everything that decides a byte of the finished store: Lamella's version and
/// packing_revision, the planned header (model, formats, dtype, source texts, places), the recipe, the tensors, and for
/// each of their files inode, size, modification and change time. A file that was written to, or replaced by another of
/// the same size and time, gives other digits; so does, needlessly, one that was copied back.
[[nodiscard]] std::string pack_identity(const io::StoreHeader& planned, const LoadRecipe& recipe,
                                        const io::TensorTable& tensors);

}  // namespace lamella
