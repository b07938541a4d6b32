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
  std::int64_t whole_rows = rows_;
  source_columns_ = columns_;
  if (weight.part) {
    own_rows_ = weight.part.outputs;
    first_column_ = weight.part.inputs.begin;
    whole_rows = weight.part.whole_outputs;
    source_columns_ = weight.part.whole_inputs;
  }
  check(source.groups > 0 && parts_ > 0 && part_ >= 0 && part_ < parts_ && whole_rows % source.groups == 0,
        "recipe of ", source.weight, ": groups ", source.groups, ", part ", part_, " of ", parts_, ", rows ",
        whole_rows);
  rows_per_part_ = whole_rows / source.groups;
  source_rows_ = checked_multiply(whole_rows, parts_, source.tensor);
  if (source.rotary_pair_heads > 0) {
    check(whole_rows % (2 * source.rotary_pair_heads) == 0 && parts_ == 1, "recipe of ", source.weight, ": ",
          whole_rows, " rows in ", source.rotary_pair_heads, " heads of pairs");
    pair_dim_ = whole_rows / source.rotary_pair_heads;
  }

  std::vector<std::int64_t> expected = {source_rows_};
  if (!vector)
    expected =
        source.transposed ? std::vector{source_columns_, source_rows_} : std::vector{source_rows_, source_columns_};
  if (tensor.shape != expected)
    throw Error(ErrorCode::invalid_checkpoint,
                concat("tensor ", quoted(tensor.name), " has the shape ", shape_text(tensor.shape), ", but ",
                       source.weight, " needs ", shape_text(expected)));
}

std::int64_t RowMap::whole_row(std::int64_t row) const noexcept {
  for (const ShardRange& run : own_rows_) {
    if (row < run.size()) return run.begin + row;
    row -= run.size();
  }
  return row;  // of a weight that is not cut
}

std::int64_t RowMap::source_row(std::int64_t row) const noexcept {
  row = whole_row(row);
  if (pair_dim_ == 0) return (row / rows_per_part_ * parts_ + part_) * rows_per_part_ + row % rows_per_part_;
  const std::int64_t in_head = row % pair_dim_, half = pair_dim_ / 2;
  return row - in_head + 2 * (in_head % half) + in_head / half;
}

}  // namespace lamella
