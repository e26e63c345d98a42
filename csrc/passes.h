// The passes of a layer on plain memory: what the operators call once they have checked what they were given, and the autograd
// node (autograd/) calls without an operator.
//
// Images are in one of the two contiguous layouts, of floats or of what `element` says; values, bias and the gradient of the
// values follow. `rows` are the forward pass's matrix, `transposed` its transposed one.
#pragma once

#include "cpu/correlation.h"
#include "cpu/dense_weight.h"
#include "cpu/element.h"

namespace lth_sparse {

/// `bias` may be null. What is below 0 becomes 0 if `relu`.
void sparse_forward(const Convolution& layer, const SparseRows& rows, Images x_images, Images out_images, Element element,
                    const void* x, const void* values, const void* bias, bool relu, void* out);
void sparse_grad_input(const Convolution& layer, const SparseRows& rows, const SparseRows& transposed, Images out_images,
                       Images x_images, Element element, const void* grad_out, const void* values, void* grad_x);
void sparse_grad_weight(const Convolution& layer, const SparseRows& rows, Images x_images, Images out_images, Element element,
                        const void* x, const void* grad_out, void* grad_values);

/// By Winograd's algorithm in tiles of `tile` x `tile` outputs, which is 2 or 4, for a layer that has_winograd.
void winograd_forward(const Convolution& layer, const SparseRows& rows, Images x_images, Images out_images, int tile,
                      const float* x, const float* values, const float* bias, bool relu, float* out);
void winograd_grad_input(const Convolution& layer, const SparseRows& rows, Images out_images, Images x_images, int tile,
                         const float* grad_out, const float* values, float* grad_x);
void winograd_grad_weight(const Convolution& layer, const SparseRows& rows, Images x_images, Images out_images, int tile,
                          const float* x, const float* grad_out, float* grad_values);

/// For a layer that has_depthwise. x and grad_out are in one layout.
void depthwise_forward(const Convolution& layer, const SparseRows& rows, Images x_images, Images out_images, const float* x,
                       const float* values, const float* bias, bool relu, float* out);
void depthwise_grad_input(const Convolution& layer, const SparseRows& rows, Images out_images, Images x_images,
                          const float* grad_out, const float* values, float* grad_x);
void depthwise_grad_weight(const Convolution& layer, const SparseRows& rows, Images x_images, Images out_images, const float* x,
                           const float* grad_out, float* grad_values);

/// The values [nnz] in a dense weight, 0 where pruned, and those of a dense weight. Elements have `bytes`: 2, 4 or 8.
void scatter_values(const LiveWeights& live, int64_t bytes, const void* values, void* weight);
void gather_values(const LiveWeights& live, int64_t bytes, const void* weight, void* values);

/// ReLU's gradient, where ReLU gave `out`, and, in `sums` of [channels], the gradient of a bias before it. Images alike.
void relu_backward(const Images& images, const float* out, const float* grad_out, float* grad_x, float* sums);

}  // namespace lth_sparse
