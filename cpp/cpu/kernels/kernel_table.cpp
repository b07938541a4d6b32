// Which kernels there are, and which of them this machine runs.
#include <array>
#include <cstdlib>

#include "base/check.h"
#include "cpu/kernels/logit_kernels.h"
#include "cpu/kernels/reference/reference.h"
#include "cpu/kernels/vector/kernel_sets.h"

namespace lamella::cpu {
namespace {

constexpr KernelTable reference_table = {.name = "reference",
                                         .dtype = DataType::f32,
                                         .norm = reference::norm,
                                         .embed = reference::embed,
                                         .linear = reference::linear,
                                         .add_bias = reference::add_bias,
                                         .rope = reference::rope,
                                         .kv_write = reference::kv_write,
                                         .split_heads = reference::split_heads,
                                         .merge_heads = reference::merge_heads,
                                         .attention = reference::attention,
                                         .activate = reference::activate,
                                         .residual = reference::residual,
                                         .gather_rows = reference::gather_rows,
                                         .mean_pool = reference::mean_pool,
                                         .best_token = reference::best_token,
                                         .norm_qkv = nullptr,
                                         .layout_attention = nullptr,
                                         .norm_mlp_up = nullptr,
                                         .output_residual = nullptr,
                                         .bias_residual = nullptr,
                                         .greedy_head = nullptr,
                                         .route = reference::route,
                                         .dispatch = reference::dispatch,
                                         .expert_linear = reference::expert_linear,
                                         .combine = reference::combine,
                                         .norm_route = nullptr,
                                         .expert_up = nullptr,
                                         .combine_residual = nullptr,
                                         .linear_way = nullptr,
                                         .attention_arithmetic = nullptr};

constexpr std::array all_sets = {KernelSet::reference, KernelSet::baseline, KernelSet::avx2, KernelSet::avx512,
                                 KernelSet::avx512_vnni};

bool available(KernelSet set) noexcept {
  for (const KernelSet each : available_kernel_sets())
    if (each == set) return true;
  return false;
}

std::string list_available() {
  std::string list;
  for (const KernelSet set : available_kernel_sets())
    list += concat(list.empty() ? "" : ", ", to_string(set),
                   set == KernelSet::reference ? " (float32)" : " (float32, float16, bfloat16)");
  return list;
}

}  // namespace

const char* to_string(KernelSet set) noexcept {
  switch (set) {
    case KernelSet::reference: return "reference";
    case KernelSet::baseline: return "baseline";
    case KernelSet::avx2: return "avx2";
    case KernelSet::avx512: return "avx512";
    case KernelSet::avx512_vnni: return "avx512_vnni";
  }
  return "?";
}

std::span<const KernelSet> available_kernel_sets() noexcept {
  struct Runnable {
    std::array<KernelSet, all_sets.size()> sets;
    std::size_t count = 0;
  };
  static const Runnable runnable = [] {
    Runnable found{};
    for (const KernelSet set : all_sets)
      if (set == KernelSet::reference || (vector_set(set) != nullptr && processor_runs(set)))
        found.sets[found.count++] = set;
    return found;
  }();
  return std::span(runnable.sets).first(runnable.count);
}

KernelSet kernel_set_named(std::string_view name, std::string_view origin) {
  for (const KernelSet set : available_kernel_sets())
    if (name == to_string(set)) return set;
  throw Error(ErrorCode::invalid_argument,
              concat(origin, " is ", quoted(name), "; this machine runs ", list_available()));
}

KernelSet default_kernel_set() {
  const char* named = std::getenv("LAMELLA_ISA");  // NOLINT(concurrency-mt-unsafe): nothing here sets variables
  return named == nullptr || *named == '\0' ? available_kernel_sets().back() : kernel_set_named(named, "LAMELLA_ISA");
}

const KernelTable& kernel_table(KernelSet set, DataType dtype) {
  if (available(set)) {
    if (set == KernelSet::reference && dtype == DataType::f32) return reference_table;
    if (const VectorSet* vectors = vector_set(set)) {
      if (dtype == DataType::f32) return vectors->f32;
      if (dtype == DataType::f16) return vectors->f16;
      if (dtype == DataType::bf16) return vectors->bf16;
    }
  }
  throw Error(ErrorCode::invalid_argument, concat("no CPU kernels named '", to_string(set), "' for ", to_string(dtype),
                                                  " on this machine; there are ", list_available()));
}

const LogitKernels& logit_kernels(KernelSet set) noexcept {
  const VectorSet* vectors = vector_set(set);
  return vectors == nullptr ? plain_logit_kernels : vectors->logits;
}

}  // namespace lamella::cpu
