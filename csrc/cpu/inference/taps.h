// The taps of a window on pixels, for what does not read a plane as it lies: strides, and borders that are no zeros.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels.h"
#include "steps.h"

namespace lth_sparse::inference {

/// Whether each tap is the plane itself, read from elsewhere: the output has the input's sizes, and no stride.
inline bool shifts_planes(const Convolution& window, const Shape& in, const Shape& out) {
  return window.stride[0] == 1 && window.stride[1] == 1 && in.height == out.height && in.width == out.width;
}

/// What a tap sees, where the output's plane has a place: `count` floats from place `first` on. `plane` is the input's channel.
inline void gather_tap(const Kernels& kernels, const Convolution& window, int64_t tap, const Operand& in, const float* plane,
                       const Operand& out, int64_t first, int64_t count, float outside, float* to) {
  const int64_t ky = tap / window.kernel[1], kx = tap % window.kernel[1];
  const int64_t dy = ky * window.dilation[0] - window.padding[0], dx = kx * window.dilation[1] - window.padding[1];
  const int64_t stride = window.stride[1], row = Layout::pitch(out.shape, out.halo);
  // Columns [left, right) of the output see a pixel.
  const int64_t left = std::clamp<int64_t>(ceil_div(-dx, stride), 0, out.shape.width);
  const int64_t right = std::clamp<int64_t>(floor_div(in.shape.width - 1 - dx, stride) + 1, left, out.shape.width);
  for (int64_t done = 0; done < count;) {
    const int64_t y = (first + done) / row, x = (first + done) % row, many = std::min(count - done, row - x);
    const int64_t from_y = y * window.stride[0] + dy;
    float* const run = to + done - x;  // Where column 0 would be.
    int64_t begin = std::max(left, x), end = std::min(right, x + many);
    if (y >= out.shape.height || from_y < 0 || from_y >= in.shape.height || begin >= end) begin = end = x + many;
    std::fill(run + x, run + begin, outside);
    if (begin < end) {
      const float* const from = plane + from_y * in.place.row_step + begin * stride + dx;
      if (stride == 1) {
        std::copy(from, from + (end - begin), run + begin);
      } else if (stride == 2) {
        kernels.every_second(from, end - begin, run + begin);
      } else {
        for (int64_t k = begin; k < end; ++k) run[k] = from[(k - begin) * stride];
      }
    }
    std::fill(run + end, run + x + many, outside);
    done += many;
  }
}

}  // namespace lth_sparse::inference
