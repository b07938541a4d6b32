// What every CPU kernel is asked: one argument struct per op, shapes by name. Kernels know nothing of plans or models;
// the executor (cpu/bind.cpp) fills these structs. The reference and the vector kernels share them, so that a test runs
// both.
//
// Conventions. T is the engine's dtype (float, f16 or bf16) and the element type of every `void*` activation unless
// said otherwise. Matrices are packed in panels (memory/panels.h), each in its own format. Vectors (biases, norm
// weights) are float always. Sums are fp32, or int32 where the format asks for int8 inputs. Activations of N tokens are
// [N][width], rows contiguous, without padding. Exactness: a token's row never depends on how many tokens, sequences or
// workers take part (design section 2).
//
// A linear's row, in every format, is y[o] = sum over i of x[i] * w[o][i] with w[o][i] as unpack_row() gives it; a kernel
// may sum codes and multiply a group's sum by its scale. Where the format asks for int8 inputs, the row x is rounded
// first: scale = absmax / 127, q[i] = round(x[i] * (127 / absmax)), ties to even (scale and all q zero where absmax is
// below 2^-100; y is NaN where x holds NaN or infinity), and y[o] = scale * sum over groups g of (s[g] * (sum over i in g
// of q[i] * (code[i] - zero)) + minimum[g] * sum of q[i]), the inner sums exact integers. Where it asks for rotated
// inputs, the row is multiplied by H first (memory/rotation.h), in fp32; the matrix holds rotated weights, and
// unpack_row() gives those.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>

#include "base/arithmetic.h"
#include "lamella/types.h"
#include "memory/kv_layout.h"
#include "memory/panels.h"
#include "model/model_spec.h"

namespace lamella::cpu {

/// Memory lent to a kernel. Not a std::span: its members are inline functions of the library, and a copy that was
/// compiled for AVX-512 could become the one that the linker keeps for everybody. For the same reason the functions
/// below are always inlined.
struct Scratch {
  std::byte* data = nullptr;
  std::size_t size = 0;
};

/// What is left of a worker's share of a phase: units [begin, end) of round `round`. The worker takes from its front, others
/// that have done theirs from its back. A state of another round: nobody has taken anything yet. Alone on its cache line,
/// which nobody else asks for until shares run out.
struct alignas(64) WorkShare {
  std::uint64_t state = 0;

  static constexpr int unit_bits = 20;
  static constexpr std::int64_t most_units = (std::int64_t{1} << unit_bits) - 1;

