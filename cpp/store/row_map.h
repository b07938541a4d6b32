// Which row of a checkpoint's tensor becomes which row of a canonical weight.
#pragma once

#include <cstdint>

#include "io/tensor_table.h"
#include "model/load_recipe.h"
#include "model/weights.h"

namespace lamella {

/// A canonical weight seen through its source (see WeightSource): `rows` x `columns` elements out of a tensor with
/// `source_rows` rows. Vectors are one column here.
class RowMap {
 public:
  /// Errors: invalid_checkpoint where the tensor's shape does not give the declared weight; expected and found are
  /// named.
  RowMap(const WeightDeclaration& weight, const WeightSource& source, const io::TensorEntry& tensor);

  [[nodiscard]] std::int64_t rows() const noexcept { return rows_; }
  [[nodiscard]] std::int64_t columns() const noexcept { return columns_; }
  [[nodiscard]] std::int64_t source_rows() const noexcept { return source_rows_; }

  [[nodiscard]] std::int64_t source_row(std::int64_t row) const noexcept;

 private:
  std::int64_t rows_, columns_, source_rows_ = 0;
  std::int64_t rows_per_part_ = 0, parts_, part_;
  std::int64_t pair_dim_ = 0;  // rows of one head whose halves alternate in the source; 0: in order
};

}  // namespace lamella
