// What the library of the autograd node calls in that of the kernels, which is loaded before it: functions by their addresses.
//
// Both are compiled of the same sources, or what they hand to each other would not fit: `sources` says of which.
#pragma once

#include "passes.h"

namespace lth_sparse {

struct KernelTable {
  const char* sources;
  decltype(&lth_sparse::sparse_forward) sparse_forward;
  decltype(&lth_sparse::sparse_grad_input) sparse_grad_input;
  decltype(&lth_sparse::sparse_grad_weight) sparse_grad_weight;
  decltype(&lth_sparse::winograd_forward) winograd_forward;
  decltype(&lth_sparse::winograd_grad_input) winograd_grad_input;
  decltype(&lth_sparse::winograd_grad_weight) winograd_grad_weight;
  decltype(&lth_sparse::depthwise_forward) depthwise_forward;
  decltype(&lth_sparse::depthwise_grad_input) depthwise_grad_input;
  decltype(&lth_sparse::depthwise_grad_weight) depthwise_grad_weight;
  decltype(&lth_sparse::scatter_values) scatter_values;
  decltype(&lth_sparse::gather_values) gather_values;
  decltype(&lth_sparse::relu_backward) relu_backward;
};

}  // namespace lth_sparse
