#include "lamella/weight_format.h"

#include "base/check.h"

namespace lamella {
namespace {

const char* name_of(Element element) noexcept {
  switch (element) {
    case Element::f32: return "float32";
    case Element::f16: return "float16";
    case Element::bf16: return "bfloat16";
    case Element::i8: return "int8";
    case Element::i4: return "int4";
  }
  return "?";
}

}  // namespace

std::string to_string(const WeightFormat& format) {
  std::string text = name_of(format.element);
  if (format.group > 0) text += concat("/", format.group);
  if (format.scale == Scale::f16) text += ":f16";
  if (format.offset == Offset::minimum) text += "+minimum";
  if (format.offset == Offset::zero) text += "-zero";
  if (format.input == LinearInput::int8) text += ", int8 inputs";
  if (format.input == LinearInput::int8_rotated) text += ", rotated int8 inputs";
  return text;
}

void validate(const WeightFormat& format) {
  const auto require = [&](bool holds, const char* rule) {
    if (!holds)
      throw Error(ErrorCode::invalid_argument,
                  concat("no kernel reads the weight format ", to_string(format), ": ", rule));
  };
  const bool grouped = format.group != 0;
  // Integer sums of a group stay exact in fp32: 255 * 127 an input.
  require(format.group >= 0 && format.group % 32 == 0 && format.group <= 512,
          "a group is a multiple of 32 inputs, at most 512");
  if (!is_quantised(format)) {
    require(
        !grouped && format.scale == Scale::none && format.offset == Offset::none && format.input == LinearInput::dtype,
        "floats have neither groups nor scales");
    return;
  }
  require(format.element != Element::i4 || grouped, "int4 needs groups");
  require(format.scale == (grouped ? Scale::f16 : Scale::f32),
          "a whole row has a float32 scale, a group a float16 one");
  require(grouped || format.offset == Offset::none, "an offset needs groups");
}

}  // namespace lamella
