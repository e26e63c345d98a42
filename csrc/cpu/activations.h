// What lies between a network's convolutions, fused: BatchNorm (+ residual) (+ ReLU or another clamp) (+ 2x2 max-pool), ReLU +
// 2x2 max-pool.
//
// A step spends here what memory takes: each kernel reads and writes each tensor as seldom as it can. The backward pass
// reads x and the gradient alone, for it works out from x again what the clamp let pass, by the forward pass's own arithmetic;
// where a residual was added it reads the output instead. A pool notes a byte for each of its outputs: which of its four inputs was
// taken, in rows, or 4 where ReLU let none pass.
//
// All float32. No result depends on the number of threads.
#pragma once

#include <cstdint>

#include "correlation.h"
#include "parallel.h"

namespace lth_sparse {

/// A BatchNorm's constants and statistics, [channels] each.
struct BatchNorm {
  const float* weight;     // or null: 1
  const float* bias;       // or null: 0
  float* mean;             // what x is normalised with: of the batch or, in evaluation mode, given
  float* inverse_deviation;
  bool of_batch;           // whether it is of the batch
};

/// What is done to a number at last: it becomes least if it is less, and greatest if it is more. ReLU is that with 0 and
/// infinity. Its gradient passes, except where the number is `blocked_to` or less, or `blocked_from` or more: NaN for none.
struct Clamp {
  float least, greatest;
  float blocked_to, blocked_from;
};

struct BatchNormForward {
  Images images;           // of x
  const float* x;
  const float* residual;   // added before the clamp, or null; not with a pool
  Clamp clamp;             // ReLU with a pool
  BatchNorm norm;
  float* running_mean;     // or null; not in evaluation mode
  float* running_var;
  double momentum, epsilon;
  float* out;              // of x's shape or, with a pool, of half its height and width
  uint8_t* taken;          // of out's shape, or null without a pool
};

struct BatchNormBackward {
  Images images;           // of x
  const float* x;
  const float* out;        // where a residual was added and the sum clamped, else null
  const float* grad_out;
  const uint8_t* taken;    // or null without a pool
  Clamp clamp;
  BatchNorm norm;
  float* grad_x;
  float* grad_residual;    // where `out` is given
  float* grad_weight;      // [channels]
  float* grad_bias;
};

struct Activations {
  void (*batch_norm)(const BatchNormForward&, const Parallel&);
  void (*batch_norm_backward)(const BatchNormBackward&, const Parallel&);
  /// `images` are x's. out, taken: half its height and width.
  void (*relu_max_pool)(const Images& images, const float* x, float* out, uint8_t* taken, const Parallel&);
  void (*relu_max_pool_backward)(const Images& images, const float* grad_out, const uint8_t* taken, float* grad_x,
                                 const Parallel&);
  /// Of ReLU, which gave `out`. sums: [channels], of grad_x, the gradient of a bias before it.
  void (*relu_backward)(const Images& images, const float* out, const float* grad_out, float* grad_x, float* sums,
                        const Parallel&);
  /// The same sums where a pool came after ReLU. `images` are those of grad_out.
  void (*sums_of_pooled)(const Images& images, const float* grad_out, const uint8_t* taken, float* sums, const Parallel&);
};

/// Null where this build has none.
const Activations* avx512_activations();
const Activations* avx2_activations();
const Activations* portable_activations();

}  // namespace lth_sparse
