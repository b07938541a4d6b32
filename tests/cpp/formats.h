// Every record that validate() accepts, for tests that go through all of them: floats, int8 by the row, int8 and int4 in
// groups of 32 to 512 without offset, with a minimum and with a zero, the quantised ones with every kind of inputs.
#pragma once

#include <vector>

#include "lamella/weight_format.h"
#include "model/weights.h"

namespace lamella::testing {

inline const std::vector<WeightFormat>& quantised_formats() {
  static const std::vector<WeightFormat> formats = [] {
    std::vector<WeightFormat> list;
    for (const LinearInput input : {LinearInput::dtype, LinearInput::int8, LinearInput::int8_rotated}) {
      list.push_back({.element = Element::i8, .scale = Scale::f32, .input = input});
      for (const Element element : {Element::i8, Element::i4})
        for (const std::int32_t group : {32, 64, 96, 512})
          for (const Offset offset : {Offset::none, Offset::minimum, Offset::zero})
            list.push_back({.element = element, .group = group, .scale = Scale::f16, .offset = offset, .input = input});
    }
    for (const WeightFormat& format : list) validate(format);
    return list;
  }();
  return formats;
}

inline const std::vector<WeightFormat>& all_formats() {
  static const std::vector<WeightFormat> formats = [] {
    std::vector<WeightFormat> list = {formats::f32, formats::f16, formats::bf16};
    list.insert(list.end(), quantised_formats().begin(), quantised_formats().end());
    return list;
  }();
  return formats;
}

/// The format, or its sister without the rotation where a slot cannot have one.
inline WeightFormat fitting(WeightFormat format, Slot slot) {
  if (is_embedding(slot) && format.input == LinearInput::int8_rotated) format.input = LinearInput::int8;
  return format;
}

}  // namespace lamella::testing
