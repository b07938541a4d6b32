// What ranks do together within a plan, as kernels of one rank: its first worker meets the other ranks.
#pragma once

#include <cstdint>
#include <vector>

#include "comm/communicator.h"
#include "cpu/kernels/contracts.h"

namespace lamella::cpu {

/// y = the sum of all ranks' x.
struct AllReduceArgs {
  comm::Communicator* ranks;
  const void* x;  // [tokens][width]
  void* y;  // [tokens][width]
  DataType type;
  std::int64_t tokens, width;
};

/// y = all ranks' x side by side.
struct AllGatherArgs {
  comm::Communicator* ranks;
  const void* x;  // [tokens][this rank's columns]
  void* y;  // [tokens][all columns]
  std::vector<std::size_t> widths;  // bytes of a row that come from each rank
  std::int64_t tokens;
};

/// Of each row the best of what ranks found (BestTokenArgs), whose tokens rise from rank to rank.
struct BestOfRanksArgs {
  const float* x;  // [tokens][ranks][2]
  float* y;  // [tokens][2]
  std::int64_t tokens, ranks;
};

/// What the stage before sends.
struct ReceiveArgs {
  comm::Communicator* stages;
  void* y;  // [tokens][width]
  std::int64_t row_bytes, tokens;
};

/// For the next stage.
struct SendArgs {
  comm::Communicator* stages;
  const void* x;  // [tokens][width]
  std::int64_t row_bytes, tokens;
};

/// Errors: those of the communicator.
void all_reduce(const AllReduceArgs& args, const Worker& worker);
void all_gather(const AllGatherArgs& args, const Worker& worker);
void best_of_ranks(const BestOfRanksArgs& args, const Worker& worker);
void receive(const ReceiveArgs& args, const Worker& worker);
void send(const SendArgs& args, const Worker& worker);

}  // namespace lamella::cpu
