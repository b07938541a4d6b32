#include "store/pack_identity.h"

#include "base/check.h"
#include "base/checksum.h"
#include "io/containers/store_metadata.h"

namespace lamella {

std::string pack_identity(const io::StoreHeader& planned, const LoadRecipe& recipe, const io::TensorTable& tensors) {
  Sha256 hash;
  const auto line = [&](const auto&... words) { hash.update(std::string_view(concat(words..., '\n'))); };
  line("lamella ", LAMELLA_VERSION, " packing ", packing_revision);
  line(io::store_metadata(planned, ""));
  const auto whole = [](const std::string& name) { return concat(name.size(), ':', name); };  // whatever bytes it holds
  for (const WeightSource& source : recipe)
    line("weight ", whole(source.weight), ' ', whole(source.tensor), ' ', source.transposed, ' ', source.groups, ' ',
         source.parts, ' ', source.part, ' ', source.rotary_pair_heads);
  for (const io::TensorEntry& tensor : tensors.tensors)
    line("tensor ", whole(tensor.name), ' ', tensor.file, ' ', tensor.offset, ' ', tensor.bytes, ' ',
         io::traits(tensor.type).name);
  for (const auto& file : tensors.files) line("file ", file->state());
  return hex(hash.digest());
}

}  // namespace lamella