  [[nodiscard, gnu::always_inline]] static constexpr std::uint64_t state_of(std::uint32_t round, std::int64_t begin,
                                                                            std::int64_t end) noexcept {
    return (std::uint64_t{round} << unit_bits | static_cast<std::uint64_t>(begin)) << unit_bits |
           static_cast<std::uint64_t>(end);
  }
  [[nodiscard, gnu::always_inline]] static constexpr std::uint32_t round_of(std::uint64_t state) noexcept {
    return static_cast<std::uint32_t>(state >> (2 * unit_bits));
  }
  [[nodiscard, gnu::always_inline]] static constexpr std::int64_t begin_of(std::uint64_t state) noexcept {
    return static_cast<std::int64_t>(state >> unit_bits) & most_units;
  }
  [[nodiscard, gnu::always_inline]] static constexpr std::int64_t end_of(std::uint64_t state) noexcept {
    return static_cast<std::int64_t>(state) & most_units;
  }
};

/// One thread's part in a kernel: `index` of `count` workers that all run the same call; together they write every
/// output once. `scratch` is private to the worker (64-byte aligned, at least scratch_bytes() long). A call of several
/// phases() is made once for each, and all workers end one before any begins the next; `shared` (64-byte aligned, at
/// least shared_bytes() long) is the same memory for all of them and lasts from phase to phase. `shares`, where there are
/// any, are of all workers, and `round` is another number for each phase that uses them, from 1 to below 2^24.
struct Worker {
  int index = 0;
  int count = 1;
  Scratch scratch;
  Scratch shared{};
  int phase = 0;
  WorkShare* shares = nullptr;
  std::uint32_t round = 0;
};

/// Units [begin, end) of `units` that fall to one of `count` workers: contiguous, sizes differing by at most one.
struct Range {
  std::int64_t begin = 0, end = 0;
};
[[nodiscard, gnu::always_inline]] constexpr Range share(std::int64_t units, int index, int count) noexcept {
  const std::int64_t each = units / count, extra = units % count;
  const std::int64_t begin = each * index + (index < extra ? index : extra);
  return {begin, begin + each + (index < extra ? 1 : 0)};
}
[[nodiscard, gnu::always_inline]] constexpr Range share(std::int64_t units, const Worker& worker) noexcept {
  return share(units, worker.index, worker.count);
}

/// Attention cuts the KV length at multiples of this many positions, computes each part on its own and merges the parts
/// in index order. Fixed, so that splitting a long context over threads changes no bit.
inline constexpr std::int64_t attention_part_tokens = 256;
/// Attention takes this many rows (tokens times heads of a group) at a time over the same K and V.
inline constexpr std::int64_t attention_tile_rows = 24;
/// Words of a query that stand together in its form.
inline constexpr std::int64_t attention_query_chunk = 64;
/// Floats that a query's results take while other workers have the rest of its context: `padded` sums, and a line with the
/// largest score and the sum of weights.
[[nodiscard, gnu::always_inline]] constexpr std::int64_t kept_row(std::int64_t padded) noexcept { return padded + 16; }
/// Linears, fused or not, take this many tokens at a time where every worker makes the rows' input forms for itself, so
/// that they stay in cache.
inline constexpr std::int64_t token_tile = 64;
/// And this many where workers make them together, a phase, and then multiply, another. Weights are read once a tile.
inline constexpr std::int64_t shared_tile_tokens = 256;
/// From this many tokens on the norm and the rounding of rows cost more than the barrier between two phases.
inline constexpr std::int64_t shared_inputs_from = 8;
/// Tokens that share a register tile at most, on every instruction set.
inline constexpr int block_tokens = 8;

/// Floats of a row that holds the tiles of outputs which a head of `head_dim` touches, wherever it begins.
[[nodiscard, gnu::always_inline]] constexpr std::int64_t head_stride(std::int64_t head_dim) noexcept {
  return (head_dim + 2 * (tile_outputs - 1)) / tile_outputs * tile_outputs;
}

struct NormArgs {
  const void* x;  // [tokens][width]
  void* y;  // [tokens][width]
  const float* weight;  // [width]
  const float* bias;  // [width] or nullptr
  NormKind kind;
  float eps;
  std::int64_t tokens, width;
};

struct EmbedArgs {
  const std::int32_t* token_ids;  // [tokens]
  const std::int32_t* positions;  // [tokens]
  const std::int32_t* token_types;  // [tokens]
  PackedMatrix token_table;  // [vocab][width]
  PackedMatrix position_table;  // [rows][width] or no data
  PackedMatrix type_table;  // [types][width] or no data
  void* y;  // [tokens][width]
  std::int64_t tokens, width;
  std::int32_t position_offset;  // row = position + offset
  std::int32_t first_token = 0;  // of the token table's first row; tokens that it does not have become zeros
};

/// y = x W^T, no bias.
struct LinearArgs {
  const void* x;  // [tokens][inputs]
  PackedMatrix weight;
  void* y;  // [tokens][outputs], T or float
  bool y_f32;  // y is float whatever T is (logits)
  std::int64_t tokens;
  bool shared_inputs = false;  // workers make the input form together (phases())
  bool sbi_gemm = true;  // few tokens walk whole panels; false: the blocked GeMM also for them (LinearWay)
};

/// Of each row the best logit and, in the bits of a float, its token: the lowest among equals. NaN and -1 where a logit
/// is NaN or +infinity, -infinity and 0 where all are -infinity.
struct BestTokenArgs {
  const float* logits;  // [tokens][width]
  float* y;  // [tokens][2]
  std::int64_t tokens, width;
  std::int32_t first_token = 0;  // whose logit stands first
};

struct AddBiasArgs {
  const void* x;  // [tokens][width]
  const float* bias;
  void* y;
  bool f32;  // x and y are float whatever T is
  std::int64_t tokens, width;
};

/// angles[t] = cos (rotary_dim / 2 values), then sin (rotary_dim / 2), float, both multiplied by the attention factor.
/// The angle position * inverse is one fp32 product; its cosine and sine are fp32.
struct RopeTableArgs {
  const std::int32_t* positions;  // [tokens]
  const std::int32_t* rope_lengths;  // [tokens]: the sequence's known length when the token was scheduled
  const RopeSpec* rope;
  float* angles;  // [tokens][rotary_dim]
  std::int64_t tokens;
};

/// Rotates the first rotary_dim elements of every head; element i pairs with i + rotary_dim / 2.
struct RopeArgs {
  const void* x;  // [tokens][heads * head_dim]
  const float* angles;  // [tokens][rotary_dim]
  void* y;
  std::int64_t tokens, heads, head_dim, rotary_dim;
};

/// Where a step's tokens stand: sequence s owns tokens [first, first + count) of the step, in order of position.
struct SequenceSpan {
  std::int32_t first, count;
};

/// One layer's KV cache: [block][kv head][K, V] planes (memory/kv_layout.h).
struct KvLayout {
  void* cache;
  DataType type;  // in which K and V are stored
  const std::int32_t* block_tables;  // [sequences][blocks_per_sequence]
  std::int64_t blocks_per_sequence;
  const SequenceSpan* sequences;  // [sequence_count]
  std::int64_t sequence_count;
  const std::int32_t* positions;  // [tokens]
  std::int64_t kv_heads, head_dim;

