// What the node knows of a layer and its mask: the matrix, and which kernels compute what.
#pragma once

#include <ATen/ATen.h>
#include <c10/core/SafePyObject.h>

#include <array>
#include <optional>
#include <vector>

#include "../cpu/correlation.h"
#include "../cpu/dense_weight.h"
#include "../dtypes.h"

namespace lth_sparse {

/// The kernels of one pass: 2 and 4 are Winograd's algorithm in tiles of so many outputs a side, 3 those of depthwise layers, 5
/// PyTorch's own operators on the dense weight.
enum Kernels : int { kUnasked = -1, kPython = 0, kSparse = 1, kWinograd2 = 2, kDepthwise = 3, kWinograd4 = 4, kDense = 5 };

struct Passes {
  int forward, grad_input, grad_weight;

  bool in_python() const { return forward == kPython || grad_input == kPython || grad_weight == kPython; }
};

/// What the choice of kernels depends on.
struct Question {
  std::array<int64_t, 4> x;
  int threads;
  Element element;
  bool channels_last, grad_x, grad_values;

  bool operator==(const Question&) const = default;
};

/// The tensor in one of the two dense layouts: copied into the contiguous one where it is in neither.
at::Tensor in_dense_layout(const at::Tensor& tensor);

class LayerPlan {
 public:
  /// `tensors`: mask, row_offsets, columns, and row_offsets, columns and order of the transposed matrix. `choose` answers a
  /// question, `gradients` is the backward pass in Python: lth_sparse/backends/autograd_node.py. Throws where the tensors are not
  /// those of such a layer; what is in the indices the kernels check, which read them.
  LayerPlan(std::vector<at::Tensor> tensors, const Convolution& convolution, bool linear, PyObject* choose,
            PyObject* gradients);

  /// The kernels for it, asked for once. Nothing while Python does not know them yet. Throws where Python names kernels that the
  /// layer has not. Takes the GIL to be held.
  std::optional<Passes> passes(const Question& question);

  /// The gradients of x, values and bias that are needed, by Python; x and values where they were kept.
  std::array<at::Tensor, 3> gradients(const at::Tensor& grad_out, const at::Tensor& x, const at::Tensor& values,
                                      at::IntArrayRef x_sizes, std::array<bool, 3> needed) const;

  /// Whether the matrices still end where their tensors do: anybody may have written to them since.
  bool is_whole() const;

  /// Whether `values` are of a dtype of the kernels, as many as the plan has, one after the other, and it is whole.
  bool has_numbers(const at::Tensor& values) const;

  /// Whether `out`, the output or its gradient, has the sizes of the output for `x`, and lies as that does.
  bool has_output(const Images& x, const Images& out) const;

  /// [out, in], or [out, in / groups, kernel height, kernel width], in one of the two dense layouts: one that was loaded may have any.
  const at::Tensor& mask() const { return mask_; }

  /// Where the live weights are in a dense weight, which is channels_last or contiguous.
  LiveWeights live(bool channels_last) const;

  /// Makes every plan ask again.
  static void forget() { ++generation_; }

  const std::vector<at::Tensor> tensors;
  const Convolution convolution;
  const bool linear;
  const SparseRows rows, transposed;

 private:
  struct Answer {
    Question question;
    Passes passes;
  };

  const at::Tensor mask_;
  c10::SafePyObject choose_, gradients_;
  std::vector<Answer> answers_;
  int64_t answers_generation_ = 0;
  static int64_t generation_;
};

}  // namespace lth_sparse
