#include "store/load_weights.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>

#include "base/check.h"
#include "store/find_source.h"
#include "store/gguf_codes.h"
#include "store/pack.h"
#include "store/quantise.h"
#include "store/source_rows.h"

namespace lamella {
namespace {

struct Job {
  const WeightDeclaration* weight;
  SourceRows source;
  std::span<std::byte> room;
};
/// Rows of a weight, whole tiles of it.
struct Task {
  std::size_t job;
  std::int64_t begin, end;
};

/// What one thread works with.
class Worker {
 public:
  Worker(const io::TensorTable& tensors, io::Reader& reader) : window_(tensors, reader) {}

  void load(const Job& job, std::int64_t begin, std::int64_t end) {
    const WeightFormat& format = job.weight->format;
    window_.read(job.source, begin, end, largest_magnitude(format));
    if (is_vector(job.weight->id.slot)) {
      floats_.resize(static_cast<std::size_t>(end - begin));
      window_.floats(begin, floats_);
      std::memcpy(job.room.data() + begin * std::int64_t(sizeof(float)), floats_.data(),
                  floats_.size() * sizeof(float));
      return;
    }
    const MatrixRoom room{
        .bytes = job.room, .outputs = job.weight->rows, .inputs = job.weight->columns, .format = format};
    const bool kept = !job.source.by_columns() && keeps_codes(job.source.tensor().type, format);
    for (std::int64_t row = begin; row < end; row += tile_outputs) {
      const std::int64_t rows = std::min(tile_outputs, end - row);
      if (kept) {
        take(job, row, rows);
        pack_codes(room, row, codes_);
        continue;
      }
      floats_.resize(static_cast<std::size_t>(rows * room.inputs));
      window_.floats(row, floats_);
      if (is_quantised(format)) {
        quantise_rows(floats_, rows, room.inputs, format, Rounding::clip_search, codes_);
        pack_codes(room, row, codes_);
      } else {
        pack_floats(room, row, floats_);
      }
    }
  }

 private:
  void take(const Job& job, std::int64_t first, std::int64_t rows) {
    codes_.resize(job.weight->format, rows, job.weight->columns);
    for (std::int64_t i = 0; i < rows; ++i)
      if (!take_codes(job.source.tensor().type, window_.stored(first + i), i, codes_)) window_.refuse(first + i);
  }

  RowWindow window_;
  std::vector<float> floats_;
  CodedRows codes_;
};

std::vector<Task> tasks_of(const std::vector<Job>& jobs) {
  std::vector<Task> tasks;
  for (std::size_t job = 0; job < jobs.size(); ++job) {
    const std::int64_t rows = jobs[job].source.map().rows(), step = jobs[job].source.rows_at_once();
    for (std::int64_t begin = 0; begin < rows; begin += step)
      tasks.push_back({job, begin, std::min(rows, begin + step)});
  }
  return tasks;
}

}  // namespace

void load_weights(ResidentWeights& weights, const LoadRecipe& recipe, const io::TensorTable& tensors,
                  io::Reader& reader, ThreadTeam& team, const LoadProgress& progress) {
  std::vector<Job> jobs;
  for (const auto& [weight, source, tensor] : find_sources(weights.declarations(), recipe, tensors))
    jobs.push_back({weight, SourceRows(*weight, *source, *tensor), weights.bytes(weight->id)});
  const std::vector<Task> tasks = tasks_of(jobs);
  const auto bytes = [&](const Task& task) {
    return static_cast<std::uint64_t>(jobs[task.job].source.bytes_of_rows(task.end - task.begin));
  };
  std::uint64_t total = 0, done = 0;
  for (const Task& task : tasks) total += bytes(task);

  std::atomic<std::size_t> next{0};
  std::atomic<bool> failed{false};
  std::mutex reporting;
  team.run([&](int) {
    Worker worker(tensors, reader);
    for (std::size_t i = next.fetch_add(1); i < tasks.size() && !failed.load(); i = next.fetch_add(1)) {
      try {
        worker.load(jobs[tasks[i].job], tasks[i].begin, tasks[i].end);
      } catch (...) {
        failed.store(true);
        throw;
      }
      const std::lock_guard lock(reporting);
      done += bytes(tasks[i]);
      if (progress) progress(done, total);
    }
  });
  for (const std::shared_ptr<const io::File>& file : tensors.files) file->verify_unchanged();
}

}  // namespace lamella
