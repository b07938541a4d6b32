#include "store/load_parts.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <vector>

#include "base/check.h"
#include "base/scratch.h"
#include "memory/matrix_part.h"
#include "store/load_meter.h"

namespace lamella {
namespace {

/// What is read at once, as far as whole panels allow.
constexpr std::int64_t read_bytes = std::int64_t{1} << 20;

/// One read: bytes of the file that are a packed matrix of their own, of whose outputs some go to the rank's matrix. Of
/// what is taken as it stands, a vector or a whole weight, only the bytes count.
struct Task {
  std::uint64_t offset = 0, bytes = 0;  // in the file
  std::span<std::byte> room;  // of the whole weight, or just of these bytes
  bool as_it_stands = true;
  std::int64_t outputs = 0, inputs = 0;  // of what is read
  ShardRange wanted;  // of its outputs
  std::int64_t first_input = 0, first_output = 0;
  std::int64_t own_outputs = 0, own_inputs = 0;
  WeightFormat format;
};

/// The bytes of a panel that hold certain inputs: whole groups of codes, or words of floats.
struct PanelWindow {
  std::int64_t begin = 0, bytes = 0;  // within the panel
  std::int64_t inputs = 0, first_input = 0;  // of a matrix of just these bytes, and the first that is wanted
};

PanelWindow window_of(const PanelLayout& layout, std::int64_t tiles, const WeightFormat& format,
                      const ShardRange& inputs) {
  if (inputs.begin == 0 && inputs.end == layout.inputs) return {0, layout.panel_bytes(tiles), layout.inputs, 0};
  const std::int64_t unit = is_quantised(format) ? format.group : layout.word_inputs;
  const std::int64_t first = inputs.begin / unit * unit,
                     end = std::min((inputs.end + unit - 1) / unit * unit, layout.inputs);
  const PanelLayout cut(format, layout.outputs, end - first);
  const std::int64_t unit_bytes =
      is_quantised(format) ? layout.block_bytes(0, tiles) : tiles * tile_outputs * std::int64_t{sizeof(std::uint32_t)};
  return {first / unit * unit_bytes, cut.panel_bytes(tiles), end - first, inputs.begin - first};
}

class TaskList {
 public:
  void add(const io::StoreWeight& stored, std::uint64_t place, const WeightDeclaration& own,
           std::span<std::byte> room) {
    if (!own.part) {
      const auto step = static_cast<std::uint64_t>(read_bytes);
      for (std::uint64_t done = 0; done < room.size(); done += step)
        take(place + done, room.subspan(done, std::min<std::uint64_t>(step, room.size() - done)));
    } else if (is_vector(own.id.slot)) {
      std::size_t done = 0;
      for (const ShardRange& run : own.part.outputs) {
        const auto bytes = static_cast<std::size_t>(run.size()) * sizeof(float);
        take(place + static_cast<std::uint64_t>(run.begin) * sizeof(float), room.subspan(done, bytes));
        done += bytes;
      }
    } else {
      std::int64_t output = 0;
      for (const ShardRange& run : own.part.outputs) {
        add_run(stored, place, own, room, run, output);
        output += run.size();
      }
    }
  }

  [[nodiscard]] const std::vector<Task>& tasks() const noexcept { return tasks_; }
  [[nodiscard]] std::uint64_t bytes() const noexcept {
    std::uint64_t sum = 0;
    for (const Task& task : tasks_) sum += task.bytes;
    return sum;
  }

 private:
  void take(std::uint64_t offset, std::span<std::byte> room) {
    if (!room.empty()) tasks_.push_back({.offset = offset, .bytes = room.size(), .room = room});
  }

