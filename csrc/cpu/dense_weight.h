// Between the values of a sparse layer and the dense weight that PyTorch's own operators take.
//
// scatter goes through the mask in order, without a branch on it, for every element has to be written: 1.5 cycles each at any
// density, where storing at the column indices takes up to 7. gather follows the indices. A row at a time stays in L1, so that
// a channels_last weight, whose taps lie apart, costs no more than a contiguous one. Only bits are moved: one element type
// serves all of its size.
#pragma once

#include <cstdint>

#include "parallel.h"

namespace lth_sparse {

/// Where the live weights of a weight [rows, channels, taps] are. Its rows lie as [taps, channels] if it is channels_last.
struct LiveWeights {
  const bool* mask;
  const int32_t* row_offsets;  // [rows + 1]
  const int32_t* columns;      // [nnz]: channel * taps + tap, ascending within a row
  int64_t rows, channels, taps;
  bool channels_last;       // the weight
  bool mask_channels_last;  // the mask, as a whole model that is converted leaves it

  int32_t nnz() const { return row_offsets[rows]; }
  int64_t row_size() const { return channels * taps; }
};

/// weight = values [nnz] where the mask is set, 0 elsewhere. Reads mask and row_offsets, and throws where they do not agree.
template <typename T>
void scatter(const LiveWeights& live, const T* values, T* weight, const Parallel& parallel);

/// values [nnz] = weight at the columns. Throws where those are not of this weight.
template <typename T>
void gather(const LiveWeights& live, const T* weight, T* values, const Parallel& parallel);

}  // namespace lth_sparse
