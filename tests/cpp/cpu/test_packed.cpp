// The tests' own packer and unpack_row() agree, to the bit and in every format: neither knows the other.
#include <bit>

#include "kernel_testing.h"
#include "packed.h"

namespace lamella::cpu::testing {
namespace {

class PackedMatrices : public KernelTest {};

TEST_P(PackedMatrices, UnpackToWhatTheirFormatSays) {
  for (const WeightFormat& format : all_formats())
    for (int i = 0; i < 6; ++i) {
      const std::int64_t outputs = draw_outputs(), inputs = draw_inputs();
      SCOPED_TRACE(::testing::Message() << to_string(format) << ", " << outputs << " x " << inputs);
      const CodedMatrix coded = i % 2 == 0 ? random_matrix(random_, format, outputs, inputs)
                                           : extreme_matrix(random_, format, outputs, inputs);
      const Packed packed(coded, 4 * draw(0, 4));
      EXPECT_EQ(packed.bytes(), packed.matrix().layout().total_bytes());
      std::vector<float> row(static_cast<std::size_t>(inputs));
      std::int64_t wrong = 0;
      for (std::int64_t o = 0; o < outputs; ++o) {
        unpack_row(packed.matrix(), o, row.data());
        for (std::int64_t j = 0; j < inputs; ++j)
          wrong += std::bit_cast<std::uint32_t>(row[static_cast<std::size_t>(j)]) !=
                   std::bit_cast<std::uint32_t>(coded.value(o, j));
      }
      EXPECT_EQ(wrong, 0);
    }
}

TEST_P(PackedMatrices, EncodingIsNear) {
  for (const WeightFormat& format : all_formats()) {
    const Values values = normal(40 * 100, 0.05);
    // Four bits: steps of a seventh of the largest of 100 weights, 2.6 deviations, give 0.107, drawn rows up to 0.124.
    const double bound = format.element == Element::i4 ? 0.15 : is_quantised(format) ? 0.02 : 0.003;
    EXPECT_LE(relative_error(encode(format, 100, values).values(), values), bound) << to_string(format);
  }
}

INSTANTIATE_TEST_SUITE_P(Once, PackedMatrices, ::testing::Values(Target{KernelSet::reference, DataType::f32}),
                         target_name);

}  // namespace
}  // namespace lamella::cpu::testing
