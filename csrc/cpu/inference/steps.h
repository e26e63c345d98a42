// What a network does to a group of images, step by step, in one layout. A step is cut into tasks, which threads take as they
// come; no task writes what another one of the step reads or writes.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "../parallel.h"
#include "description.h"
#include "kernels.h"
#include "layout.h"

namespace lth_sparse::inference {

/// What the steps of a run read and write. Images of inputs and outputs are [channels][height][width].
struct Frame {
  float* const* buffers;
  const float* const* inputs;
  float* const* outputs;
  int images;  // of this group: at most as many as there are lanes, or 1
};

class Step {
 public:
  virtual ~Step() = default;
  virtual int64_t tasks() const = 0;
  virtual void run(const Frame& frame, int64_t begin, int64_t end) const = 0;
};

/// A value, as steps see it.
struct Operand {
  Shape shape;
  Halo halo;
  Placement place;
};

struct Planner {
  const Kernels& kernels;
  Layout layout;
  int threads;  // for how many to cut the work up

  std::unique_ptr<Step> input(int64_t index, const Operand& result) const;
  std::unique_ptr<Step> output(int64_t index, const Operand& value) const;
  /// `added` may be null.
  std::unique_ptr<Step> convolution(const Operation& operation, const Operand& in, const Operand* added, const Operand& out) const;
  std::unique_ptr<Step> pool(const Operation& operation, const Operand& in, const Operand& out) const;
  std::unique_ptr<Step> global_average(const Operand& in, const Operand& out) const;
  /// a (+ b), clamped; `b` may be null.
  std::unique_ptr<Step> combine(const Bounds& bounds, const Operand& a, const Operand* b, const Operand& out) const;
};

/// How far beyond an image a layer of this layout reads in it, for which there must be zeros.
Halo reach(const Layout& layout, const Operation& operation, const Shape& in, const Shape& out);

}  // namespace lth_sparse::inference