  /// The plane of (block, kv: 0 = K and 1 = V, head).
  [[nodiscard, gnu::always_inline]] std::byte* plane(std::int64_t block, int kv, std::int64_t head) const noexcept {
    return static_cast<std::byte*>(cache) + ((block * kv_heads + head) * 2 + kv) * kv_plane_bytes(type, head_dim);
  }
};

struct KvWriteArgs {
  const void* key;  // [tokens][kv_heads * head_dim]
  const void* value;  // [tokens][kv_heads * head_dim]
  KvLayout kv;
  std::int64_t tokens;
};

/// [tokens][heads * head_dim] <-> [heads][tokens][head_dim].
struct HeadsLayoutArgs {
  const void* x;
  void* y;
  std::int64_t tokens, heads, head_dim;
};

/// softmax(scale * q K^T) V per head over the cache. Token at position p sees positions [0, p] when causal, of them the
/// last `window` where that is not 0; otherwise all of its sequence: [0, position of the step's last token of that
/// sequence]. Block table entries of what no token of the step sees are never read.
struct AttentionArgs {
  const void* query;  // [heads][tokens][head_dim]; fused: [tokens][heads * head_dim]
  void* y;  // same layout as query
  KvLayout kv;
  float scale;
  bool causal;
  std::int64_t window;  // 0 unless causal
  std::int64_t tokens, heads;
  bool split = false;  // workers share out the parts of contexts (phases()); only where every sequence has one token

