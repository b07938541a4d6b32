// Small checkpoints for tests: bytes of containers, and folders that clean up after themselves.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lamella/error.h"

namespace lamella::test {

/// A new folder, removed with all it holds at the end.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  /// Writes a file (and the folders on its way) and returns its path.
  std::filesystem::path write(const std::filesystem::path& name, std::string_view content) const;

 private:
  std::filesystem::path path_;
};

/// A file's bytes; empty where there is none.
std::string content(const std::filesystem::path& path);

/// Returns when the clock that files' times are taken from has moved on: a file written before and one written after then
/// differ in time.
void wait_for_file_times();

/// Little-endian bytes of numbers, for building binary headers.
template <typename T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

/// A safetensors file: length, header, data.
std::string safetensors(std::string_view header, std::string_view data = "");
/// A header entry: "name":{"dtype":...}.
std::string tensor_json(std::string_view name, std::string_view dtype, std::string_view shape, std::uint64_t begin,
                        std::uint64_t end);

/// Parts of a GGUF file.
std::string gguf_string(std::string_view text);
std::string gguf_pair(std::string_view key, std::uint32_t type, std::string_view value);
std::string gguf_tensor(std::string_view name, const std::vector<std::uint64_t>& dims, std::uint32_t type,
                        std::uint64_t offset);
/// Magic, version, counts, pairs and tensors, padded to 32 bytes.
std::string gguf(const std::vector<std::string>& pairs, const std::vector<std::string>& tensors,
                 std::uint32_t version = 3);

inline std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

/// Runs `action`, which must throw Error(code) with every one of `parts` in its message.
template <typename Action>
void expect_error(ErrorCode code, const std::vector<std::string>& parts, Action action) {
  try {
    action();
    ADD_FAILURE() << "no error; expected " << to_string(code) << (parts.empty() ? "" : " with: " + parts.front());
  } catch (const Error& error) {
    EXPECT_EQ(to_string(error.code()), to_string(code)) << error.what();
    for (const std::string& part : parts)
      EXPECT_NE(std::string_view(error.what()).find(part), std::string_view::npos)
          << "missing: " << part << "\nin: " << error.what();
  }
}

}  // namespace lamella::test
