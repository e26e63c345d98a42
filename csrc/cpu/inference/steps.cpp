#include "steps.h"

#include <algorithm>
#include <limits>

#include "taps.h"

namespace lth_sparse::inference {
namespace {

class InputStep : public Step {
 public:
  InputStep(const Planner& planner, int64_t index, const Operand& result)
      : kernels_(planner.kernels), layout_(planner.layout), index_(index), result_(result) {}

  int64_t tasks() const override { return result_.shape.channels * result_.shape.height; }
  void run(const Frame& frame, int64_t begin, int64_t end) const override {
    const Shape& shape = result_.shape;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t channel = task / shape.height, y = task % shape.height;
      const float* const from = frame.inputs[index_] + task * shape.width;
      float* const to = frame.buffers[result_.place.buffer] + result_.place.at(channel, y, 0);
      if (layout_.of_images)
        kernels_.images_to_lanes(from, shape.channels * shape.pixels(), frame.images, shape.width, to);
      else
        std::copy(from, from + shape.width, to);
    }
  }

 private:
  const Kernels& kernels_;
  Layout layout_;
  int64_t index_;
  Operand result_;
};

class OutputStep : public Step {
 public:
  OutputStep(const Planner& planner, int64_t index, const Operand& value)
      : kernels_(planner.kernels), layout_(planner.layout), index_(index), value_(value) {}

  int64_t tasks() const override { return value_.shape.channels * value_.shape.height; }
  void run(const Frame& frame, int64_t begin, int64_t end) const override {
    const Shape& shape = value_.shape;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t channel = task / shape.height, y = task % shape.height;
      const float* const from = frame.buffers[value_.place.buffer] + value_.place.at(channel, y, 0);
      float* const to = frame.outputs[index_] + task * shape.width;
      if (layout_.of_images)
        kernels_.lanes_to_images(from, shape.width, to, shape.channels * shape.pixels(), frame.images);
      else
        std::copy(from, from + shape.width, to);
    }
  }

 private:
  const Kernels& kernels_;
  Layout layout_;
  int64_t index_;
  Operand value_;
};

/// In lanes of images, the window of a row of outputs that see the same taps.
struct Segment {
  int64_t column, count;
  std::vector<int32_t> offsets;  // from the window's first tap
};

class PoolStep : public Step {
 public:
  PoolStep(const Planner& planner, const Operation& operation, const Operand& in, const Operand& out)
      : kernels_(planner.kernels), layout_(planner.layout), window_(operation.window), in_(in), out_(out) {
    greatest_ = operation.kind == Kind::kMaxPool;
    scale_ = 1.0f / static_cast<float>(window_.taps());
    if (layout_.of_images) {
      for (int64_t y = 0; y < out.shape.height; ++y) rows_.push_back(segments(y));
    } else {
      vectors_ = layout_.plane_vectors(out.shape, out.halo);
      mask_ = layout_.mask(out.shape, out.halo);
      for (int64_t tap = 0; tap < window_.taps(); ++tap) offsets_.push_back(static_cast<int32_t>(tap * vectors_ * layout_.lanes));
    }
  }

  int64_t tasks() const override { return layout_.of_images ? out_.shape.height : out_.shape.channels; }
  void run(const Frame& frame, int64_t begin, int64_t end) const override {
    for (int64_t task = begin; task < end; ++task) layout_.of_images ? row(frame, task) : plane(frame, task);
  }

 private:
  std::vector<Segment> segments(int64_t y) const {
    std::vector<Segment> result;
    for (int64_t x = 0; x < out_.shape.width; ++x) {
      std::vector<int32_t> offsets;
      for (int64_t tap = 0; tap < window_.taps(); ++tap) {
        const int64_t dy = tap / window_.kernel[1] * window_.dilation[0], dx = tap % window_.kernel[1] * window_.dilation[1];
        const int64_t from_y = y * window_.stride[0] - window_.padding[0] + dy;
        const int64_t from_x = x * window_.stride[1] - window_.padding[1] + dx;
        if (from_y >= 0 && from_y < in_.shape.height && from_x >= 0 && from_x < in_.shape.width)
          offsets.push_back(static_cast<int32_t>(dy * in_.place.row_step + dx * layout_.lanes));
      }
      if (!result.empty() && result.back().offsets == offsets)
        ++result.back().count;
      else
        result.push_back({x, 1, offsets});
    }
    return result;
  }

  void row(const Frame& frame, int64_t y) const {
    const float* const from = frame.buffers[in_.place.buffer] + in_.place.at(0, y * window_.stride[0] - window_.padding[0], 0);
    float* const to = frame.buffers[out_.place.buffer] + out_.place.at(0, y, 0);
    for (int64_t channel = 0; channel < out_.shape.channels; ++channel) {
      for (const Segment& segment : rows_[y]) {
        ReduceCall call{};
        call.in = from + channel * in_.place.channel_step +
                  (segment.column * window_.stride[1] - window_.padding[1]) * layout_.lanes;
        call.offsets = segment.offsets.data();
        call.taps = static_cast<int64_t>(segment.offsets.size());
        call.in_step = window_.stride[1] * layout_.lanes;
        call.vectors = segment.count;
        call.out = to + channel * out_.place.channel_step + segment.column * layout_.lanes;
        call.greatest = greatest_;
        call.scale = scale_;
        kernels_.reduce(call);
      }
    }
  }

