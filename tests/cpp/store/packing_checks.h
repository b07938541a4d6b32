// What tests of packed stores look at.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "packing.h"

namespace lamella::testing {

/// A seed that is new at every call, printed and recorded with the test.
std::uint64_t recorded_seed();

/// The names of what a folder holds, sorted.
std::vector<std::string> names_in(const std::filesystem::path& folder);

/// Every weight of the store holds the bytes that loading into memory gives, and the file is sound in every byte.
void expect_loaded_bytes(const Packing& packing, const PackReport& report);

}  // namespace lamella::testing
