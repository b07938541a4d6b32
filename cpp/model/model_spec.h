// A model is data. A family file (Python) fills a ModelSpec from a checkpoint's config; build_plan turns it into a
// Plan. Every layer feature of a supported architecture has a field here; no code anywhere asks for an architecture by
// name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace lamella {

// ---- normalisation ---------------------------------------------------------------------------------------------------

enum class NormKind : std::uint8_t { none, layer_norm, rms_norm };

/// y = (x - mean) / sqrt(var + eps) * weight + bias (layer_norm), or y = x / sqrt(mean(x^2) + eps) * weight (rms_norm).
struct NormSpec {
  NormKind kind = NormKind::none;
  float eps = 1e-5F;
  bool bias = false;

  bool operator==(const NormSpec&) const = default;
};

// ---- positions -------------------------------------------------------------------------------------------------------

enum class RopeScaling : std::uint8_t { none, linear, dynamic_ntk, yarn, longrope, llama3 };

/// Rotary position embedding of the first `rotary_dim` elements of each head; element i pairs with i + rotary_dim / 2.
/// Angles are formed in fp32 as position * inverse_frequency. The scaling fields mean what transformers' fields of the
/// same name mean (modeling_rope_utils); `rope_frequencies` (rope.h) turns them into frequencies.
struct RopeSpec {
  std::int32_t rotary_dim = 0;
  double theta = 10000.0;
  RopeScaling scaling = RopeScaling::none;
  double factor = 1.0;
  std::int32_t original_max_positions = 0;        // context that the unscaled model was trained on
  double beta_fast = 32.0, beta_slow = 1.0;       // yarn
  bool truncate = true;                           // yarn: round the ramp's ends to whole dimensions
  double low_freq_factor = 1.0, high_freq_factor = 4.0;  // llama3
  std::vector<float> short_factor, long_factor;   // longrope: rotary_dim / 2 each
  std::optional<double>
      attention_factor;         // multiplies cos and sin; computed from `factor` where absent (yarn, longrope)
  double mscale = 0.0, mscale_all_dim = 0.0;      // yarn variants of the attention factor; 0: absent

  bool operator==(const RopeSpec&) const = default;
};

enum class PositionKind : std::uint8_t { none, learned, rotary };

// ---- layers ----------------------------------------------------------------------------------------------------------

struct AttentionSpec {
  std::int32_t heads = 0;
  std::int32_t kv_heads = 0;       // divides heads; each group of heads / kv_heads query heads shares one
  std::int32_t head_dim = 0;
  float scale = 0.0F;              // multiplies q.k, normally head_dim^-0.5
  bool causal = true;
  bool qkv_bias = false;
  bool output_bias = false;
  std::optional<RopeSpec> rope;
  NormSpec query_norm, key_norm;   // of each head's q and k, before RoPE (Qwen3)
  std::int32_t window = 0;         // a token sees so many, itself included; 0: all before it (Mistral, GPT-Neo)
  float logit_softcap = 0.0F;      // named room (Gemma 2)
  bool norm_across_heads = false;  // query_norm and key_norm are of a token's heads together (OLMoE)

  [[nodiscard]] std::int64_t query_width() const noexcept { return std::int64_t{heads} * head_dim; }
  [[nodiscard]] std::int64_t kv_width() const noexcept { return std::int64_t{kv_heads} * head_dim; }
};

enum class Activation : std::uint8_t { none, gelu, gelu_tanh, relu, silu, tanh, quick_gelu };

/// How a router's logits choose a token's experts, and what weighs their results. Among equals the lower number is chosen.
///   softmax_top_k               the k largest logits; a weight is the expert's softmax over all          Qwen2-MoE
///   softmax_top_k_renormalised  the same, divided by their sum: softmax over the chosen ones             Mixtral
///   sigmoid_with_bias           the k largest of sigmoid(logit) + bias; sigmoid(logit) over the sum of the chosen ones,
///                               times `scale`
///   top_1                       softmax_top_k with one expert: the paper's GPT + MoE
enum class RouterKind : std::uint8_t { softmax_top_k, softmax_top_k_renormalised, sigmoid_with_bias, top_1 };

