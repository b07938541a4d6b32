// The shapes of the register tiles that a target header chooses.
#pragma once

namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE {
namespace {

/// A tile of `vectors` vectors of outputs and at most `tokens` tokens: vectors * tokens sums stay in registers.
struct RegisterTile {
  int vectors, tokens;
};

/// Two tiles for a kind of product: one that walks whole panels, for few tokens, and one for many, whose weights serve
/// more tokens.
struct RegisterTiles {
  RegisterTile few, many;
};

}  // namespace
}  // namespace lamella::cpu::LAMELLA_KERNEL_NAMESPACE
