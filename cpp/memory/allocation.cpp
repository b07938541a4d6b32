#include "memory/allocation.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <system_error>
#include <utility>

#include "base/check.h"

namespace lamella {
namespace {

std::uint64_t free_memory() {
  const long pages = sysconf(_SC_AVPHYS_PAGES), bytes = sysconf(_SC_PAGESIZE);
  return pages < 0 || bytes < 0 ? 0 : static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(bytes);
}

std::string address_space() {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return "no limit is set on the process";
  return concat("the process may have ", limit.rlim_cur, " in all (ulimit -v)");
}

}  // namespace

Allocation::Allocation(std::size_t bytes, std::string_view purpose) {
  if (bytes == 0) return;
  void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) {
    const std::string cause = std::generic_category().message(errno);
    throw Error(ErrorCode::out_of_memory,
                concat("the operating system refused ", bytes, " bytes for ", purpose, " (", cause, "); ",
                       free_memory(), " bytes of memory are unused, and ", address_space(),
                       "; use a smaller model, max_model_len or max_num_seqs"));
  }
  // Huge pages spare the TLB when weights stream through; a kernel without them ignores the advice, so its result is
  // not checked.
  static_cast<void>(madvise(mapped, bytes, MADV_HUGEPAGE));
  data_ = static_cast<std::byte*>(mapped);
  size_ = bytes;
}

Allocation::~Allocation() {
  if (data_ != nullptr) munmap(data_, size_);
}

Allocation::Allocation(Allocation&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Allocation& Allocation::operator=(Allocation&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace lamella
