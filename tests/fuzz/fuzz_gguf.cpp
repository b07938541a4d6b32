// Input: four bytes of declared data size, then the file's head.
#include "fuzz.h"

#include <cstring>

#include "io/containers/gguf.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lamella;
  if (size < 4) return 0;
  std::uint32_t data_bytes;
  std::memcpy(&data_bytes, data, sizeof data_bytes);
  const auto head = std::as_bytes(std::span(data, size)).subspan(4);
  const std::uint64_t file_size = head.size() + data_bytes;
  fuzz::expect_only_refusals([&] {
    const auto parsed = io::parse_gguf(head, file_size, "fuzzed");
    if (const auto* more = std::get_if<io::NeedMore>(&parsed)) {
      fuzz::require(more->bytes > head.size() && more->bytes <= file_size,
                    "asks for more, and for no more than there is");
    } else {
      fuzz::check_table(std::get<io::TensorTable>(parsed), file_size);
    }
  });
  return 0;
}
