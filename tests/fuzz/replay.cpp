// A main for the fuzz targets without libFuzzer: runs every file below the folders given, and `--mutations N` simple
// changes of each, so that any compiler's build keeps the targets and their seeds honest.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "fuzz.h"

namespace {

using Bytes = std::vector<std::uint8_t>;

void mutate(Bytes& bytes, std::mt19937_64& random) {
  if (bytes.empty()) return;
  const std::size_t at = random() % bytes.size();
  switch (random() % 4) {
    case 0: bytes[at] ^= static_cast<std::uint8_t>(1u << random() % 8); break;
    case 1: bytes[at] = static_cast<std::uint8_t>(random()); break;
    case 2: bytes.erase(bytes.begin() + static_cast<std::ptrdiff_t>(at)); break;
    default: bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at), static_cast<std::uint8_t>(random()));
  }
}

}  // namespace

int main(int count, char** arguments) {
  std::mt19937_64 random(1);  // NOLINT(bugprone-random-generator-seed): the same inputs every time
  std::size_t mutations = 0, files = 0, runs = 0;
  for (int i = 1; i < count; ++i) {
    if (std::string_view(arguments[i]) == "--mutations" && i + 1 < count) {
      mutations = std::stoul(arguments[++i]);
      continue;
    }
    for (const auto& entry : std::filesystem::recursive_directory_iterator(arguments[i])) {
      if (!entry.is_regular_file()) continue;
      std::ifstream in(entry.path(), std::ios::binary);
      const Bytes seed{std::istreambuf_iterator<char>(in), {}};
      LLVMFuzzerTestOneInput(seed.data(), seed.size());
      ++files, ++runs;
      for (std::size_t change = 0; change < mutations; ++change, ++runs) {
        Bytes changed = seed;
        for (auto rounds = random() % 4 + 1; rounds > 0; --rounds) mutate(changed, random);
        LLVMFuzzerTestOneInput(changed.data(), changed.size());
      }
    }
  }
  std::printf("%zu files, %zu runs\n", files, runs);
  return files > 0 ? 0 : 1;
}
