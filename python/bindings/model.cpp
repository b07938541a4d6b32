// ModelSpec and its parts in Python: plain records with keyword constructors, so that a family file reads like a table.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include "base/check.h"
#include "model/load_recipe.h"
#include "model/model_spec.h"
#include "model/rope.h"
#include "model/weights.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace lamella {
namespace {

template <typename Record, typename Value>
struct Field {
  const char* name;
  Value Record::* member;
};
template <typename Record, typename Value>
Field(const char*, Value Record::*) -> Field<Record, Value>;

/// Binds a struct as a Python record: a keyword-only constructor whose defaults are the struct's own, read-write
/// attributes, a repr of every field. An attribute that is a record is a reference into its owner; a list is a copy.
template <typename Record, typename... Values>
nb::class_<Record> bind_record(nb::module_& m, const char* name, const char* doc, Field<Record, Values>... fields) {
  const Record defaults{};
  nb::class_<Record> bound(m, name, doc);
  bound.def(
      "__init__",
      [fields...](Record* self, const Values&... values) {
        new (self) Record{};
        ((self->*fields.member = values), ...);
      },
      nb::kw_only(), (nb::arg(fields.name) = defaults.*fields.member)...);
  (bound.def_rw(fields.name, fields.member), ...);
  bound.def("__repr__", [name, fields...](const Record& self) {
    std::string text;
    ((text += concat(text.empty() ? "" : ", ", fields.name, "=", nb::repr(nb::cast(self.*fields.member)).c_str())),
     ...);
    return concat(name, "(", text, ")");
  });
  return bound;
}

void bind_enums(nb::module_& m) {
  nb::enum_<NormKind>(m, "NormKind")
      .value("none", NormKind::none)
      .value("layer_norm", NormKind::layer_norm)
      .value("rms_norm", NormKind::rms_norm);
  nb::enum_<RopeScaling>(m, "RopeScaling")
      .value("none", RopeScaling::none)
      .value("linear", RopeScaling::linear)
      .value("dynamic_ntk", RopeScaling::dynamic_ntk)
      .value("yarn", RopeScaling::yarn)
      .value("longrope", RopeScaling::longrope)
      .value("llama3", RopeScaling::llama3);
  nb::enum_<PositionKind>(m, "PositionKind")
      .value("none", PositionKind::none)
      .value("learned", PositionKind::learned)
      .value("rotary", PositionKind::rotary);
  nb::enum_<Activation>(m, "Activation")
      .value("none", Activation::none)
      .value("gelu", Activation::gelu)
      .value("gelu_tanh", Activation::gelu_tanh)
      .value("relu", Activation::relu)
      .value("silu", Activation::silu)
      .value("tanh", Activation::tanh)
      .value("quick_gelu", Activation::quick_gelu);
  nb::enum_<RouterKind>(m, "RouterKind")
      .value("softmax_top_k", RouterKind::softmax_top_k)
      .value("softmax_top_k_renormalised", RouterKind::softmax_top_k_renormalised)
      .value("sigmoid_with_bias", RouterKind::sigmoid_with_bias)
      .value("top_1", RouterKind::top_1);
  nb::enum_<Residual>(m, "Residual")
      .value("sequential", Residual::sequential)
      .value("parallel", Residual::parallel)
      .value("post_norm", Residual::post_norm);
  nb::enum_<HeadKind>(m, "HeadKind").value("logits", HeadKind::logits).value("hidden", HeadKind::hidden);
}

void bind_layer_parts(nb::module_& m) {
  bind_record(m, "NormSpec", "LayerNorm or RMSNorm over the last dimension.", Field{"kind", &NormSpec::kind},
              Field{"eps", &NormSpec::eps}, Field{"bias", &NormSpec::bias})
      .def(
          "__eq__", [](const NormSpec& a, const NormSpec& b) { return a == b; }, nb::is_operator(),
          nb::sig("def __eq__(self, other: object, /) -> bool"));
  bind_record(m, "RopeSpec", "Rotary positions of the first `rotary_dim` elements of each head, with their scaling.",
              Field{"rotary_dim", &RopeSpec::rotary_dim}, Field{"theta", &RopeSpec::theta},
              Field{"scaling", &RopeSpec::scaling}, Field{"factor", &RopeSpec::factor},
              Field{"original_max_positions", &RopeSpec::original_max_positions},
              Field{"beta_fast", &RopeSpec::beta_fast}, Field{"beta_slow", &RopeSpec::beta_slow},
              Field{"truncate", &RopeSpec::truncate}, Field{"low_freq_factor", &RopeSpec::low_freq_factor},
              Field{"high_freq_factor", &RopeSpec::high_freq_factor}, Field{"short_factor", &RopeSpec::short_factor},
              Field{"long_factor", &RopeSpec::long_factor}, Field{"attention_factor", &RopeSpec::attention_factor},
              Field{"mscale", &RopeSpec::mscale}, Field{"mscale_all_dim", &RopeSpec::mscale_all_dim})
      .def(
          "__eq__", [](const RopeSpec& a, const RopeSpec& b) { return a == b; }, nb::is_operator(),
          nb::sig("def __eq__(self, other: object, /) -> bool"));
  bind_record(m, "AttentionSpec", "Multi-head attention with grouped key and value heads.",
              Field{"heads", &AttentionSpec::heads}, Field{"kv_heads", &AttentionSpec::kv_heads},
              Field{"head_dim", &AttentionSpec::head_dim}, Field{"scale", &AttentionSpec::scale},
              Field{"causal", &AttentionSpec::causal}, Field{"qkv_bias", &AttentionSpec::qkv_bias},
              Field{"output_bias", &AttentionSpec::output_bias}, Field{"rope", &AttentionSpec::rope},
              Field{"query_norm", &AttentionSpec::query_norm}, Field{"key_norm", &AttentionSpec::key_norm},
              Field{"window", &AttentionSpec::window}, Field{"logit_softcap", &AttentionSpec::logit_softcap},
              Field{"norm_across_heads", &AttentionSpec::norm_across_heads});
  bind_record(m, "ExpertsSpec", "Mixture of experts in place of a layer's MLP, of whose kind each expert is.",
              Field{"count", &ExpertsSpec::count}, Field{"top_k", &ExpertsSpec::top_k},
              Field{"intermediate", &ExpertsSpec::intermediate}, Field{"router", &ExpertsSpec::router},
              Field{"scale", &ExpertsSpec::scale}, Field{"shared_intermediate", &ExpertsSpec::shared_intermediate},
              Field{"shared_gate", &ExpertsSpec::shared_gate});
  bind_record(m, "MlpSpec", "down(act(up(x))), or down(act(gate(x)) * up(x)) when gated.",
              Field{"intermediate", &MlpSpec::intermediate}, Field{"activation", &MlpSpec::activation},
              Field{"gated", &MlpSpec::gated}, Field{"up_bias", &MlpSpec::up_bias},
              Field{"down_bias", &MlpSpec::down_bias}, Field{"experts", &MlpSpec::experts});
}

void bind_spec(nb::module_& m) {
  bind_record(m, "LayerSpec", "One transformer layer.", Field{"residual", &LayerSpec::residual},
              Field{"attention_norm", &LayerSpec::attention_norm}, Field{"attention", &LayerSpec::attention},
              Field{"mlp_norm", &LayerSpec::mlp_norm}, Field{"mlp", &LayerSpec::mlp});
  bind_record(m, "EmbeddingSpec", "What turns token ids into the first layer's input.",
              Field{"positions", &EmbeddingSpec::positions}, Field{"position_rows", &EmbeddingSpec::position_rows},
              Field{"position_offset", &EmbeddingSpec::position_offset},
              Field{"token_types", &EmbeddingSpec::token_types}, Field{"norm", &EmbeddingSpec::norm},
              Field{"scale", &EmbeddingSpec::scale});
  bind_record(m, "HeadSpec", "What the last layer's output turns into.", Field{"kind", &HeadSpec::kind},
              Field{"norm", &HeadSpec::norm}, Field{"tied", &HeadSpec::tied}, Field{"bias", &HeadSpec::bias},
              Field{"pooler", &HeadSpec::pooler});
  bind_record(m, "ModelSpec", "A model as data: everything that its forward pass depends on but the weights.",
              Field{"family", &ModelSpec::family}, Field{"vocab", &ModelSpec::vocab},
              Field{"hidden", &ModelSpec::hidden}, Field{"max_positions", &ModelSpec::max_positions},
              Field{"embedding", &ModelSpec::embedding}, Field{"layers", &ModelSpec::layers},
              Field{"head", &ModelSpec::head});
}

void bind_weights(nb::module_& m) {
  bind_record(m, "WeightSource", "Where one canonical weight comes from in a checkpoint (load_recipe.h).",
              Field{"weight", &WeightSource::weight}, Field{"tensor", &WeightSource::tensor},
              Field{"transposed", &WeightSource::transposed}, Field{"groups", &WeightSource::groups},
              Field{"parts", &WeightSource::parts}, Field{"part", &WeightSource::part},
              Field{"rotary_pair_heads", &WeightSource::rotary_pair_heads});
  nb::class_<WeightDeclaration>(m, "WeightDeclaration",
                                "One weight that a model needs: [rows, columns], vectors one row.")
      .def_prop_ro(
          "name", [](const WeightDeclaration& w) { return to_string(w.id); }, "Canonical name, as recipes use it.")
      .def_prop_ro("slot", [](const WeightDeclaration& w) { return to_string(w.id.slot); })
      .def_prop_ro(
          "layer", [](const WeightDeclaration& w) { return w.id.layer; }, "-1 outside the layers.")
      .def_prop_ro(
          "expert", [](const WeightDeclaration& w) { return w.id.expert; }, "-1 outside a mixture's experts.")
      .def_ro("rows", &WeightDeclaration::rows)
      .def_ro("columns", &WeightDeclaration::columns)
      .def_prop_ro("segment", [](const WeightDeclaration& w) { return to_string(w.segment); });
  m.def("declare_weights", &declare_weights, "spec"_a, "Every weight that the model needs, in execution order.");
  m.def("parameter_count", &parameter_count, "spec"_a, "Number of parameters, tied weights once.");
  m.def("validate", nb::overload_cast<const ModelSpec&>(&validate), "spec"_a,
        "Raises CheckpointError when a field is out of range or contradicts another.");
  m.def(
      "rope_frequencies",
      [](const RopeSpec& spec, std::int64_t sequence_length) {
        RopeFrequencies frequencies = rope_frequencies(spec, sequence_length);
        return std::pair(std::move(frequencies.inverse), frequencies.attention_factor);
      },
      "spec"_a, "sequence_length"_a,
      "(inverse frequencies in radians per token, factor of cos and sin) for a sequence of that many tokens.");
}

}  // namespace

void bind_model(nb::module_& m) {
  bind_enums(m);
  bind_layer_parts(m);
  bind_spec(m);
  bind_weights(m);
}

}  // namespace lamella
