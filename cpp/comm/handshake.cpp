#include "comm/handshake.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <numeric>
#include <vector>

#include "base/check.h"
#include "base/checksum.h"

namespace lamella::comm {
namespace {

using Digest = std::array<std::byte, 32>;

/// What ranks show first: of everything, and how long the table is that they show where it differs.
struct Summary {
  Digest digest{};
  std::uint64_t table_bytes = 0;
};
static_assert(sizeof(Summary) == 40);

/// One part's row in the table; longer labels are cut.
struct Row {
  std::array<char, 32> label{};
  Digest digest{};
};

std::vector<Row> table_of(std::span<const HandshakePart> parts) {
  std::vector<Row> table;
  for (const HandshakePart& part : parts) {
    Row& row = table.emplace_back();
    std::copy_n(part.label.data(), std::min(part.label.size(), row.label.size() - 1), row.label.data());
    Sha256 digest;
    digest.update(part.content);
    row.digest = digest.digest();
  }
  return table;
}

/// The labels of the parts that two ranks have not alike, those that only one has among them.
std::vector<std::string> differing(std::span<const Row> first, std::span<const Row> other) {
  std::map<std::string, Digest> expected;
  std::vector<std::string> labels;
  const auto label_of = [](const Row& row) { return std::string(row.label.data(), strnlen(row.label.data(), 32)); };
  for (const Row& row : first) expected[label_of(row)] = row.digest;
  for (const Row& row : other) {
    const auto found = expected.find(label_of(row));
    if (found == expected.end() || found->second != row.digest) labels.push_back(label_of(row));
    if (found != expected.end()) expected.erase(found);
  }
  for (const auto& left : expected) labels.push_back(left.first);
  std::ranges::sort(labels);
  return labels;
}

std::string joined(std::span<const std::string> words) {
  std::string text;
  for (std::size_t i = 0; i < words.size(); ++i)
    text += (i == 0 ? "" : i + 1 == words.size() ? " and " : ", ") + words[i];
  return text;
}

/// "rank 1 differs in model; ranks 2 and 3 differ in options and version": ranks that differ in the same stand
/// together.
std::string differences(const Communicator& ranks, std::span<const std::vector<Row>> tables) {
  std::map<std::string, std::vector<std::string>> ranks_by_parts;
  for (std::size_t member = 1; member < tables.size(); ++member) {
    std::vector<std::string> labels = differing(tables[0], tables[member]);
    for (std::string& label : labels) label = lamella::quoted(label);
    if (labels.empty()) labels.emplace_back("the order of the parts");
    if (tables[member].size() != tables[0].size() ||
        std::memcmp(tables[member].data(), tables[0].data(), tables[0].size() * sizeof(Row)) != 0)
      ranks_by_parts[joined(labels)].push_back(std::to_string(ranks.members().ranks[member]));
  }
  std::string text;
  for (const auto& [labels, numbers] : ranks_by_parts)
    text += concat(text.empty() ? "" : "; ", numbers.size() == 1 ? "rank " : "ranks ", joined(numbers),
                   numbers.size() == 1 ? " differs in " : " differ in ", labels);
  return text;
}

}  // namespace

void shake_hands(Communicator& ranks, std::span<const HandshakePart> parts, std::chrono::milliseconds timeout) {
  ranks.barrier(timeout);

  const std::vector<Row> mine = table_of(parts);
  const Bytes my_table = std::as_bytes(std::span(mine));
  Summary summary{.table_bytes = my_table.size()};
  Sha256 digest;
  digest.update(my_table);
  summary.digest = digest.digest();
  const auto size = static_cast<std::size_t>(ranks.size());
  std::vector<Summary> summaries(size);
  ranks.all_gather(std::as_bytes(std::span(&summary, 1)), std::as_writable_bytes(std::span(summaries)),
                   std::vector<std::size_t>(size, sizeof(Summary)));
  const auto is_mine = [&](const Summary& other) {
    return other.digest == summary.digest && other.table_bytes == summary.table_bytes;
  };
  if (std::ranges::all_of(summaries, is_mine)) return;

  std::vector<std::size_t> widths;
  widths.reserve(size);
  for (const Summary& each : summaries) widths.push_back(each.table_bytes);
  std::vector<std::byte> all(std::accumulate(widths.begin(), widths.end(), std::size_t{0}));
  ranks.all_gather(my_table, all, widths);
  std::vector<std::vector<Row>> tables;
  const std::byte* place = all.data();
  for (const std::size_t width : widths) {
    std::vector<Row>& table = tables.emplace_back(width / sizeof(Row));
    if (width > 0) std::memcpy(table.data(), place, width);
    place += width;
  }
  throw Error(ErrorCode::rank_failed,
              concat("ranks do not run the same: beside rank ", ranks.members().ranks[0], ", ",
                     differences(ranks, tables), "; all must be started with the same version, model and options"));
}

}  // namespace lamella::comm