  /// A run of outputs, a few panels at a time.
  void add_run(const io::StoreWeight& stored, std::uint64_t place, const WeightDeclaration& own,
               std::span<std::byte> room, const ShardRange& run, std::int64_t first_output) {
    const PanelLayout layout(stored.format, stored.rows, stored.columns);
    const ShardRange& inputs = own.part.inputs;
    const bool whole_rows = inputs.begin == 0 && inputs.end == layout.inputs;
    const std::int64_t at_once =
        whole_rows ? std::max<std::int64_t>(1, read_bytes / layout.panel_bytes(panel_tiles)) : 1;
    for (std::int64_t output = run.begin; output < run.end;) {
      const std::int64_t panel = output / panel_outputs,
                         end_panel = std::min(panel + at_once, (run.end + panel_outputs - 1) / panel_outputs);
      const std::int64_t end = std::min(run.end, end_panel * panel_outputs);
      const std::int64_t last_output = std::min(layout.outputs, end_panel * panel_outputs);
      const PanelWindow window = window_of(layout, layout.tiles_of(panel), stored.format, inputs);
      const std::int64_t outputs = last_output - panel * panel_outputs;
      const std::int64_t bytes =
          whole_rows ? PanelLayout(stored.format, outputs, layout.inputs).total_bytes() : window.bytes;
      tasks_.push_back({.offset = place + static_cast<std::uint64_t>(layout.panel_offset(panel) + window.begin),
                        .bytes = static_cast<std::uint64_t>(bytes),
                        .room = room,
                        .as_it_stands = false,
                        .outputs = outputs,
                        .inputs = window.inputs,
                        .wanted = {output - panel * panel_outputs, end - panel * panel_outputs},
                        .first_input = window.first_input,
                        .first_output = first_output + output - run.begin,
                        .own_outputs = own.rows,
                        .own_inputs = own.columns,
                        .format = stored.format});
      output = end;
    }
  }

  std::vector<Task> tasks_;
};

void run(const Task& task, const io::File& file, io::Reader& reader, std::vector<std::byte>& scratch) {
  if (task.as_it_stands) return reader.read(file, task.offset, task.room);
  resize_scratch(scratch, static_cast<std::size_t>(task.bytes));
  const std::span<std::byte> read(scratch.data(), static_cast<std::size_t>(task.bytes));
  reader.read(file, task.offset, read);
  const PackedMatrix from{read.data(), task.outputs, task.inputs, task.format};
  copy_outputs({from, task.wanted, task.first_input}, task.room,
               PanelLayout(task.format, task.own_outputs, task.own_inputs), task.first_output);
}

/// What all ranks read.
TaskList tasks_of(RankWeights ranks, const PackedStore& store) {
  TaskList list;
  for (const ResidentWeights* weights : ranks) {
    const auto declared = weights->declarations();
    for (const WeightDeclaration& own : declared) {
      const auto stored = std::ranges::find(store.header.weights, own.id, &io::StoreWeight::id);
      check(stored != store.header.weights.end() && own.format == stored->format, to_string(own.id), " in ",
            to_string(own.format), " is not what the store has");
      list.add(*stored, store.header.segments[stored->segment].offset + stored->offset, own, weights->bytes(own.id));
    }
  }
  return list;
}

}  // namespace

std::uint64_t bytes_of_parts(RankWeights ranks, const PackedStore& store) { return tasks_of(ranks, store).bytes(); }

void load_parts(RankWeights ranks, const PackedStore& store, io::Reader& reader, ThreadTeam& team,
                const LoadProgress& progress) {
  const TaskList list = tasks_of(ranks, store);
  const std::vector<Task>& tasks = list.tasks();
  std::atomic<std::size_t> next{0};
  LoadMeter meter(list.bytes(), progress);
  team.run([&](int) {
    std::vector<std::byte> scratch;
    for (std::size_t i = next.fetch_add(1); i < tasks.size() && !meter.ended(); i = next.fetch_add(1)) {
      try {
        run(tasks[i], *store.file, reader, scratch);
        meter.add(tasks[i].bytes);
      } catch (...) {
        meter.end();
        throw;
      }
    }
  });
  store.file->verify_unchanged();
}

}  // namespace lamella
