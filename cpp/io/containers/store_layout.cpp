#include "io/containers/store_layout.h"

#include <algorithm>
#include <limits>
#include <string>
#include <tuple>
#include <utility>

#include "io/refuse.h"
#include "memory/panels.h"

namespace lamella::io {
namespace {

std::uint64_t up_to_multiple(std::uint64_t bytes, std::uint64_t unit) {
  return checked_add(bytes, unit - 1, "a packed store's size") / unit * unit;
}

/// Embedding, the layers' segments in their enum's order and each expert's by itself, head.
std::tuple<std::int64_t, Segment, std::int32_t> place_of(const WeightDeclaration& weight) noexcept {
  const std::int64_t outside = weight.segment == Segment::embedding ? -1 : std::numeric_limits<std::int32_t>::max();
  return {weight.id.layer < 0 ? outside : weight.id.layer, weight.segment, weight.id.expert};
}

/// validate() keeps a matrix below 2^48 elements, so its layout, at most 2^55 bytes, cannot overflow.
std::uint64_t bytes_of(const StoreWeight& weight) noexcept {
  if (is_vector(weight.id.slot)) return static_cast<std::uint64_t>(weight.columns) * sizeof(float);
  return static_cast<std::uint64_t>(PanelLayout(weight.format, weight.rows, weight.columns).total_bytes());
}

/// Compares what a header says with what follows from model and formats.
class LayoutCheck {
 public:
  LayoutCheck(const StoreHeader& header, std::string_view file) : header_(header), file_(file) {}

  void run() {
    const std::vector<PlacedWeight> declared = in_store_order(header_.model);
    for (std::size_t i = 0; i < std::min(declared.size(), header_.weights.size()); ++i)
      check_identity(i, declared[i].declaration);
    if (header_.weights.size() > declared.size())
      refuse(file_, "weights[", declared.size(), "] is ", to_string(header_.weights[declared.size()].id),
             ", but the model has only ", declared.size(), " weights", pack_again);
    if (header_.weights.size() < declared.size())
      refuse(file_, "the store has ", header_.weights.size(), " weights, but the model ", declared.size(), ": ",
             to_string(declared[header_.weights.size()].declaration.id), " is missing", pack_again);
    StoreHeader expected;
    expected.weights = header_.weights;
    expected.header_bytes = header_.header_bytes;
    lay_out(expected, declared);
    for (std::size_t i = 0; i < declared.size(); ++i) check_weight(i, expected.weights[i]);
    check_segments(expected.segments);
    require(header_.file_bytes == expected.file_bytes, "the file's size", "is", header_.file_bytes,
            expected.file_bytes);
  }

 private:
  template <typename Found, typename Expected>
  void require(bool holds, const std::string& what, std::string_view verb, const Found& found,
               const Expected& expected) const {
    if (!holds) refuse(file_, what, " ", verb, " ", found, ", expected ", expected, pack_again);
  }

  void check_identity(std::size_t i, const WeightDeclaration& declared) const {
    const StoreWeight& weight = header_.weights[i];
    if (weight.id != declared.id)
      refuse(file_, "weights[", i, "] is ", to_string(weight.id), ", expected ", to_string(declared.id),
             ": every weight of the model stands once, in the order of the segments", pack_again);
    if (weight.rows != declared.rows || weight.columns != declared.columns)
      refuse(file_, name(i), " has the shape [", weight.rows, ", ", weight.columns, "], expected [", declared.rows,
             ", ", declared.columns, "]", pack_again);
    if (is_vector(weight.id.slot))
      require(weight.format == formats::f32, name(i), "has the format", to_string(weight.format),
              "float32, as vectors do");
    try {
      validate(declared, weight.format);
    } catch (const Error& error) {
      refuse(file_, name(i), ": ", error.what(), pack_again);
    }
  }

  void check_weight(std::size_t i, const StoreWeight& expected) const {
    const StoreWeight& weight = header_.weights[i];
    require(weight.bytes == expected.bytes, name(i), "has bytes", weight.bytes,
            concat(expected.bytes, " for ", weight.rows, " x ", weight.columns, " in ", to_string(weight.format)));
    require(weight.segment == expected.segment, name(i), "is in segment", weight.segment, expected.segment);
    require(weight.offset == expected.offset, name(i), "has the offset", weight.offset,
            concat(expected.offset, ", the next multiple of ", store_line, " after the weight before it"));
  }

