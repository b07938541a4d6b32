// The segments of a packed store against their checksums: what reading the header leaves unchecked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

#include "base/thread_team.h"
#include "io/containers/store.h"
#include "io/file.h"

namespace lamella::io {

/// Throws invalid_checkpoint naming `file`, segment, layer and bytes where `found`, the XXH64 of the segment's bytes, is
/// not what the header says. For whoever has the segment in memory anyway.
void check_segment_checksum(const StoreHeader& header, std::size_t index, std::uint64_t found, std::string_view file);

/// The same for padding between its weights or behind them, which stands at byte `offset` of the file: it is zero.
void check_segment_padding(const StoreHeader& header, std::size_t index, std::span<const std::byte> padding,
                           std::uint64_t offset, std::string_view file);

/// Reads a segment and the padding in it and after it, a megabyte at a time, and checks all of it. Errors:
/// invalid_checkpoint as above, or for padding that is not zero; io_error and checkpoint_changed from the reader.
void verify_segment(const File& file, Reader& reader, const StoreHeader& header, std::size_t index);

/// verify_segment for all of them, on all threads of `team`, and that the file stayed the same meanwhile
/// (checkpoint_changed, also where damage was found). Of several damaged segments the first is named. `progress` is told
/// the bytes read so far and in all, from any thread, one at a time; what it throws ends the work on all threads.
void verify_store(const File& file, Reader& reader, const StoreHeader& header, ThreadTeam& team,
                  const std::function<void(std::uint64_t done, std::uint64_t total)>& progress = {});

}  // namespace lamella::io
