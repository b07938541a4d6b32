// Which row of a checkpoint's tensor becomes which row of a canonical weight.
#pragma once

#include <cstdint>
#include <vector>

#include "io/tensor_table.h"
#include "model/load_recipe.h"
#include "model/weights.h"

namespace lamella {

/// A canonical weight, or a rank's part of it, seen through its source (see WeightSource): `rows` x `columns` elements out of
/// a tensor with `source_rows` rows, from its column `first_column` on. Vectors are one column here.
class RowMap {
 public:
  /// Errors: invalid_checkpoint where the tensor's shape does not give the declared weight; expected and found are
  /// named.
  RowMap(const WeightDeclaration& weight, const WeightSource& source, const io::TensorEntry& tensor);

  [[nodiscard]] std::int64_t rows() const noexcept { return rows_; }
  [[nodiscard]] std::int64_t columns() const noexcept { return columns_; }
  [[nodiscard]] std::int64_t first_column() const noexcept { return first_column_; }
  [[nodiscard]] std::int64_t source_columns() const noexcept { return source_columns_; }
  [[nodiscard]] std::int64_t source_rows() const noexcept { return source_rows_; }

  [[nodiscard]] std::int64_t source_row(std::int64_t row) const noexcept;

 private:
  [[nodiscard]] std::int64_t whole_row(std::int64_t row) const noexcept;

  std::int64_t rows_, columns_, first_column_ = 0, source_rows_ = 0, source_columns_ = 0;
  std::vector<ShardRange> own_rows_;  // of the whole weight; empty: all
  std::int64_t rows_per_part_ = 0, parts_, part_;
  std::int64_t pair_dim_ = 0;  // rows of one head whose halves alternate in the source; 0: in order
};

}  // namespace lamella
