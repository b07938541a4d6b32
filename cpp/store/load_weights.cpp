#include "store/load_weights.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <map>
#include <mutex>

#include "base/check.h"
#include "base/counter_random.h"
#include "io/expand.h"
#include "store/row_map.h"

namespace lamella {
namespace {

/// Source bytes that one task reads at most, unless a single row is longer: large enough for the drive, small enough to
/// stay in L2.
constexpr std::int64_t chunk_bytes = 1 << 20;

/// Rounds to the nearest bf16, ties to even. The caller has refused NaN and infinity.
std::uint16_t to_bf16(float value) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

void store_row(const float* values, std::int64_t count, std::int64_t stride, DataType type, std::byte* out) noexcept {
  if (type == DataType::f32 && stride == 1) {
    std::memcpy(out, values, static_cast<std::size_t>(count) * sizeof(float));
  } else if (type == DataType::f32) {
    for (std::int64_t i = 0; i < count; ++i) reinterpret_cast<float*>(out)[i] = values[i * stride];
  } else {
    for (std::int64_t i = 0; i < count; ++i) reinterpret_cast<std::uint16_t*>(out)[i] = to_bf16(values[i * stride]);
  }
}

/// Whether every value is a number and stays one in `type`: above 0x7f7f7fff, bf16 rounds to infinity.
bool all_finite(std::span<const float> values, DataType type) noexcept {
  const std::uint32_t limit = type == DataType::bf16 ? 0x7f7f8000U : 0x7f800000U;
  std::uint32_t largest = 0;  // exponents compare as integers; this loop vectorises
  for (const float value : values) largest = std::max(largest, std::bit_cast<std::uint32_t>(value) & 0x7fffffffU);
  return largest < limit;
}

/// A weight with its source, and one chunk of it at a time.
struct Job {
  const WeightDeclaration* weight;
  const io::TensorEntry* tensor;
  bool transposed;
  RowMap map;
};
struct Task {
  std::size_t job;
  std::int64_t begin, end;  // rows of the weight; transposed: stored rows, which are the weight's columns
};

class Loader {
 public:
  Loader(ResidentWeights& weights, const io::TensorTable& tensors, io::Reader& reader)
      : weights_(weights), tensors_(tensors), reader_(reader) {}

  void add(const WeightDeclaration& weight, const WeightSource& source) {
    const io::TensorEntry* tensor = tensors_.find(source.tensor);
    if (tensor == nullptr)
      throw Error(ErrorCode::invalid_checkpoint,
                  concat("the checkpoint has no tensor ", quoted(source.tensor), ", which ", source.weight, " needs"));
    jobs_.push_back({&weight, tensor, source.transposed, RowMap(weight, source, *tensor)});
    const Job& job = jobs_.back();
    const std::int64_t stored_columns = source.transposed ? job.map.source_rows() : job.map.columns();
    const io::StorageTraits& storage = io::traits(tensor->type);
    if (stored_columns % storage.elements != 0)
      throw Error(ErrorCode::unsupported_model,
                  concat("tensor ", quoted(tensor->name), ": rows of ", stored_columns, " elements are no multiple of ",
                         storage.name, "'s blocks of ", storage.elements));
    row_bytes_.push_back(stored_columns / storage.elements * storage.bytes);

    const std::int64_t rows_at_once = std::max<std::int64_t>(1, chunk_bytes / row_bytes_.back());
    if (source.transposed) {
      cut(0, job.map.columns(), rows_at_once);
    } else {
      const std::int64_t step = job.map.ordered() ? rows_at_once : job.map.block_rows();
      for (std::int64_t block = 0; block < job.map.rows(); block += job.map.block_rows())
        cut(block, block + job.map.block_rows(), step);
    }
  }

  void run(ThreadTeam& team, const LoadProgress& progress) {
    std::uint64_t total = 0, done = 0;
    for (const Task& task : tasks_) total += bytes(task);
    std::atomic<std::size_t> next{0};
    std::atomic<bool> failed{false};
    std::mutex reporting;
    team.run([&](int) {
      std::vector<std::byte> raw;
      std::vector<float> values;
      for (std::size_t i = next.fetch_add(1); i < tasks_.size() && !failed.load(); i = next.fetch_add(1)) {
        try {
          load(tasks_[i], raw, values);
        } catch (...) {
          failed.store(true);
          throw;
        }
        const std::lock_guard lock(reporting);
        done += bytes(tasks_[i]);
        if (progress) progress(done, total);
      }
    });
  }

