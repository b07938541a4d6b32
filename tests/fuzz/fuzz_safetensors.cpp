// Input: a control byte, two bytes of declared data size, then the file's head. With an odd control byte the rest is
// the header alone and gets a right length in front, because random changes rarely keep length and text in step.
#include "fuzz.h"

#include <cstring>
#include <vector>

#include "io/containers/safetensors.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lamella;
  if (size < 3) return 0;
  const std::uint64_t data_bytes = data[1] | std::uint64_t{data[2]} << 8;
  std::vector<std::byte> head((data[0] & 1) != 0 ? 8 : 0);
  const std::uint64_t length = size - 3;
  if (!head.empty()) std::memcpy(head.data(), &length, sizeof length);
  const auto* rest = reinterpret_cast<const std::byte*>(data + 3);
  head.insert(head.end(), rest, rest + length);
  fuzz::expect_only_refusals([&] {
    const std::uint64_t file_size = head.size() + data_bytes;
    fuzz::check_table(io::parse_safetensors_header(head, file_size, "fuzzed"), file_size);
  });
  return 0;
}
