// One door to all containers.
#pragma once

#include <filesystem>

#include "io/tensor_table.h"

namespace lamella::io {

/// The tensors of a model folder (model.safetensors, or model.safetensors.index.json with its shards), of a
/// .safetensors file, an index file or a .gguf file; files are told apart by their first bytes, since a blob of the
/// Hugging Face cache has no ending. Only headers are read. Nothing is ever unpickled: a folder or file with pickled
/// weights alone is an unsupported_model whose message holds the command that converts it. A path that does not exist
/// is an io_error.
[[nodiscard]] TensorTable open_checkpoint(const std::filesystem::path& path);

}  // namespace lamella::io
