// Depthwise convolutions, each channel by itself: groups == in_channels == out_channels.
//
// The kernels work on the dense weight, in which what is pruned is a 0 like other weights: a kernel of 3 x 3 has too few
// weights to gain by leaving some out, and a step of such a layer takes what it takes to read and write its images. So each
// pass reads and writes each image once, with as little beside it as a layout allows:
//
//     channels_last    rows.h            channels in the lanes, 2 x 2 outputs at a time, read where they lie
//     contiguous       planes.h          a row's pixels in the lanes, 4 rows at a time, read where they lie
//     small planes     small_planes.h    transposed in L1, where rows fill half of a vector at most
//
// Measured on Zen 5, 2 cores, the layers of mobilenet_v2 at 224 pixels, batch 8, sides in turn, x and y counted once, for what
// L3 does not hold (18 to 48 MB a pass; a copy of 64 MB by itself has 97 GB/s): 37 to 98 GB/s in rows, 28 to 59 in planes. From
// L2, 36 products take 32 cycles in planes and 46 in rows, where the multipliers need 18; in a loop like that of planes, half of
// the difference is gone without its stores, and why rows take longer is not known.
// Outputs streamed from 8 MB on, not 16, made these layers 1.1 times faster by themselves, and a step of the network no faster.
//
// All float32. No result depends on the number of threads.
#pragma once

#include <array>
#include <cstdint>

#include "../correlation.h"
#include "../parallel.h"

namespace lth_sparse {

struct DepthwiseLayer {
  SparseRows weights;  // of the forward pass
  Images in, out;      // of the forward pass, both in one layout
  std::array<int64_t, 2> padding;

  bool channels_last() const { return in.channels_last; }
};

/// One pass over the images of a layer, as the kernels for either layout take it.
struct DepthwisePass {
  Images in, out;                  // what is read, and what is written or, for grad_weight, grad_out
  std::array<int64_t, 2> padding;  // before the input, in rows and columns; negative where its first ones are left out
  const float* x;
  const float* weights;            // all taps of all channels
  int64_t tap_step;                // elements from a tap to the next
  const float* bias;               // [channels] or null
  bool relu;
  float* y;
};

struct DepthwiseKernels {
  /// y = the output for x, with bias [channels] or null; what is below 0 becomes 0 if `relu`.
  void (*forward)(const DepthwiseLayer&, const float* x, const float* values, const float* bias, bool relu, float* y,
                  const Parallel&);
  void (*grad_input)(const DepthwiseLayer&, const float* grad_out, const float* values, float* grad_x, const Parallel&);
  void (*grad_weight)(const DepthwiseLayer&, const float* x, const float* grad_out, float* grad_values, const Parallel&);
};

/// The kernels for a layer that `has_depthwise` is true of; null where this build has none.
const DepthwiseKernels* depthwise_avx512(const Convolution&);
const DepthwiseKernels* depthwise_avx2(const Convolution&);
const DepthwiseKernels* depthwise_portable(const Convolution&);

/// Whether the kernels compute the layer.
inline bool has_depthwise(const Convolution& c) {
  const int64_t kernel = c.kernel[0], stride = c.stride[0];
  return c.groups == c.in_channels && c.groups == c.out_channels && c.kernel[1] == kernel && c.stride[1] == stride &&
         (kernel == 3 || kernel == 5) && stride <= 2 && c.dilation[0] == 1 && c.dilation[1] == 1;
}

}  // namespace lth_sparse
