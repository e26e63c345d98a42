// A network as the engine of inference is given it: values, and the operations that make them, in their order.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "../correlation.h"

namespace lth_sparse::inference {

/// A value without its batch. Linear layers' are images of one pixel.
struct Shape {
  int64_t channels, height, width;

  int64_t pixels() const { return height * width; }
  bool operator==(const Shape&) const = default;
};

/// What every number is put between before it is stored; NaN stays.
struct Bounds {
  float least = -std::numeric_limits<float>::infinity(), greatest = std::numeric_limits<float>::infinity();
};

enum class Kind : int64_t { kInput, kOutput, kConvolution, kMaxPool, kAveragePool, kGlobalAverage, kAdd, kClamp, kConcatenate };
constexpr int64_t kKinds = 9;

/// The live weights of a convolution, row by row; a column is channel of the group * taps + tap.
struct Weights {
  std::vector<int32_t> row_offsets, columns;
  std::vector<float> values;

  int64_t live() const { return static_cast<int64_t>(values.size()); }
};

struct Operation {
  Kind kind;
  int64_t result;                 // Of an output: which of the outputs.
  std::vector<int64_t> operands;  // Values. Of an input: which of the inputs.
  /// Of a convolution; kernel, stride, padding and dilation also of a pool.
  Convolution window;
  Weights weights;
  std::vector<float> bias;
  /// Of a convolution: a value that is added before the bounds, or -1.
  int64_t added = -1;
  Bounds bounds;
};

struct Description {
  std::vector<Shape> values;
  std::vector<Operation> operations;
  int64_t inputs = 0, outputs = 0;
};

}  // namespace lth_sparse::inference