  /// The first position that a token sees whose context ends before `end`.
  [[nodiscard, gnu::always_inline]] std::int64_t first_seen(std::int64_t end) const noexcept {
    return window > 0 && end > window ? end - window : 0;
  }
};

struct ActivateArgs {
  const void* x;  // [tokens][width]
  const void* up;  // gated: y = activation(x) * up; nullptr: y = activation(x)
  void* y;
  Activation activation;
  bool f32;  // all are float whatever T is
  std::int64_t tokens, width;
};

struct ResidualArgs {
  const void *a, *b;  // [tokens][width]
  void* y;  // a + b
  std::int64_t tokens, width;
  bool a_f32 = false;  // a is float whatever T is
  bool f32 = false;  // all are
};

struct GatherRowsArgs {
  const void* x;  // [tokens][width]
  const std::int32_t* rows;  // [row_count]: indices of tokens
  void* y;  // [row_count][width], T or float
  bool y_f32;
  std::int64_t row_count, width;
};

/// Mean over each sequence's tokens of the step.
struct MeanPoolArgs {
  const void* x;  // [tokens][width]
  const SequenceSpan* sequences;  // [sequence_count]
  float* y;  // [sequence_count][width]
  std::int64_t sequence_count, width;
};

// ---- Deep-Fusion's four regions (the paper's III-B and III-D) and the head, one kernel each --------------------------

/// A linear's weight with its optional bias.
struct WeightAndBias {
  PackedMatrix weight;
  const float* bias;  // [outputs] or nullptr
};

/// Region 1: norm, QKV linears, bias, RoPE, KV write. Writes q; k and v go straight to the cache.
struct NormQkvArgs {
  const void* x;  // [tokens][width]
  NormKind norm;  // none: x is used as it is
  const float *norm_weight, *norm_bias;
  float eps;
  WeightAndBias query, key, value;
  const float* angles;  // nullptr: no RoPE
  std::int64_t rotary_dim;
  void* q;  // [tokens][heads * head_dim]
  KvLayout kv;
  std::int64_t tokens, width, heads;
  bool shared_inputs = false;  // only where query, key and value have one format
  bool sbi_gemm = true;
};

/// Region 3: norm, MLP-up linear (and gate), bias, activation.
struct NormMlpUpArgs {
  const void* x;  // [tokens][width]
  NormKind norm;
  const float *norm_weight, *norm_bias;
  float eps;
  WeightAndBias gate;  // no data: not gated
  WeightAndBias up;
  Activation activation;
  void* y;  // [tokens][outputs]
  std::int64_t tokens;
  bool shared_inputs = false;  // only where gate and up have one format
  bool sbi_gemm = true;
};

/// Region 4: output linear, bias, residual: y = x W^T + bias + residual.
struct OutputResidualArgs {
  const void* x;  // [tokens][inputs]
  WeightAndBias output;
  const void* residual;  // [tokens][outputs]
  void* y;  // [tokens][outputs]
  std::int64_t tokens;
  bool shared_inputs = false;
  bool sbi_gemm = true;
};

/// What stands behind the sum over ranks of region 4's linear: y = (x + biases, one after the other) + residual.
struct BiasResidualArgs {
  const float* x;  // [tokens][width]
  const float* biases[2];  // [width] or nullptr
  const void* residual;  // [tokens][width]
  void* y;  // [tokens][width]
  std::int64_t tokens, width;
};

// ---- mixtures of experts (the paper's V-C) ---------------------------------------------------------------------------

/// How tokens choose experts (RouterKind says what the kinds are).
struct Routing {
  RouterKind kind;
  std::int64_t experts, top_k;
  float scale;
  const float* bias;  // [experts]; sigmoid_with_bias only
};
/// Added to the sum that sigmoid_with_bias divides by.
inline constexpr float least_sum = 1e-20F;

struct RouteArgs {
  const float* logits;  // [tokens][experts]
  Routing routing;
  std::int32_t* chosen;  // [tokens][top_k]: experts, the best first
  float* weights;  // [tokens][top_k]
  std::int64_t tokens;
};

/// Where tokens' rows go, in the order by expert and within an expert by token.
struct Placed {
  void* rows;  // [tokens * top_k][width]
  std::int32_t* offsets;  // [experts + 1]: each expert's first row
  std::int32_t* places;  // [tokens][top_k]: the row of each choice
};

/// Two phases: counting, and copying.
struct DispatchArgs {
  const void* x;  // [tokens][width]
  const std::int32_t* chosen;  // [tokens][top_k]
  Routing routing;  // experts and top_k count
  Placed to;
  std::int64_t tokens, width;
};

/// Which rows are whose.
struct Experts {
  const std::int32_t* offsets;  // [count + 1]
  std::int64_t count;
};

/// Rows of expert e times its matrix, plus its bias.
struct ExpertLinearArgs {
  const void* x;  // [tokens][inputs]
  Experts experts;
  const WeightAndBias* linears;  // [experts.count], all of one shape
  void* y;  // [tokens][outputs], T or float
  bool y_f32;
  std::int64_t tokens;  // rows of all experts together
  bool sbi_gemm = true;
};

/// Both linears before the activation.
struct ExpertUpArgs {
  const void* x;  // [tokens][inputs]
  Experts experts;
  const WeightAndBias* gates;  // [experts.count]; nullptr: not gated
  const WeightAndBias* ups;  // [experts.count]
  Activation activation;
  void* y;  // [tokens][outputs]
  std::int64_t tokens;  // rows of all experts together
  bool sbi_gemm = true;
};

/// y = sum over j of weights[t][j] * rows[places[t][j]], in order, in fp32, plus the shared expert's, plus the residual.
struct CombineArgs {
  const float* rows;  // [tokens * top_k][width]
  const std::int32_t* places;  // [tokens][top_k]
  const float* weights;  // [tokens][top_k]
  const float* shared;  // [tokens][width] or nullptr
  const float* shared_gate;  // [tokens]: logits of what multiplies it; nullptr: 1
  const void* residual;  // [tokens][width] or nullptr
  void* y;  // [tokens][width], T or float
  bool y_f32;
  std::int64_t tokens, width, top_k;
};

/// Norm, the router's linear, choice and dispatch: all of them but the way back. Two phases behind those of the linear.
struct NormRouteArgs {
  const void* x;  // [tokens][width]
  NormKind norm;
  const float *norm_weight, *norm_bias;
  float eps;
  PackedMatrix router;  // [experts][width]
  PackedMatrix shared_router;  // [1][width] or no data
  float* shared_gate;  // [tokens] or nullptr
  Routing routing;
  Placed to;
  float* weights;  // [tokens][top_k]
  std::int64_t tokens;
  bool shared_inputs = false;  // only where both matrices have one format
  bool sbi_gemm = true;
};

/// Bytes at the end of the memory that workers share: of tokens their logits and choices, of workers what they counted.
[[nodiscard, gnu::always_inline]] constexpr std::int64_t route_room(std::int64_t tokens, std::int64_t experts,
                                                                    std::int64_t top_k, std::int64_t workers) noexcept {
  return (tokens * (experts + top_k) + workers * experts) * 4;
}

/// Region head: linear, bias, best token: y is what BestTokenArgs says of the logits x W^T + bias, which are fp32.
struct GreedyHeadArgs {
  const void* x;  // [tokens][inputs]
  WeightAndBias head;
  float* y;  // [tokens][2]
  std::int64_t tokens;
  bool shared_inputs = false;
  bool sbi_gemm = true;
  std::int32_t first_token = 0;  // of the matrix's first output
};

/// Whether workers should make the inputs of these matrices together: a function of shapes and formats alone.
[[nodiscard]] bool share_inputs(const LinearArgs& args) noexcept;
[[nodiscard]] bool share_inputs(const NormQkvArgs& args) noexcept;
[[nodiscard]] bool share_inputs(const NormMlpUpArgs& args) noexcept;
[[nodiscard]] bool share_inputs(const OutputResidualArgs& args) noexcept;
[[nodiscard]] bool share_inputs(const GreedyHeadArgs& args) noexcept;
[[nodiscard]] bool share_inputs(const NormRouteArgs& args) noexcept;

/// Whether this many workers should share out the parts of contexts instead of queries: a function of shapes alone, with
/// `kv_tokens` in all contexts together. Where the KV heads divide by the workers, whole heads are even shares.
[[nodiscard]] bool split_contexts(const AttentionArgs& args, std::int64_t kv_tokens, int workers) noexcept;

/// Phases in which rows are multiplied: one, or two a tile of tokens where inputs are shared.
[[nodiscard, gnu::always_inline]] constexpr int input_phases(std::int64_t tokens, bool shared_inputs) noexcept {
  return shared_inputs ? static_cast<int>(2 * ((tokens + shared_tile_tokens - 1) / shared_tile_tokens)) : 1;
}
/// Phases of a call: where contexts are split, and in a greedy head, one more to bring together what workers found; where
/// tokens are dispatched, one to count their choices and one to copy their rows.
template <typename Args>
[[nodiscard]] int phases(const Args& args) noexcept {
  if constexpr (requires { args.split; }) return args.split ? 2 : 1;
  if constexpr (std::is_same_v<Args, DispatchArgs>) return 2;
  if constexpr (std::is_same_v<Args, NormRouteArgs>) return input_phases(args.tokens, args.shared_inputs) + 2;
  if constexpr (std::is_same_v<Args, GreedyHeadArgs>) return input_phases(args.tokens, args.shared_inputs) + 1;
  if constexpr (requires { args.shared_inputs; }) return input_phases(args.tokens, args.shared_inputs);
  return 1;
}

/// How a matrix of some format meets so many tokens: a function of format, dtype, instruction set and tokens alone, and of
/// whether SBI-GeMM may be used. The bits are the same every way.
struct LinearWay {
  const char* operands;  // what is multiplied: "fp32", "bf16 pairs", "int8 dots", ...
  Arithmetic arithmetic;
  std::int64_t outputs, tokens;  // of the register tile
  /// Few tokens: one walk over each panel, bound by memory (SBI-GeMM); else chunks that stay in cache.
  bool whole_panels;
};

/// All kernels of one instruction set for one dtype. A null entry means that the set has no such kernel (the reference
/// set has no fused ones: it is the oracle for them).
struct KernelTable {
  const char* name;  // to_string(KernelSet)
  DataType dtype;
  void (*norm)(const NormArgs&, const Worker&);
  void (*embed)(const EmbedArgs&, const Worker&);
  void (*linear)(const LinearArgs&, const Worker&);
  void (*add_bias)(const AddBiasArgs&, const Worker&);
  void (*rope)(const RopeArgs&, const Worker&);
  void (*kv_write)(const KvWriteArgs&, const Worker&);
  void (*split_heads)(const HeadsLayoutArgs&, const Worker&);
  void (*merge_heads)(const HeadsLayoutArgs&, const Worker&);
  void (*attention)(const AttentionArgs&, const Worker&);
  void (*activate)(const ActivateArgs&, const Worker&);
  void (*residual)(const ResidualArgs&, const Worker&);
  void (*gather_rows)(const GatherRowsArgs&, const Worker&);
  void (*mean_pool)(const MeanPoolArgs&, const Worker&);
  void (*best_token)(const BestTokenArgs&, const Worker&);
  void (*norm_qkv)(const NormQkvArgs&, const Worker&);
  void (*layout_attention)(const AttentionArgs&, const Worker&);
  void (*norm_mlp_up)(const NormMlpUpArgs&, const Worker&);
  void (*output_residual)(const OutputResidualArgs&, const Worker&);
  void (*bias_residual)(const BiasResidualArgs&, const Worker&);
  void (*greedy_head)(const GreedyHeadArgs&, const Worker&);
  void (*route)(const RouteArgs&, const Worker&);
  void (*dispatch)(const DispatchArgs&, const Worker&);
  void (*expert_linear)(const ExpertLinearArgs&, const Worker&);
  void (*combine)(const CombineArgs&, const Worker&);
  void (*norm_route)(const NormRouteArgs&, const Worker&);
  void (*expert_up)(const ExpertUpArgs&, const Worker&);
  void (*combine_residual)(const CombineArgs&, const Worker&);
  LinearWay (*linear_way)(const WeightFormat&, std::int64_t tokens, bool sbi_gemm);
  Arithmetic (*attention_arithmetic)(DataType kv);
};

/// Scratch bytes a worker needs at most in any kernel for these sizes (the largest widths of the plan).
struct ScratchBounds {
  std::int64_t max_inputs = 0;  // widest row that a norm or linear reads
  std::int64_t max_head_dim = 0;
  std::int64_t max_outputs = 0;
  std::int64_t max_tokens = 0;  // of a step
  std::int64_t max_rows = 0;  // of a step, where a greedy head treats them
  std::int64_t max_context = 0;  // of a sequence
  std::int64_t split_group = 0;  // query heads of a KV head, at most, where contexts may be split
  std::int64_t max_experts = 0, max_top_k = 0;  // of a mixture
  std::int64_t workers = 1;
};
[[nodiscard]] std::size_t scratch_bytes(const ScratchBounds& bounds);
/// And bytes that the workers of a call share.
[[nodiscard]] std::size_t shared_bytes(const ScratchBounds& bounds);

/// The angles of RoPE do not depend on dtype or instruction set: one kernel, double-checked against transformers.
void rope_table(const RopeTableArgs& args, const Worker& worker);

/// An instruction set for which kernels were compiled and that this machine runs.
enum class KernelSet : std::uint8_t { reference, baseline, avx2, avx512, avx512_vnni };
[[nodiscard]] const char* to_string(KernelSet set) noexcept;

/// The sets that this processor and operating system can run, best last; always has reference and baseline.
[[nodiscard]] std::span<const KernelSet> available_kernel_sets() noexcept;

/// The set to use where nobody chose one: the best, or the one that the environment variable LAMELLA_ISA names. Errors:
/// invalid_argument where LAMELLA_ISA names none that this machine runs.
[[nodiscard]] KernelSet default_kernel_set();

/// The set of that name. Errors: invalid_argument naming `origin` (the option or variable) and what there is.
[[nodiscard]] KernelSet kernel_set_named(std::string_view name, std::string_view origin);

/// Kernels of `set` for `dtype`. Errors: invalid_argument where the machine cannot run the set or the set has no such
/// dtype (the reference set is fp32 only); the message lists what there is.
[[nodiscard]] const KernelTable& kernel_table(KernelSet set, DataType dtype);

}  // namespace lamella::cpu