 private:
  void cut(std::int64_t begin, std::int64_t end, std::int64_t step) {
    for (; begin < end; begin += step) tasks_.push_back({jobs_.size() - 1, begin, std::min(end, begin + step)});
  }
  [[nodiscard]] std::uint64_t bytes(const Task& task) const {
    return static_cast<std::uint64_t>((task.end - task.begin) * row_bytes_[task.job]);
  }

  void load(const Task& task, std::vector<std::byte>& raw, std::vector<float>& values) {
    const Job& job = jobs_[task.job];
    const std::int64_t count = task.end - task.begin;
    const std::int64_t stored_columns = job.transposed ? job.map.source_rows() : job.map.columns();
    const std::int64_t block_begin = task.begin / job.map.block_rows() * job.map.block_rows();
    const std::int64_t first =
        job.transposed ? task.begin : job.map.block_source(task.begin) + (task.begin - block_begin);

    raw.resize(static_cast<std::size_t>(count * row_bytes_[task.job]));
    values.resize(static_cast<std::size_t>(count * stored_columns));
    reader_.read(*tensors_.files.at(job.tensor->file),
                 job.tensor->offset + static_cast<std::uint64_t>(first * row_bytes_[task.job]), raw);
    io::expand_row_range_to_f32(job.tensor->type, raw, values);
    const DataType type = weights_.type_of(*job.weight);
    if (!all_finite(values, type))
      throw Error(ErrorCode::invalid_checkpoint,
                  concat("tensor ", quoted(job.tensor->name), " holds NaN or infinity, or numbers beyond ",
                         to_string(type), " in rows ", first, " to ", first + count - 1,
                         "; the file is damaged or was saved from a diverged model"));

    std::byte* out = weights_.bytes(job.weight->id).data();
    const auto element = static_cast<std::int64_t>(size_of(type));
    if (job.transposed) {  // stored row c holds column c of every source row
      for (std::int64_t row = 0; row < job.map.rows(); ++row)
        store_row(values.data() + job.map.source_row(row), count, stored_columns, type,
                  out + (row * job.map.columns() + task.begin) * element);
    } else {
      for (std::int64_t row = task.begin; row < task.end; ++row)
        store_row(values.data() + (job.map.source_row(row) - first) * stored_columns, stored_columns, 1, type,
                  out + row * job.map.columns() * element);
    }
  }

  ResidentWeights& weights_;
  const io::TensorTable& tensors_;
  io::Reader& reader_;
  std::vector<Job> jobs_;
  std::vector<std::int64_t> row_bytes_;  // of a stored row, by job
  std::vector<Task> tasks_;
};

/// Standard deviation of random matrices: GPT-2's initialiser, which keeps activations of deep shapes in range.
constexpr float random_deviation = 0.02F;

bool is_norm_scale(Slot slot) noexcept {
  return slot == Slot::embedding_norm || slot == Slot::attention_norm || slot == Slot::mlp_norm ||
         slot == Slot::final_norm;
}

}  // namespace

void load_weights(ResidentWeights& weights, const LoadRecipe& recipe, const io::TensorTable& tensors,
                  io::Reader& reader, ThreadTeam& team, const LoadProgress& progress) {
  std::map<std::string_view, const WeightSource*> sources;
  for (const WeightSource& source : recipe) sources.emplace(source.weight, &source);
  Loader loader(weights, tensors, reader);
  for (const WeightDeclaration& weight : weights.declarations()) {
    const auto source = sources.find(to_string(weight.id));
    if (source == sources.end())
      throw Error(ErrorCode::invalid_checkpoint, concat("the recipe has no source for ", to_string(weight.id)));
    loader.add(weight, *source->second);
  }
  loader.run(team, progress);
  for (const std::shared_ptr<const io::File>& file : tensors.files) file->verify_unchanged();
}

void fill_random_weights(ResidentWeights& weights, std::uint64_t seed, ThreadTeam& team) {
  const std::span<const WeightDeclaration> declarations = weights.declarations();
  team.run([&](int index) {
    std::vector<float> row;
    for (std::size_t w = 0; w < declarations.size(); ++w) {
      const WeightDeclaration& weight = declarations[w];
      const DataType type = weights.type_of(weight);
      std::byte* out = weights.bytes(weight.id).data();
      row.resize(static_cast<std::size_t>(weight.columns));
      for (std::int64_t r = index; r < weight.rows; r += team.size()) {
        if (is_vector(weight.id.slot)) {
          std::ranges::fill(row, is_norm_scale(weight.id.slot) ? 1.0F : 0.0F);
        } else {
          fill_normal(row, random_deviation, seed + w, static_cast<std::uint64_t>(r));
        }
        store_row(row.data(), weight.columns, 1, type, out + r * weight.columns * std::int64_t(size_of(type)));
      }
    }
  });
}

}  // namespace lamella
