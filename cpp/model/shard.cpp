#include "model/shard.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace lamella {
namespace {

/// The largest divisor of the local query heads such that no run of so many of them crosses from one group of the model
/// into the next.
std::int64_t common_run(const ShardRange& heads, std::int64_t group) {
  const std::int64_t first = group - heads.begin % group;  // heads up to the first border
  if (first >= heads.size()) return heads.size();
  const std::int64_t run = std::gcd(first, heads.size());
  return first + group < heads.size() ? std::gcd(run, group) : run;
}

/// The inner width of a layer's MLP, or of the narrowest of its experts.
std::int64_t narrowest(const MlpSpec& mlp) {
  if (!mlp.experts) return mlp.intermediate;
  const ExpertsSpec& experts = *mlp.experts;
  return experts.shared_intermediate == 0 ? experts.intermediate
                                          : std::min(experts.intermediate, experts.shared_intermediate);
}

}  // namespace

HeadShard shard_heads(const AttentionSpec& attention, int rank, int ranks) {
  const std::int64_t group = attention.heads / attention.kv_heads;
  HeadShard shard;
  if (attention.kv_heads >= ranks) {
    const ShardRange kv = even_share(attention.kv_heads, rank, ranks);
    shard.heads = {kv.begin * group, kv.end * group};
    shard.kv_heads.resize(static_cast<std::size_t>(kv.size()));
    std::iota(shard.kv_heads.begin(), shard.kv_heads.end(), static_cast<std::int32_t>(kv.begin));
    return shard;
  }
  shard.heads = even_share(attention.heads, rank, ranks);
  const std::int64_t run = common_run(shard.heads, group);
  for (std::int64_t head = shard.heads.begin; head < shard.heads.end; head += run)
    shard.kv_heads.push_back(static_cast<std::int32_t>(head / group));
  return shard;
}

ShardRange shard_width(std::int64_t width, int rank, int ranks) {
  const std::int64_t units = (width + shard_unit - 1) / shard_unit;
  if (units < ranks) return even_share(width, rank, ranks);
  const ShardRange share = even_share(units, rank, ranks);
  return {share.begin * shard_unit, std::min(share.end * shard_unit, width)};
}

void require_shards(const ModelSpec& spec, int ranks) {
  std::int64_t most = spec.vocab;
  for (const LayerSpec& layer : spec.layers)
    most = std::min({most, std::int64_t{layer.attention.heads}, narrowest(layer.mlp)});
  for (std::size_t i = 0; i < spec.layers.size(); ++i)
    if (spec.layers[i].attention.norm_across_heads && ranks > 1)
      throw Error(ErrorCode::unsupported_model,
                  concat("tensor_parallel_size is ", ranks, ", but layer ", i,
                         " norms the queries of all heads together; expected 1 for this model"));
  if (ranks <= most) return;
  const auto refuse = [&](std::string_view what, std::int64_t count) {
    throw Error(ErrorCode::invalid_argument, concat("tensor_parallel_size is ", ranks, ", but ", what, " ", count,
                                                    "; expected at most ", most, " for this model"));
  };
  for (std::size_t i = 0; i < spec.layers.size(); ++i) {
    const LayerSpec& layer = spec.layers[i];
    if (layer.attention.heads < ranks) refuse(concat("the query heads of layer ", i, " are"), layer.attention.heads);
    if (narrowest(layer.mlp) < ranks)
      refuse(concat("the inner width of layer ", i, layer.mlp.experts ? "'s experts is" : "'s MLP is"),
             narrowest(layer.mlp));
  }
  refuse("the vocabulary's size is", spec.vocab);
}

void require_stages(const ModelSpec& spec, int stages) {
  if (static_cast<std::size_t>(stages) <= spec.layers.size()) return;
  throw Error(ErrorCode::invalid_argument, concat("pipeline_parallel_size is ", stages, ", but the model has ",
                                                  spec.layers.size(), " layers; expected at most that"));
}

}  // namespace lamella
