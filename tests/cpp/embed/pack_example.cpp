// What the example's test runs on: pack_example FOLDER writes a small store, eight prompts for it, one a line, and the
// lines that the example must print of them, from an engine inside the library.
#include <cstdio>
#include <fstream>

#include "seed.h"
#include "stores.h"

namespace {

std::string joined(const std::vector<std::int32_t>& ids, const char* separator) {
  std::string text;
  for (const std::int32_t id : ids) text += (text.empty() ? "" : separator) + std::to_string(id);
  return text;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace lamella::testing;
  if (argc != 2) {
    std::fputs("usage: pack_example FOLDER\n", stderr);
    return 2;
  }
  const std::filesystem::path folder = argv[1];
  const auto seed = static_cast<unsigned>(fresh_seed());
  std::printf("seed %u\n", seed);
  std::ofstream(folder / "model.lamella", std::ios::binary) << lively_store(llama_like(), seed);
  const std::unique_ptr<lamella::EngineCore> engine = make_engine(llama_like(), {.seed = seed});
  std::mt19937 random(seed);
  std::ofstream prompts(folder / "prompts"), expected(folder / "expected");
  for (int i = 0; i < 8; ++i) {
    const std::vector<std::int32_t> prompt = random_tokens(random, llama_like().vocab, 1 + random() % 30);
    prompts << joined(prompt, ",") << '\n';
    expected << "request " << i << ": "
             << joined(generate(*engine, {.prompt = prompt, .sampling = {.max_tokens = 16}}), " ") << " (length)\n";
  }
  expected << "8 of 8 requests finished\n";
  prompts.close();
  expected.close();
  return prompts && expected ? 0 : 1;
}
