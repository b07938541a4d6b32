// Every kind of weight format, for tests that go through all of them.
#pragma once

#include <vector>

#include "lamella/weight_format.h"

namespace lamella::testing {

inline std::vector<WeightFormat> float_formats() { return {formats::f32, formats::f16, formats::bf16}; }

inline std::vector<WeightFormat> quantised_formats() {
  std::vector<WeightFormat> all = {formats::int8_weight_only, formats::int8};
  for (const Element element : {Element::i8, Element::i4})
    for (const std::int32_t group : {32, 64, 96})
      for (const Offset offset : {Offset::none, Offset::minimum, Offset::zero})
        all.push_back({.element = element, .group = group, .scale = Scale::f16, .offset = offset});
  return all;
}

inline std::vector<WeightFormat> all_formats() {
  std::vector<WeightFormat> all = float_formats();
  for (const WeightFormat& format : quantised_formats()) all.push_back(format);
  return all;
}

}  // namespace lamella::testing
