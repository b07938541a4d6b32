#include "breaking_calls.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <mutex>
#include <string>
#include <vector>

namespace lamella::testing {
namespace {

// What was done and is not on the drive, as far as anybody was told.
struct Write {
  int file;
  std::int64_t begin, end;
};
struct Growth {
  int file;
  std::int64_t size_before;
};
/// A name that was given up for another. A file that was removed, or replaced, goes by `saved` meanwhile.
struct NameChange {
  std::string from, to, saved;
};

std::recursive_mutex mutex;  // the calls below call one another
bool armed = false, broken = false;
BreakingPoint point;
int calls = 0;
std::uint64_t random_state = 0;
std::vector<Write> writes, doomed;
std::vector<Growth> growths;
std::vector<NameChange> names;

std::int64_t size_of(int file) {
  struct stat status{};
  return ::fstat(file, &status) == 0 ? status.st_size : 0;
}

void really_write(int file, const void* from, std::size_t bytes, std::int64_t at) {
  static_cast<void>(::syscall(SYS_pwrite64, file, from, bytes, at));
}
void really_rename(const std::string& from, const std::string& to) {
  static_cast<void>(::renameat(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str()));
}
void really_unlink(const std::string& name) { static_cast<void>(::unlinkat(AT_FDCWD, name.c_str(), 0)); }

/// One of [0, count).
std::uint64_t draw(std::uint64_t count) {
  random_state = random_state * 6364136223846793005 + 1442695040888963407;
  return (random_state >> 33) % count;
}
bool toss() { return draw(2) != 0; }

/// Zeros in place of what was written; of `some`, about every other sector.
void lose(const Write& write, bool some) {
  constexpr std::int64_t sector = 512;
  const std::string zeros(sector, '\0');
  for (std::int64_t begin = write.begin; begin < write.end;) {
    const std::int64_t end = std::min({write.end, begin / sector * sector + sector, size_of(write.file)});
    if (end <= begin) return;
    if (!some || toss()) really_write(write.file, zeros.data(), static_cast<std::size_t>(end - begin), begin);
    begin = end;
  }
}

void lose_what_is_not_synced() {
  for (const Write& write : writes) lose(write, true);
  for (const Growth& growth : growths)
    if (toss()) static_cast<void>(::syscall(SYS_ftruncate, growth.file, growth.size_before));
  // The last changes of names are lost, or the last but few: a drive keeps the order of a folder's changes.
  for (std::size_t lost = draw(names.size() + 1); lost > 0; --lost) {
    const NameChange& change = names.back();
    if (!change.to.empty()) really_rename(change.to, change.from);
    if (!change.saved.empty()) really_rename(change.saved, change.to.empty() ? change.from : change.to);
    names.pop_back();
  }
}

void forget_saved_names() {
  for (const NameChange& change : names)
    if (!change.saved.empty()) really_unlink(change.saved);
  names.clear();
}

[[noreturn]] void die() {
  if (point.how == Break::lose_power) lose_what_is_not_synced();
  forget_saved_names();
  ::kill(::getpid(), SIGKILL);
  std::abort();  // not reached
}

enum class Verdict : std::uint8_t { go_on, fail, half };

/// Counts a call and says what becomes of it.
Verdict next_call() {
  if (!armed || calls++ != point.call) return Verdict::go_on;
  broken = true;
  switch (point.how) {
    case Break::fail: errno = point.error; return Verdict::fail;
    case Break::shorten: return Verdict::half;
    default: return Verdict::go_on;
  }
}
bool dies_now() { return armed && broken && (point.how == Break::kill || point.how == Break::lose_power); }

/// Another name for a file, in its folder.
std::string saved_name(const std::string& name) {
  std::string saved = name + ".saved";
  return ::link(name.c_str(), saved.c_str()) == 0 ? saved : "";
}

}  // namespace

void break_calls(const BreakingPoint& at) {
  point = at;
  random_state = at.seed;
  calls = 0;
  armed = true;
}

void end_broken(int code) {
  const std::lock_guard lock(mutex);
  for (const Write& write : doomed) lose(write, false);
  forget_saved_names();
  ::_exit(code);
}

bool has_broken() { return broken; }

}  // namespace lamella::testing

using namespace lamella::testing;

extern "C" {

ssize_t pwrite(int file, const void* from, std::size_t bytes, off_t at) {
  const std::lock_guard lock(mutex);
  const Verdict verdict = next_call();
  if (verdict == Verdict::fail) return -1;
  if (verdict == Verdict::half || dies_now()) bytes = (bytes + 1) / 2;
  const auto put = ::syscall(SYS_pwrite64, file, from, bytes, at);
  if (armed && put > 0) writes.push_back({file, at, at + put});
  if (dies_now()) die();
  return put;
}

int fsync(int file) {
  const std::lock_guard lock(mutex);
  if (!armed) return 0;
  const Verdict verdict = next_call();
  if (dies_now()) die();
  struct stat status{};
  if (::fstat(file, &status) == 0 && S_ISDIR(status.st_mode)) {
    if (verdict == Verdict::fail) return -1;
    forget_saved_names();
    return 0;
  }
  const auto of_file = [&](const auto& change) { return change.file == file; };
  if (verdict == Verdict::fail) {
    std::ranges::copy_if(writes, std::back_inserter(doomed), of_file);
    std::erase_if(writes, of_file);
    return -1;
  }
  std::erase_if(writes, of_file);
  std::erase_if(growths, of_file);
  return 0;
}

int fallocate(int file, int mode, off_t offset, off_t length) {
  const std::lock_guard lock(mutex);
  if (next_call() == Verdict::fail) return -1;
  if (dies_now()) die();
  if (armed) growths.push_back({file, size_of(file)});
  return static_cast<int>(::syscall(SYS_fallocate, file, mode, offset, length));
}

int ftruncate(int file, off_t length) noexcept {
  const std::lock_guard lock(mutex);
  if (next_call() == Verdict::fail) return -1;
  if (dies_now()) die();
  if (armed && length > size_of(file)) growths.push_back({file, size_of(file)});
  return static_cast<int>(::syscall(SYS_ftruncate, file, length));
}

int rename(const char* from, const char* to) noexcept {
  const std::lock_guard lock(mutex);
  if (next_call() == Verdict::fail) return -1;
  if (dies_now()) die();
  if (armed) names.push_back({from, to, saved_name(to)});
  return ::renameat(AT_FDCWD, from, AT_FDCWD, to);
}

int unlink(const char* name) noexcept {
  const std::lock_guard lock(mutex);
  if (next_call() == Verdict::fail) return -1;
  if (dies_now()) die();
  if (armed) names.push_back({name, "", saved_name(name)});
  return ::unlinkat(AT_FDCWD, name, 0);
}

}  // extern "C"
