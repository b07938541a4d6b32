// Writes the seeds of fuzz_store: make_store_seeds FOLDER. Small stores' heads, whole and as metadata alone, and some that
// are one step away from being accepted.
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/containers/store.h"
#include "io/containers/store_prologue.h"
#include "specs.h"

namespace {

using namespace lamella;

void write(const std::filesystem::path& path, char mode, std::uint64_t data_bytes, std::string_view text) {
  std::ofstream out(path, std::ios::binary);
  out.put(mode);
  for (int i = 0; i < 4; ++i) out.put(static_cast<char>(data_bytes >> 8 * i));
  out.write(text.data(), static_cast<std::streamsize>(text.size()));
  out.close();
  if (!out) throw std::filesystem::filesystem_error("cannot write a seed", path, std::error_code());
}

/// The model with weights in these formats in turn, as a head and as metadata.
void write_store(const std::filesystem::path& folder, const std::string& name, const ModelSpec& spec, DataType dtype,
                 const std::vector<WeightFormat>& matrices, const std::map<std::string, std::string>& source) {
  std::vector<WeightFormat> formats;
  std::size_t turn = 0;
  for (const WeightDeclaration& weight : declare_weights(spec))
    formats.push_back(is_vector(weight.id.slot) ? formats::f32 : matrices.at(turn++ % matrices.size()));
  const io::StoreHeader header = io::plan_store(spec, dtype, source, formats);
  const std::string head = io::encode_store_header(header);
  const io::StorePrologue prologue =
      io::decode_store_prologue(std::as_bytes(std::span(head)), header.file_bytes, "a seed");
  const std::string_view metadata = std::string_view(head).substr(io::store_prologue_bytes, prologue.metadata_bytes);
  const std::uint64_t data_bytes = header.file_bytes - header.header_bytes;
  write(folder / (name + "-head"), 0, data_bytes, head);
  write(folder / (name + "-metadata"), 1, data_bytes, metadata);
}

void write_seeds(const std::filesystem::path& folder) {
  const std::vector<WeightFormat> integers{
      formats::int8_weight_only, formats::int8, formats::q4_0, formats::q4_1, formats::q8_0, formats::int4_a8};
  write_store(folder, "llama", testing::llama_like(1), DataType::bf16, {formats::bf16}, {{"model", "a \"name\"\n"}});
  write_store(folder, "gpt2", testing::gpt2_like(1), DataType::f32, {formats::f32, formats::f16}, {});
  write_store(folder, "neox", testing::neox_like(1), DataType::f16, integers, {{"model", "x"}, {"file", "\xc3\xa9"}});
  write_store(folder, "bert", testing::bert_like(1), DataType::f32, integers, {});
  ModelSpec scaled = testing::llama_like(1);
  scaled.layers[0].attention.rope = RopeSpec{.rotary_dim = 4,
                                             .theta = 1e6,
                                             .scaling = RopeScaling::longrope,
                                             .factor = 4,
                                             .original_max_positions = 32,
                                             .short_factor = {1, 1.5F},
                                             .long_factor = {2, 3e-7F},
                                             .attention_factor = 1.25};
  write_store(folder, "scaled", scaled, DataType::bf16, {formats::bf16}, {});

  using io::StorePrologue;
  const auto prologue = [&](const std::string& name, const StorePrologue& of, std::uint64_t data_bytes) {
    const auto bytes = io::encode_store_prologue(of);
    write(folder / name, 0, data_bytes, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  };
  prologue("newer", {.version = 2, .metadata_bytes = 2, .file_bytes = 4096}, 4096 - 64);
  prologue("features", {.version = 1, .features = 5, .metadata_bytes = 2, .file_bytes = 4096}, 4096 - 64);
  prologue("zeros", {.version = 1, .metadata_bytes = 2, .file_bytes = 4096}, 4096 - 64);
  write(folder / "lfs", 0, 0, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
  write(folder / "empty-object", 1, 0, "{}");
}

}  // namespace

int main(int count, char** arguments) try {
  if (count != 2) throw std::invalid_argument("usage: make_store_seeds FOLDER");
  std::filesystem::create_directories(arguments[1]);
  write_seeds(arguments[1]);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "make_store_seeds: %s\n", error.what());
  return 1;
}