  void check_segments(const std::vector<StoreSegment>& expected) const {
    require(header_.segments.size() == expected.size(), "the number of segments", "is", header_.segments.size(),
            expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const StoreSegment &segment = header_.segments[i], &wanted = expected[i];
      const std::string what = concat("segments[", i, "]"), wanted_name = segment_name(wanted);
      require(segment.layer == wanted.layer && segment.segment == wanted.segment && segment.expert == wanted.expert,
              what, "is", segment_name(segment), wanted_name);
      require(segment.offset == wanted.offset, what, "has the offset", segment.offset,
              concat(wanted.offset, " for ", wanted_name));
      require(segment.bytes == wanted.bytes, what, "has bytes", segment.bytes,
              concat(wanted.bytes, " for ", wanted_name));
    }
  }

  [[nodiscard]] std::string name(std::size_t i) const {
    return concat("weights[", i, "] (", to_string(header_.weights[i].id), ")");
  }

  const StoreHeader& header_;
  std::string_view file_;
};

}  // namespace

std::string segment_name(const StoreSegment& segment) {
  std::string name(to_string(segment.segment));
  if (segment.expert >= 0) name += concat(".", segment.expert);
  return segment.layer < 0 ? name : concat("layers.", segment.layer, ".", name);
}

std::vector<PlacedWeight> in_store_order(const ModelSpec& model) {
  std::vector<PlacedWeight> out;
  const std::vector<WeightDeclaration> declared = declare_weights(model);
  out.reserve(declared.size());
  for (const WeightDeclaration& weight : declared) out.push_back({weight, static_cast<std::uint32_t>(out.size())});
  std::sort(out.begin(), out.end(), [](const PlacedWeight& a, const PlacedWeight& b) {
    const auto place_a = place_of(a.declaration), place_b = place_of(b.declaration);
    return place_a != place_b ? place_a < place_b : a.index < b.index;
  });
  return out;
}

std::vector<WeightFormat> declared_formats(const StoreHeader& header) {
  std::vector<WeightFormat> formats(header.weights.size());
  const std::vector<PlacedWeight> placed = in_store_order(header.model);
  for (std::size_t i = 0; i < placed.size(); ++i) formats.at(placed[i].index) = header.weights.at(i).format;
  return formats;
}

void lay_out(StoreHeader& header, std::span<const PlacedWeight> declared) {
  check(declared.size() == header.weights.size(), "a store's layout for ", header.weights.size(), " of ",
        declared.size(), " weights");
  header.segments.clear();
  std::uint64_t file_end = header.header_bytes;
  const auto close_segment = [&] {
    if (header.segments.empty()) return;
    const StoreSegment& last = header.segments.back();
    file_end = up_to_multiple(checked_add(last.offset, last.bytes, "a packed store's size"), store_page);
  };
  for (std::size_t i = 0; i < declared.size(); ++i) {
    const WeightDeclaration& weight = declared[i].declaration;
    if (i == 0 || place_of(weight) != place_of(declared[i - 1].declaration)) {
      close_segment();
      header.segments.push_back(
          {.layer = weight.id.layer, .segment = weight.segment, .expert = weight.id.expert, .offset = file_end});
    }
    StoreSegment& segment = header.segments.back();
    StoreWeight& placed = header.weights[i];
    placed.segment = static_cast<std::uint32_t>(header.segments.size() - 1);
    placed.offset = up_to_multiple(segment.bytes, store_line);
    placed.bytes = bytes_of(placed);
    segment.bytes = checked_add(placed.offset, placed.bytes, "a packed store's size");
  }
  close_segment();
  header.file_bytes = file_end;
}

void check_zeros(std::span<const std::byte> padding, std::uint64_t offset, std::string_view where,
                 std::string_view file) {
  const auto at = std::find_if(padding.begin(), padding.end(), [](std::byte byte) { return byte != std::byte{0}; });
  if (at != padding.end())
    refuse(file, "byte ", offset + static_cast<std::uint64_t>(at - padding.begin()), ", padding ", where, ", is ",
           std::to_integer<int>(*at), ", expected 0: the file is damaged", copy_or_pack_again);
}

void check_layout(const StoreHeader& header, std::string_view file) { LayoutCheck(header, file).run(); }

}  // namespace lamella::io
