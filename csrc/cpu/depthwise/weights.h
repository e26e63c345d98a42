// The live weights of a depthwise layer as the table of a dense one, and gradients of that table back.
#pragma once

#include <cstdint>

#include "../correlation.h"

namespace lth_sparse {

/// Where the weight of a channel and a tap lies in a table.
struct TapTable {
  int64_t channels, taps, channel_step, tap_step;
  bool turned;  // by half: the last tap comes first

  int64_t at(int64_t channel, int64_t tap) const {
    return channel * channel_step + (turned ? taps - 1 - tap : tap) * tap_step;
  }
};

/// Into a table of zeros. Throws where the rows are not those of a mask of the layer.
void scatter_taps(const SparseRows& rows, const float* values, const TapTable& table, float* weights);

/// The entries of live weights. Throws likewise.
void gather_taps(const SparseRows& rows, const float* weights, const TapTable& table, float* values);

}  // namespace lth_sparse
