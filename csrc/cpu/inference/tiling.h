// A layer's output in tiles of a few vectors, and where the input of each begins.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "steps.h"
#include "taps.h"

namespace lth_sparse::inference {

struct Tile {
  int64_t in, out, added;  // floats from the first channel's first pixel
  int64_t place;           // of its first vector, among those of a plane of pixels
  int vectors;
};

/// The tiles of a convolution, and what a tap reads for one. A plane of pixels that the taps do not see as it lies is gathered
/// tap by tap, tile by tile, into memory of the thread.
class Tiling {
 public:
  Tiling(const Planner& planner, const Convolution& window, const Operand& in, const Operand* added, const Operand& out, int most)
      : window(window), in(in), out(out), layout_(planner.layout), kernels_(planner.kernels) {
    gathers = !layout_.of_images && !shifts_planes(window, in.shape, out.shape);
    in_step = layout_.of_images ? window.stride[1] * layout_.lanes : layout_.lanes;
    adds_ = added != nullptr;
    if (adds_) added_ = *added;
    if (layout_.of_images) {
      for (int64_t y = 0; y < out.shape.height; ++y) cut(y, out.shape.width, most);
    } else {
      mask_ = layout_.mask(out.shape, out.halo);
      cut(0, static_cast<int64_t>(mask_.size()), most);
    }
  }

  /// Where a tap of a channel lies for a tile, from its `in`, unless it is gathered.
  int64_t offset(int64_t channel, int64_t tap) const {
    const int64_t dy = tap / window.kernel[1] * window.dilation[0] - window.padding[0];
    const int64_t dx = tap % window.kernel[1] * window.dilation[1] - window.padding[1];
    return channel * in.place.channel_step + dy * in.place.row_step + dx * in.place.pixel_step;
  }
  /// Floats that a tile reads of a channel, about.
  int64_t footprint(int vectors) const {
    const int64_t taps = layout_.of_images ? window.kernel[0] * ((vectors - 1) * window.stride[1] + window.kernel[1])
                                           : std::min<int64_t>(window.kernel[0], window.taps()) * (vectors + 1);
    return taps * layout_.lanes;
  }

  const float* input(const Frame& frame, const Tile& tile) const {
    return frame.buffers[in.place.buffer] + in.place.origin + tile.in;
  }
  float* output(const Frame& frame, const Tile& tile, int64_t channel) const {
    return frame.buffers[out.place.buffer] + out.place.origin + tile.out + channel * out.place.channel_step;
  }
  const float* added(const Frame& frame, const Tile& tile, int64_t channel) const {
    if (!adds_) return nullptr;
    return frame.buffers[added_.place.buffer] + added_.place.origin + tile.added + channel * added_.place.channel_step;
  }
  int64_t added_step() const { return added_.place.channel_step; }
  const uint32_t* mask(const Tile& tile) const { return mask_.empty() ? nullptr : mask_.data() + tile.place; }

  /// What column (channel * taps + tap) sees of a tile.
  void gather(const Frame& frame, const Tile& tile, int64_t column, float* to) const {
    const float* const plane = frame.buffers[in.place.buffer] + in.place.at(column / window.taps(), 0, 0);
    gather_tap(kernels_, window, column % window.taps(), in, plane, out, tile.place * layout_.lanes,
               tile.vectors * layout_.lanes, 0.0f, to);
  }

  Convolution window;
  Operand in, out;
  bool gathers;
  int64_t in_step;
  std::vector<Tile> tiles;
  int most_vectors = 0;

 private:
  /// Tiles of about the same size of `vectors` vectors in row y.
  void cut(int64_t y, int64_t vectors, int most) {
    const int64_t count = ceil_div(vectors, most), lanes = layout_.lanes;
    for (int64_t t = 0; t < count; ++t) {
      const int64_t first = vectors * t / count, many = vectors * (t + 1) / count - first;
      Tile tile{first * lanes, first * lanes, first * lanes, first, static_cast<int>(many)};
      if (layout_.of_images) {
        tile.in = y * window.stride[0] * in.place.row_step + first * window.stride[1] * lanes;
        tile.out += y * out.place.row_step;
        tile.added += y * added_.place.row_step;
      }
      most_vectors = std::max(most_vectors, tile.vectors);
      tiles.push_back(tile);
    }
  }

  Layout layout_;
  const Kernels& kernels_;
  bool adds_;
  Operand added_;
  std::vector<uint32_t> mask_;
};

}  // namespace lth_sparse::inference
