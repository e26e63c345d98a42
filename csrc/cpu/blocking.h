// Chooses how a correlation is cut into tasks, tiles and blocks: see Blocking in scratch.h.
#pragma once

#include "correlation.h"
#include "element.h"
#include "scratch.h"

namespace lth_sparse {

/// What an instruction set offers.
struct Machine {
  int widest;     // lanes of its longest vector
  int registers;  // of that length
};

/// How to compute `correlation` with `nnz` live weights, of tensors of such elements, or the gradient of these weights if
/// `summed`.
///
/// `threads` decides only into how many chunks of output channels the work is cut, which does not change the bits.
Blocking choose_blocking(const Correlation& correlation, int64_t nnz, Element element, const Machine& machine,
                         int64_t threads, bool summed);

}  // namespace lth_sparse