/// A mixture of experts (the paper's section V): y = sum over a token's top_k experts e of weight[e] * expert[e](x), in the
/// order of their choice, plus the shared expert, which takes every token. An expert is an MLP of `intermediate`; whether it
/// is gated, its activation and its biases are MlpSpec's, for the shared one too.
struct ExpertsSpec {
  std::int32_t count = 0;
  std::int32_t top_k = 0;
  std::int64_t intermediate = 0;
  RouterKind router = RouterKind::softmax_top_k;
  float scale = 1.0F;                    // sigmoid_with_bias only
  std::int64_t shared_intermediate = 0;  // 0: no shared expert
  bool shared_gate = false;              // the shared expert's result is multiplied by sigmoid(w x)
};

/// down(act(up(x))) when plain; down(act(gate(x)) * up(x)) when gated.
struct MlpSpec {
  std::int64_t intermediate = 0;  // 0 where there are experts
  Activation activation = Activation::gelu;
  bool gated = false;
  bool up_bias = false;
  bool down_bias = false;
  std::optional<ExpertsSpec> experts;
};

/// Where norms and residual additions stand (x: the layer's input, A: attention, M: MLP, N: a norm):
///   sequential  h = x + A(N1 x);     y = h + M(N2 h)         GPT-2, Llama
///   parallel    y = x + A(N1 x) + M(N2 x)                    GPT-NeoX; GPT-J shares N1 (then `mlp_norm.kind` is none)
///   post_norm   h = N1(x + A x);     y = N2(h + M h)         BERT
enum class Residual : std::uint8_t { sequential, parallel, post_norm };

struct LayerSpec {
  Residual residual = Residual::sequential;
  NormSpec attention_norm;
  AttentionSpec attention;
  NormSpec mlp_norm;
  MlpSpec mlp;
};

// ---- the whole -------------------------------------------------------------------------------------------------------

struct EmbeddingSpec {
  PositionKind positions = PositionKind::none;
  std::int32_t position_rows = 0;   // learned: rows of the table
  std::int32_t position_offset = 0; // learned: row = position + offset (OPT: 2)
  std::int32_t token_types = 0;     // BERT's segment embedding; 0: none
  NormSpec norm;                    // BERT, BLOOM
  float scale = 1.0F;               // named room (Gemma multiplies by sqrt(hidden))
};

/// What the last layer's output turns into. `logits`: a decoder's vocabulary scores; `hidden`: an encoder's rows.
enum class HeadKind : std::uint8_t { logits, hidden };

struct HeadSpec {
  HeadKind kind = HeadKind::logits;
  NormSpec norm;              // the final norm
  bool tied = false;          // logits: the head's weight is the token embedding
  bool bias = false;
  bool pooler = false;        // hidden: BERT's dense + tanh on the first token
};

struct ModelSpec {
  std::string family;         // for people and messages only
  std::int64_t vocab = 0;
  std::int64_t hidden = 0;
  std::int32_t max_positions = 0;  // the longest context the model was made for
  EmbeddingSpec embedding;
  std::vector<LayerSpec> layers;
  HeadSpec head;
};

/// Different windows in one model; each is a KV group at least (plan/kv_groups.h).
inline constexpr std::size_t most_windows = 8;

/// Checks every field's range and the fields against one another (head counts divide, sizes are positive and below
/// 2^48, rotary_dim even and at most head_dim, ...) before anything is allocated. Errors: unsupported_model for named
/// room that is not built yet, invalid_checkpoint for values that contradict each other; the message names layer and
/// field.
void validate(const ModelSpec& spec);

}  // namespace lamella
