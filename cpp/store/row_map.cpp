#include "store/row_map.h"

#include "base/check.h"

namespace lamella {
namespace {

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += concat(i == 0 ? "" : ", ", shape[i]);
  return text + "]";
}

}  // namespace

RowMap::RowMap(const WeightDeclaration& weight, const WeightSource& source, const io::TensorEntry& tensor)
    : parts_(source.parts), part_(source.part) {
  const bool vector = is_vector(weight.id.slot);
  rows_ = vector ? weight.columns : weight.rows;
  columns_ = vector ? 1 : weight.columns;
  check(source.groups > 0 && parts_ > 0 && part_ >= 0 && part_ < parts_ && rows_ % source.groups == 0, "recipe of ",
        source.weight, ": groups ", source.groups, ", part ", part_, " of ", parts_, ", rows ", rows_);
  rows_per_part_ = rows_ / source.groups;
  source_rows_ = checked_multiply(rows_, parts_, source.tensor);
  if (source.rotary_pair_heads > 0) {
    check(rows_ % (2 * source.rotary_pair_heads) == 0 && parts_ == 1, "recipe of ", source.weight, ": ", rows_,
          " rows in ", source.rotary_pair_heads, " heads of pairs");
    pair_dim_ = rows_ / source.rotary_pair_heads;
  }

  std::vector<std::int64_t> expected = {source_rows_};
  if (!vector) expected = source.transposed ? std::vector{columns_, source_rows_} : std::vector{source_rows_, columns_};
  if (tensor.shape != expected)
    throw Error(ErrorCode::invalid_checkpoint,
                concat("tensor ", quoted(tensor.name), " has the shape ", shape_text(tensor.shape), ", but ",
                       source.weight, " needs ", shape_text(expected)));
}

std::int64_t RowMap::source_row(std::int64_t row) const noexcept {
  if (pair_dim_ == 0) return (row / rows_per_part_ * parts_ + part_) * rows_per_part_ + row % rows_per_part_;
  const std::int64_t in_head = row % pair_dim_, half = pair_dim_ / 2;
  return row - in_head + 2 * (in_head % half) + in_head / half;
}

}  // namespace lamella
