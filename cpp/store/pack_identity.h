// What a store is being packed from and into, in a few digits: whether an unfinished store may be gone on with.
#pragma once

#include <string>

#include "io/containers/store.h"
#include "io/tensor_table.h"
#include "model/load_recipe.h"

namespace lamella {

/// 64 hexadecimal digits over everything that decides a byte of the finished store: the version of Lamella, the planned
/// header (model, formats, dtype, source texts, places), the recipe, the tensors, and for each of their files inode,
/// size, modification and change time. A file that was written to, or replaced by another one of the same size and time,
/// gives other digits; so does, needlessly, one that was copied back.
[[nodiscard]] std::string pack_identity(const io::StoreHeader& planned, const LoadRecipe& recipe,
                                        const io::TensorTable& tensors);

}  // namespace lamella
