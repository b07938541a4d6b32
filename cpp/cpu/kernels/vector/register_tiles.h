// The shapes of the register tiles that a target header chooses.
#pragma once

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// A tile of `vectors` vectors of outputs and at most `tokens` tokens: vectors * tokens sums stay in registers.
struct RegisterTile {
  int vectors, tokens;
};

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
