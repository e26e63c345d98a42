// 3 x 3 convolutions of stride 1 by Winograd's algorithm (Lavin and Gray, "Fast Algorithms for Convolutional Neural
// Networks", 2016), as the operators call it.
//
// A tile of M x M outputs comes from a patch of (M + 2) x (M + 2) inputs. Patch and weights are transformed to as many points,
// a product at each point takes the place of nine per output, and a transform of the products is the tile: 2.25 products an
// output for M = 4, 4 for M = 2. Whatever is pruned is a 0 like other weights, so the time does not depend on density: it is
// for the rounds in which most weights live. The three passes of a layer are
//
//     forward, grad_input     m[point] = u[point] . v[point]      products over channels, for every tile
//     grad_weight             u[point] = v[point] . z[point]      products over tiles, for every pair of channels
//
// where u are transformed weights, v patches of the input and z tiles of grad_out. Sums are of at most 64 channels or 128
// tiles before they are added in memory, always in the same order: results do not depend on the number of threads.
//
// Error. The products are as exact as any, but the transforms take differences of inputs and of products, whose rounding the
// result inherits. For M = 4 the points are 0, +-5/8, +-3/2 and infinity, a quarter of the error of the usual 0, +-1, +-2. An
// input that is not finite spoils the outputs of every tile whose patch holds it (up to 6 x 6 of them, where the convolution
// itself would spoil 3 x 3), as NaN: the transforms subtract infinities.
#pragma once

#include <array>
#include <cstdint>

#include "../correlation.h"
#include "../parallel.h"

namespace lth_sparse {

struct WinogradKernels {
  /// out = the correlation of `in`, with bias [out.channels] or null; what is below 0 becomes 0 if `relu`. `weights`: the rows
  /// of the forward pass, of which the correlation is grad_input's if `transposed`. `tile`: M, 4 or 2.
  void (*correlate)(const Correlation&, const SparseRows& weights, bool transposed, int tile, int threads, const float* in,
                    const float* values, const float* bias, bool relu, float* out, const Parallel&);
  /// The gradient of the values. The correlation is the forward pass's.
  void (*grad_weight)(const Correlation&, const SparseRows& weights, int tile, int threads, const float* in,
                      const float* grad_out, float* grad_values, const Parallel&);
};

/// Null where this build has none.
const WinogradKernels* winograd_avx512();
const WinogradKernels* winograd_avx2();
const WinogradKernels* winograd_portable();

/// Whether Winograd's algorithm computes the layer.
inline bool has_winograd(const Convolution& c) {
  bool fits = c.groups == 1;
  for (int d = 0; d < 2; ++d)
    fits = fits && c.kernel[d] == 3 && c.stride[d] == 1 && c.dilation[d] == 1 && c.padding[d] <= 2;
  return fits;
}

}  // namespace lth_sparse
