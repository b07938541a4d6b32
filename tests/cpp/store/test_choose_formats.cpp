#include "store/choose_formats.h"

#include <gtest/gtest.h>

#include "lamella/error.h"

namespace lamella::testing {
namespace {

using io::StorageType;

/// The choice for one weight that the file stores as `stored`.
FormatChoice choice(Slot slot, StorageType stored, const FormatOptions& options, bool transposed = false,
                    bool makes_logits = false) {
  const std::vector<WeightDeclaration> declared = {
      {.id = {slot, -1}, .rows = 64, .columns = 256, .makes_logits = makes_logits}};
  io::TensorTable tensors;
  tensors.tensors = {{.name = "t", .type = stored, .shape = {64, 256}}};
  const LoadRecipe recipe = {{.weight = to_string(declared[0].id), .tensor = "t", .transposed = transposed}};
  return choose_formats(declared, recipe, tensors, options).at(0);
}
FormatChoice choice(Slot slot, StorageType stored, Quantization quantization) {
  return choice(slot, stored, {.quantization = quantization, .dtype = DataType::bf16});
}

TEST(ChooseFormats, NoneKeepsWhatIsStored) {
  struct Case {
    StorageType stored;
    WeightFormat format;
    Conversion conversion;
  };
  for (const auto& [stored, format, conversion] : {
           Case{StorageType::bf16, formats::bf16, Conversion::kept},
           Case{StorageType::f32, formats::bf16, Conversion::rounded},
           Case{StorageType::f16, formats::bf16, Conversion::rounded},
           Case{StorageType::f8_e4m3, formats::bf16, Conversion::kept},
           Case{StorageType::q4_0, formats::q4_0, Conversion::kept},
           Case{StorageType::q4_1, formats::q4_1, Conversion::kept},
           Case{StorageType::q8_0, formats::q8_0, Conversion::kept},
           Case{StorageType::q4_k, formats::q4_1, Conversion::converted},
           Case{StorageType::q5_0, formats::q8_0, Conversion::converted},
           Case{StorageType::q5_1, formats::q8_0, Conversion::converted},
           Case{StorageType::q2_k, formats::q8_0, Conversion::converted},
           Case{StorageType::q3_k, formats::q8_0, Conversion::converted},
           Case{StorageType::q5_k, formats::q8_0, Conversion::converted},
           Case{StorageType::q6_k, formats::q8_0, Conversion::converted},
       }) {
    for (const Slot slot : {Slot::query, Slot::token_embedding, Slot::head, Slot::mlp_down}) {
      const FormatChoice found = choice(slot, stored, Quantization::none);
      EXPECT_EQ(found.format, format) << io::traits(stored).name << " as " << to_string(found.format);
      EXPECT_EQ(found.conversion, conversion) << io::traits(stored).name << " " << to_string(found.conversion);
      EXPECT_EQ(found.stored, stored);
    }
  }
}

TEST(ChooseFormats, TransposedCodesAreConverted) {
  for (const StorageType stored : {StorageType::q4_0, StorageType::q4_1, StorageType::q8_0}) {
    const FormatChoice found = choice(Slot::query, stored, {}, true);
    EXPECT_EQ(found.format, formats::q8_0);
    EXPECT_EQ(found.conversion, Conversion::converted);
  }
}

TEST(ChooseFormats, PresetsSayWhatLinearsAndVocabulariesGet) {
  struct Case {
    Quantization quantization;
    WeightFormat linear, vocabulary;
  };
  for (const auto& [quantization, linear, vocabulary] : {
           Case{Quantization::dequantize, formats::f16, formats::f16},
           Case{Quantization::int8_weight_only, formats::int8_weight_only, formats::int8_weight_only},
           Case{Quantization::int8, formats::int8_rotated, formats::int8_weight_only},
           Case{Quantization::int4, formats::int4, formats::int8_weight_only},
           Case{Quantization::int4_a8, formats::int4_a8, formats::int8_weight_only},
       }) {
    for (const StorageType stored : {StorageType::f32, StorageType::q4_1, StorageType::q6_k}) {
      const auto of = [&](Slot slot) {
        return choice(slot, stored, {.quantization = quantization, .dtype = DataType::f16}).format;
      };
      for (const Slot slot : {Slot::query, Slot::attention_output, Slot::mlp_gate, Slot::mlp_down, Slot::pooler})
        EXPECT_EQ(of(slot), linear);
      for (const Slot slot : {Slot::token_embedding, Slot::head}) EXPECT_EQ(of(slot), vocabulary);
      for (const Slot slot : {Slot::position_embedding, Slot::type_embedding}) EXPECT_EQ(of(slot), formats::f16);
      for (const Slot slot : {Slot::attention_norm, Slot::query_bias}) EXPECT_EQ(of(slot), formats::f32);
    }
  }
  EXPECT_EQ(choice(Slot::query, StorageType::f32, Quantization::int4).conversion, Conversion::quantised);
  EXPECT_EQ(choice(Slot::query, StorageType::q4_0, Quantization::int4).conversion, Conversion::kept);
  EXPECT_EQ(choice(Slot::query, StorageType::q4_0, Quantization::int4_a8).conversion, Conversion::kept);
  EXPECT_EQ(choice(Slot::query, StorageType::q4_1, Quantization::int4).conversion, Conversion::converted);
  EXPECT_EQ(choice(Slot::query, StorageType::q4_1, Quantization::dequantize).conversion, Conversion::expanded);
}

TEST(ChooseFormats, Int8InputsAreRotatedUnlessAskedNotTo) {
  const FormatOptions plain{.quantization = Quantization::int8, .smoothing = false};
  EXPECT_EQ(choice(Slot::query, StorageType::f32, plain).format, formats::int8);
  EXPECT_EQ(choice(Slot::token_embedding, StorageType::f32, plain).format, formats::int8_weight_only);
}

TEST(ChooseFormats, TheHeadIsQuantisedWhenAsked) {
  for (const auto& [quantization, head, embedding] :
       {std::tuple{Quantization::int8, formats::int8_rotated, formats::int8},
        {Quantization::int4, formats::int4, formats::int4},
        {Quantization::int4_a8, formats::int4_a8, formats::int4_a8}}) {
    const FormatOptions asked{.quantization = quantization, .quantize_head = true};
    EXPECT_EQ(choice(Slot::head, StorageType::f32, asked, false, true).format, head);
    EXPECT_EQ(choice(Slot::token_embedding, StorageType::f32, asked, false, true).format, embedding);
    EXPECT_EQ(choice(Slot::token_embedding, StorageType::f32, asked).format, formats::int8_weight_only);
  }
}

TEST(ChooseFormats, ShapesWithoutACheckpointAreFloatsUnlessAsked) {
  const std::vector<WeightDeclaration> declared = {{.id = {Slot::token_embedding, -1}, .rows = 64, .columns = 32},
                                                   {.id = {Slot::query, 0}, .rows = 32, .columns = 32},
                                                   {.id = {Slot::query_bias, 0}, .rows = 1, .columns = 32}};
  EXPECT_EQ(choose_formats(declared, {.dtype = DataType::bf16}),
            (std::vector<WeightFormat>{formats::bf16, formats::bf16, formats::f32}));
  EXPECT_EQ(choose_formats(declared, {.quantization = Quantization::int4_a8, .smoothing = false}),
            (std::vector<WeightFormat>{formats::int8_weight_only, formats::int4_a8, formats::f32}));
}

TEST(ChooseFormats, NamesAreThePresets) {
  for (const char* name : {"none", "dequantize", "int8_weight_only", "int8", "int4", "int4_a8"})
    EXPECT_EQ(to_string(quantization_named(name)), name);
  try {
    static_cast<void>(quantization_named("int3"));
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_NE(std::string(error.what()).find("int8_weight_only, int8, int4, int4_a8"), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace lamella::testing
