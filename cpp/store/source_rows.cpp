#include "store/source_rows.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "base/check.h"
#include "base/scratch.h"
#include "io/expand.h"
#include "memory/panels.h"

namespace lamella {
namespace {

constexpr std::int64_t read_bytes = std::int64_t{1} << 20;
constexpr std::int64_t strip_bytes = std::int64_t{8} << 20;
/// Rows that are not wanted, between two that are, are read too where that saves a read: a read costs about as much as
/// the bytes it could have brought.
constexpr std::int64_t most_gap_bytes = std::int64_t{32} << 10;

/// Whether every magnitude is at most `limit`; NaN is not. Bits of magnitudes compare as they do, and this vectorises.
bool all_within(std::span<const float> values, float limit) noexcept {
  std::uint32_t largest = 0;
  for (const float value : values) largest = std::max(largest, std::bit_cast<std::uint32_t>(value) & 0x7fffffffU);
  return largest <= std::bit_cast<std::uint32_t>(limit);
}

std::int64_t whole_panels(std::int64_t rows) noexcept {
  return std::max(rows / panel_outputs * panel_outputs, panel_outputs);
}

}  // namespace

SourceRows::SourceRows(const WeightDeclaration& weight, const WeightSource& source, const io::TensorEntry& tensor)
    : map_(weight, source, tensor), tensor_(&tensor), by_columns_(source.transposed || is_vector(weight.id.slot)) {
  const io::StorageTraits& storage = io::traits(tensor.type);
  if (!io::expands_to_f32(tensor.type))
    throw Error(ErrorCode::unsupported_model,
                concat("tensor ", quoted(tensor.name), " is of type ", storage.name, ", but ", source.weight,
                       " needs floating-point or quantised numbers"));
  stored_elements_ = by_columns_ ? map_.source_rows() : map_.source_columns();
  if (stored_elements_ % storage.elements != 0)
    throw Error(ErrorCode::unsupported_model,
                concat("tensor ", quoted(tensor.name), ": rows of ", stored_elements_, " elements are no multiple of ",
                       storage.name, "'s blocks of ", storage.elements));
  stored_bytes_ = stored_elements_ / storage.elements * storage.bytes;
  const std::int64_t first_block = map_.first_column() / storage.elements,
                     end_block = (map_.first_column() + map_.columns() + storage.elements - 1) / storage.elements;
  window_ = {.bytes_before = first_block * storage.bytes,
             .bytes = (end_block - first_block) * storage.bytes,
             .elements = (end_block - first_block) * storage.elements,
             .skipped = map_.first_column() - first_block * storage.elements};
}

std::int64_t SourceRows::bytes_of_rows(std::int64_t count) const noexcept {
  if (!by_columns_) return count * window_.bytes;
  const io::StorageTraits& storage = io::traits(tensor_->type);
  return count * map_.columns() * storage.bytes / storage.elements;
}

std::int64_t SourceRows::rows_at_once() const noexcept {
  if (!by_columns_) return whole_panels(read_bytes / window_.bytes);
  return whole_panels(strip_bytes / std::int64_t(sizeof(float)) / map_.columns());
}

void RowWindow::fetch(std::uint64_t offset, std::span<std::byte> out) const {
  const io::TensorEntry& tensor = source_->tensor();
  reader_.read(*tensors_.files.at(tensor.file), tensor.offset + offset, out);
}

void RowWindow::read(const SourceRows& source, std::int64_t begin, std::int64_t end, float limit) {
  source_ = &source;
  limit_ = limit;
  begin_ = begin;
  if (source.by_columns()) return read_strip(begin, end);
  read_rows(begin, end);
}

void RowWindow::read_rows(std::int64_t begin, std::int64_t end) {
  const std::int64_t row_bytes = source_->stored_bytes();
  const SourceRows::Window& window = source_->window();
  const RowMap& map = source_->map();
  std::vector<std::int64_t> order(static_cast<std::size_t>(end - begin));  // rows by where they stand in the file
  std::iota(order.begin(), order.end(), begin);
  std::ranges::sort(order, {}, [&](std::int64_t row) { return map.source_row(row); });
  resize_scratch(places_, order.size());
  struct Run {
    std::int64_t first, bytes, base;  // the first stored row, and where in raw_ its window begins
  };
  std::vector<Run> runs;
  std::int64_t bytes = 0;
  for (std::size_t i = 0; i < order.size();) {
    const std::int64_t first = map.source_row(order[i]);
    std::int64_t last = first;
    for (; i < order.size(); ++i) {
      const std::int64_t row = map.source_row(order[i]);
      if ((row - last) * row_bytes - window.bytes > most_gap_bytes) break;
      last = row;
      places_[static_cast<std::size_t>(order[i] - begin)] = bytes + (row - first) * row_bytes;
    }
    runs.push_back({first, (last - first) * row_bytes + window.bytes, bytes});
    bytes += runs.back().bytes;
  }
  resize_scratch(raw_, static_cast<std::size_t>(bytes));
  for (const Run& run : runs)
    fetch(static_cast<std::uint64_t>(run.first * row_bytes + window.bytes_before),
          std::span(raw_).subspan(static_cast<std::size_t>(run.base), static_cast<std::size_t>(run.bytes)));
}

void RowWindow::read_strip(std::int64_t begin, std::int64_t end) {
  const RowMap& map = source_->map();
  const io::StorageTraits& storage = io::traits(source_->tensor().type);
  std::int64_t least = map.source_row(begin), most = least;
  for (std::int64_t row = begin; row < end; ++row) {
    least = std::min(least, map.source_row(row));
    most = std::max(most, map.source_row(row));
  }
  strip_begin_ = least / storage.elements * storage.elements;
  strip_width_ = (most / storage.elements + 1) * storage.elements - strip_begin_;

  const std::int64_t width_bytes = strip_width_ / storage.elements * storage.bytes;
  const std::int64_t offset = strip_begin_ / storage.elements * storage.bytes;
  const auto size = static_cast<std::size_t>(map.columns() * strip_width_);
  resize_scratch(strip_, size);
  // Whole stored rows follow one another: as many as a read takes at once. Narrower strips are read piece by piece.
  const bool whole = strip_width_ == source_->stored_elements();
  const std::int64_t at_once = whole ? std::max<std::int64_t>(1, read_bytes / width_bytes) : 1;
  for (std::int64_t column = 0; column < map.columns(); column += at_once) {
    const std::int64_t count = std::min(at_once, map.columns() - column);
    resize_scratch(raw_, static_cast<std::size_t>(count * width_bytes));
    fetch(static_cast<std::uint64_t>((map.first_column() + column) * source_->stored_bytes() + offset), raw_);
    const auto values = std::span(strip_).subspan(static_cast<std::size_t>(column * strip_width_),
                                                  static_cast<std::size_t>(count * strip_width_));
    io::expand_row_range_to_f32(source_->tensor().type, raw_, values);
    if (all_within(values, limit_)) continue;
    for (std::int64_t i = 0; i < count; ++i)
      if (!all_within(
              values.subspan(static_cast<std::size_t>(i * strip_width_), static_cast<std::size_t>(strip_width_)),
              limit_))
        refuse_stored(map.first_column() + column + i);
  }
}

const std::byte* RowWindow::stored(std::int64_t row) const {
  return raw_.data() + places_[static_cast<std::size_t>(row - begin_)];
}

void RowWindow::floats(std::int64_t first, std::span<float> out) const {
  const RowMap& map = source_->map();
  const std::int64_t columns = map.columns(), count = std::int64_t(out.size()) / columns;
  if (!source_->by_columns()) {
    for (std::int64_t i = 0; i < count; ++i) {
      const auto row = out.subspan(static_cast<std::size_t>(i * columns), static_cast<std::size_t>(columns));
      const SourceRows::Window& window = source_->window();
      const std::span<const std::byte> bytes(stored(first + i), static_cast<std::size_t>(window.bytes));
      if (window.elements == columns) {
        io::expand_row_range_to_f32(source_->tensor().type, bytes, row);
      } else {
        resize_scratch(widened_, static_cast<std::size_t>(window.elements));
        io::expand_row_range_to_f32(source_->tensor().type, bytes, widened_);
        std::ranges::copy(std::span(widened_).subspan(static_cast<std::size_t>(window.skipped), row.size()),
                          row.begin());
      }
      if (!all_within(row, limit_)) refuse(first + i);
    }
    return;
  }
  // Sixteen rows at a time: a stored row gives them one cache line.
  for (std::int64_t tile = 0; tile < count; tile += tile_outputs) {
    const std::int64_t rows = std::min(tile_outputs, count - tile);
    std::int64_t from[tile_outputs] = {};
    for (std::int64_t i = 0; i < rows; ++i) from[i] = map.source_row(first + tile + i) - strip_begin_;
    for (std::int64_t column = 0; column < columns; ++column)
      for (std::int64_t i = 0; i < rows; ++i)
        out[static_cast<std::size_t>((tile + i) * columns + column)] =
            strip_[static_cast<std::size_t>(column * strip_width_ + from[i])];
  }
}

void RowWindow::refuse_stored(std::int64_t stored_row) const {
  throw Error(ErrorCode::invalid_checkpoint,
              concat("tensor ", quoted(source_->tensor().name), " holds NaN or infinity, or a number beyond ", limit_,
                     " (the most that the weight's format takes), in row ", stored_row,
                     "; the file is damaged or was saved from a diverged model"));
}

}  // namespace lamella
