// Packing a random checkpoint into a folder, with all that tests look at.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "checkpoints.h"
#include "io/containers/store.h"
#include "store/choose_formats.h"
#include "store/pack_store.h"

namespace lamella::testing {

/// A packing that can be run again and again.
struct Packing {
  const RandomCheckpoint& checkpoint;
  std::filesystem::path file;
  Quantization quantization = Quantization::none;
  DataType dtype = DataType::bf16;
  PackTarget target = {};  // but for `file`

  [[nodiscard]] std::vector<WeightFormat> formats() const {
    std::vector<WeightFormat> out;
    for (const FormatChoice& choice :
         choose_formats(declare_weights(checkpoint.spec()), checkpoint.recipe(), checkpoint.tensors(),
                        {.quantization = quantization, .dtype = dtype}))
      out.push_back(choice.format);
    return out;
  }

  PackReport run(int threads) const {
    io::PreadReader reader;
    return run(threads, reader);
  }
  PackReport run(int threads, io::Reader& reader) const {
    const std::vector<WeightFormat> chosen = formats();
    PackTarget to = target;
    to.file = file;
    ThreadTeam team(threads);
    return pack_store({.model = checkpoint.spec(),
                       .recipe = checkpoint.recipe(),
                       .tensors = checkpoint.tensors(),
                       .formats = chosen,
                       .dtype = dtype,
                       .source = {{"model", "random"}}},
                      to, reader, team);
  }
};

}  // namespace lamella::testing
