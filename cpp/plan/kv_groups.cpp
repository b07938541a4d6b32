#include "plan/kv_groups.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <map>

namespace lamella {
namespace {

/// Retentions, longest first.
struct LongerFirst {
  bool operator()(std::int32_t a, std::int32_t b) const noexcept { return b != 0 && (a == 0 || a > b); }
};
using LayersByWindow = std::map<std::int32_t, std::vector<std::size_t>, LongerFirst>;

std::size_t groups_of(std::size_t layers, std::size_t slots) noexcept { return (layers + slots - 1) / slots; }

/// Layers a group that leave the fewest places empty; of those the most, which makes the fewest groups.
std::size_t best_slots(const LayersByWindow& layers) {
  std::size_t largest = 0, best = 0, least_room = std::numeric_limits<std::size_t>::max();
  for (const auto& [window, own] : layers) largest = std::max(largest, own.size());
  for (std::size_t slots = largest; slots > 0; --slots) {
    std::size_t groups = 0;
    for (const auto& [window, own] : layers) groups += groups_of(own.size(), slots);
    if (slots < largest && groups > most_kv_groups) break;  // fewer slots make only more groups
    if (groups * slots >= least_room) continue;
    least_room = groups * slots;
    best = slots;
  }
  return best;
}

}  // namespace

KvGroups kv_groups(const ModelSpec& spec, std::int64_t longest) {
  KvGroups result{.windows = {}, .layers = std::vector<KvGroups::Place>(spec.layers.size()), .slots = 1};
  LayersByWindow layers;
  for (std::size_t i = 0; i < spec.layers.size(); ++i)
    if (spec.layers[i].attention.causal) layers[binding_window(spec.layers[i].attention, longest)].push_back(i);
  if (layers.empty()) {
    result.windows = {0};
    return result;
  }
  result.slots = static_cast<std::uint32_t>(best_slots(layers));
  for (const auto& [window, own] : layers) {
    for (std::size_t i = 0; i < own.size(); ++i) {
      const auto slot = static_cast<std::uint32_t>(i % result.slots);
      if (slot == 0) result.windows.push_back(window);
      result.layers[own[i]] = {static_cast<std::uint32_t>(result.windows.size() - 1), slot};
    }
  }
  return result;
}

}  // namespace lamella