  void plane(const Frame& frame, int64_t channel) const {
    static thread_local Arena arena;
    float* const taps = arena.take<float>(window_.taps() * vectors_ * layout_.lanes);
    const float* const from = frame.buffers[in_.place.buffer] + in_.place.at(channel, 0, 0);
    const float outside = greatest_ ? -std::numeric_limits<float>::infinity() : 0.0f;
    for (int64_t tap = 0; tap < window_.taps(); ++tap)
      gather_tap(kernels_, window_, tap, in_, from, out_, 0, vectors_ * layout_.lanes, outside, taps + offsets_[tap]);
    ReduceCall call{};
    call.in = taps;
    call.offsets = offsets_.data();
    call.taps = window_.taps();
    call.in_step = layout_.lanes;
    call.vectors = vectors_;
    call.out = frame.buffers[out_.place.buffer] + out_.place.at(channel, 0, 0);
    call.mask = mask_.data();
    call.greatest = greatest_;
    call.scale = scale_;
    kernels_.reduce(call);
  }

  const Kernels& kernels_;
  Layout layout_;
  Convolution window_;
  Operand in_, out_;
  bool greatest_;
  float scale_;
  std::vector<std::vector<Segment>> rows_;
  int64_t vectors_ = 0;
  std::vector<uint32_t> mask_;
  std::vector<int32_t> offsets_;
};

class GlobalAverageStep : public Step {
 public:
  GlobalAverageStep(const Planner& planner, const Operand& in, const Operand& out)
      : kernels_(planner.kernels), layout_(planner.layout), in_(in), out_(out) {
    scale_ = 1.0f / static_cast<float>(in.shape.pixels());
    if (!layout_.of_images) return;
    for (int64_t y = 0; y < in.shape.height; ++y)
      for (int64_t x = 0; x < in.shape.width; ++x)
        offsets_.push_back(static_cast<int32_t>(y * in.place.row_step + x * layout_.lanes));
  }

  int64_t tasks() const override { return in_.shape.channels; }
  void run(const Frame& frame, int64_t begin, int64_t end) const override {
    for (int64_t channel = begin; channel < end; ++channel) {
      const float* const from = frame.buffers[in_.place.buffer] + in_.place.at(channel, 0, 0);
      float* const to = frame.buffers[out_.place.buffer] + out_.place.at(channel, 0, 0);
      if (layout_.of_images) {
        ReduceCall call{};
        call.in = from;
        call.offsets = offsets_.data();
        call.taps = static_cast<int64_t>(offsets_.size());
        call.vectors = 1;
        call.out = to;
        call.scale = scale_;
        kernels_.reduce(call);
      } else {
        *to = kernels_.total(from, layout_.plane_vectors(in_.shape, in_.halo)) * scale_;
      }
    }
  }

 private:
  const Kernels& kernels_;
  Layout layout_;
  Operand in_, out_;
  float scale_;
  std::vector<int32_t> offsets_;
};

class CombineStep : public Step {
 public:
  CombineStep(const Planner& planner, const Bounds& bounds, const Operand& a, const Operand* b, const Operand& out)
      : kernels_(planner.kernels), layout_(planner.layout), bounds_(bounds), a_(a), out_(out), adds_(b != nullptr) {
    if (adds_) b_ = *b;
    if (!layout_.of_images) mask_ = layout_.mask(out.shape, out.halo);
  }

  int64_t tasks() const override { return layout_.of_images ? out_.shape.height : out_.shape.channels; }
  void run(const Frame& frame, int64_t begin, int64_t end) const override {
    for (int64_t task = begin; task < end; ++task) {
      if (layout_.of_images) {
        for (int64_t channel = 0; channel < out_.shape.channels; ++channel) run_of(frame, channel, task, out_.shape.width);
      } else {
        run_of(frame, task, 0, static_cast<int64_t>(mask_.size()));
      }
    }
  }

 private:
  void run_of(const Frame& frame, int64_t channel, int64_t row, int64_t vectors) const {
    CombineCall call{};
    call.a = frame.buffers[a_.place.buffer] + a_.place.at(channel, row, 0);
    if (adds_) call.b = frame.buffers[b_.place.buffer] + b_.place.at(channel, row, 0);
    call.out = frame.buffers[out_.place.buffer] + out_.place.at(channel, row, 0);
    call.vectors = vectors;
    call.mask = mask_.empty() ? nullptr : mask_.data();
    call.least = bounds_.least;
    call.greatest = bounds_.greatest;
    kernels_.combine(call);
  }

  const Kernels& kernels_;
  Layout layout_;
  Bounds bounds_;
  Operand a_, b_, out_;
  bool adds_;
  std::vector<uint32_t> mask_;
};

}  // namespace

std::unique_ptr<Step> Planner::input(int64_t index, const Operand& result) const {
  return std::make_unique<InputStep>(*this, index, result);
}

std::unique_ptr<Step> Planner::output(int64_t index, const Operand& value) const {
  return std::make_unique<OutputStep>(*this, index, value);
}

std::unique_ptr<Step> Planner::pool(const Operation& operation, const Operand& in, const Operand& out) const {
  return std::make_unique<PoolStep>(*this, operation, in, out);
}

std::unique_ptr<Step> Planner::global_average(const Operand& in, const Operand& out) const {
  return std::make_unique<GlobalAverageStep>(*this, in, out);
}

std::unique_ptr<Step> Planner::combine(const Bounds& bounds, const Operand& a, const Operand* b, const Operand& out) const {
  return std::make_unique<CombineStep>(*this, bounds, a, b, out);
}

Halo reach(const Layout& layout, const Operation& operation, const Shape& in, const Shape& out) {
  if (operation.kind != Kind::kConvolution) return {};
  if (!layout.of_images && !shifts_planes(operation.window, in, out)) return {};
  return {operation.window.padding[0], operation.window.padding[1]};
}

}  // namespace lth_sparse::inference
