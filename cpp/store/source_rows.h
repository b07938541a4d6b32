// A weight's rows as its checkpoint holds them: cut, interleaved, transposed, in whatever element type.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "io/tensor_table.h"
#include "store/row_map.h"

namespace lamella {

/// One weight with its tensor. A vector is a matrix of one column, and, like a transposed matrix, stored column by
/// column.
class SourceRows {
 public:
  /// Errors: invalid_checkpoint as RowMap; unsupported_model for types that are no numbers of ours and for rows that
  /// are no whole blocks of their type.
  SourceRows(const WeightDeclaration& weight, const WeightSource& source, const io::TensorEntry& tensor);

  [[nodiscard]] const RowMap& map() const noexcept { return map_; }
  [[nodiscard]] const io::TensorEntry& tensor() const noexcept { return *tensor_; }
  [[nodiscard]] bool by_columns() const noexcept { return by_columns_; }
  /// Bytes and elements of a stored row: one of the weight's rows, or by columns one element of each.
  [[nodiscard]] std::int64_t stored_bytes() const noexcept { return stored_bytes_; }
  [[nodiscard]] std::int64_t stored_elements() const noexcept { return stored_elements_; }
  /// What is read of a stored row, not by columns: whole blocks of the element type, from `bytes_before` on, of which the
  /// weight's columns begin at element `skipped`. All of it but where the weight is a part of one.
  struct Window {
    std::int64_t bytes_before = 0, bytes = 0, elements = 0, skipped = 0;
  };
  [[nodiscard]] const Window& window() const noexcept { return window_; }
  /// Bytes that one row of the weight takes in the file, for progress.
  [[nodiscard]] std::int64_t bytes_of_rows(std::int64_t count) const noexcept;
  /// Rows to read at a time, whole panels: about a megabyte of the file, large enough for the drive and small enough for
  /// L2; by columns about eight megabytes as floats, because every stored row is visited for each strip.
  [[nodiscard]] std::int64_t rows_at_once() const noexcept;

 private:
  RowMap map_;
  const io::TensorEntry* tensor_;
  bool by_columns_;
  std::int64_t stored_elements_ = 0, stored_bytes_ = 0;
  Window window_;
};

/// Reads some rows of a weight and hands them out; one a thread, its memory kept from one use to the next: the bytes
/// that were read, and by columns their floats.
class RowWindow {
 public:
  RowWindow(const io::TensorTable& tensors, io::Reader& reader) : tensors_(tensors), reader_(reader) {}

  /// Reads rows [begin, end), in as few reads as the tensor allows. Errors: those of the reader; by columns also
  /// invalid_checkpoint where a number's magnitude exceeds `limit` or is NaN, naming tensor and stored row.
  void read(const SourceRows& source, std::int64_t begin, std::int64_t end, float limit);

  /// The bytes of a row; not by columns.
  [[nodiscard]] const std::byte* stored(std::int64_t row) const;
  /// Rows [first, first + out.size() / columns) as floats. Errors: invalid_checkpoint as read.
  void floats(std::int64_t first, std::span<float> out) const;
  /// Throws the error about a bad number in a row.
  [[noreturn]] void refuse(std::int64_t row) const { refuse_stored(source_->map().source_row(row)); }

 private:
  void read_rows(std::int64_t begin, std::int64_t end);
  void read_strip(std::int64_t begin, std::int64_t end);
  void fetch(std::uint64_t offset, std::span<std::byte> out) const;
  [[noreturn]] void refuse_stored(std::int64_t stored_row) const;

  const io::TensorTable& tensors_;
  io::Reader& reader_;
  const SourceRows* source_ = nullptr;
  float limit_ = 0.0F;
  std::int64_t begin_ = 0;
  std::vector<std::byte> raw_;
  std::vector<std::int64_t> places_;  // of each row in raw_
  mutable std::vector<float> widened_;  // a window that begins or ends before the weight's columns do
  std::vector<float> strip_;          // by columns: [columns][strip_width_]
  std::int64_t strip_begin_ = 0, strip_width_ = 0;  // source rows
};

}  // namespace lamella
