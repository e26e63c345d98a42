// Where a value's numbers lie.
//
// Lanes of images, for batches of about a vector: [H][C][W][lanes], a row's channels together, so that the rows that a tile reads
// do not meet in the same sets of the cache. Lanes of pixels, for fewer images: [C][H][W], one image, its rows one after the
// other with zeros between them, so that a tap of a convolution is the whole plane read from somewhere else. Both have zeros
// around an image as wide as any convolution of the network that reads such images reaches beyond it.
#pragma once

#include <cstdint>
#include <vector>

#include "description.h"

namespace lth_sparse::inference {

/// Zeros around an image: rows above and below, columns left and right.
struct Halo {
  int64_t rows = 0, columns = 0;
  bool operator==(const Halo&) const = default;
};

/// In floats, from the beginning of a buffer.
struct Placement {
  int64_t buffer = -1;
  int64_t origin = 0;  // of the first pixel of the first channel
  int64_t channel_step = 0, row_step = 0, pixel_step = 0;

  int64_t at(int64_t channel, int64_t row, int64_t column) const {
    return origin + channel * channel_step + row * row_step + column * pixel_step;
  }
};

/// How the values of one layout lie, on a machine with vectors of so many lanes.
struct Layout {
  int64_t lanes;
  bool of_images;

  int64_t round_up(int64_t floats) const { return ceil_div(floats, lanes) * lanes; }
  /// An odd number of vectors: channels that lie a power of two apart meet in the same sets of the cache.
  int64_t skewed(int64_t floats) const { return (round_up(floats) / lanes | 1) * lanes; }

  /// Of a plane of pixels, the zeros after each row included.
  static int64_t pitch(const Shape& shape, const Halo& halo) { return shape.width + halo.columns; }
  int64_t plane_vectors(const Shape& shape, const Halo& halo) const {
    return ceil_div(shape.height * pitch(shape, halo), lanes);
  }

  /// The placement at the beginning of a buffer of its own; its size goes to `floats`.
  Placement placed(const Shape& shape, const Halo& halo, int64_t& floats) const {
    Placement result;
    if (of_images) {
      result.pixel_step = lanes;
      result.channel_step = skewed((shape.width + 2 * halo.columns) * lanes);
      result.row_step = shape.channels * result.channel_step + 5 * lanes;
      result.origin = halo.rows * result.row_step + halo.columns * lanes;
      floats = (shape.height + 2 * halo.rows) * result.row_step;
    } else {
      const int64_t row = pitch(shape, halo), before = round_up(halo.rows * row + halo.columns);
      result.pixel_step = 1;
      result.row_step = row;
      // The zeros above a channel are those below the channel before it.
      result.channel_step = skewed(before + plane_vectors(shape, halo) * lanes);
      result.origin = before;
      // A tap reads whole vectors, from as far beyond the plane as it reaches.
      floats = shape.channels * result.channel_step + before + 2 * lanes;
    }
    return result;
  }

  /// The lanes of each vector of a plane of pixels that are pixels.
  std::vector<uint32_t> mask(const Shape& shape, const Halo& halo) const {
    const int64_t row = pitch(shape, halo);
    std::vector<uint32_t> result(plane_vectors(shape, halo), 0);
    for (int64_t y = 0; y < shape.height; ++y)
      for (int64_t x = 0; x < shape.width; ++x) result[(y * row + x) / lanes] |= 1u << (y * row + x) % lanes;
    return result;
  }
};

}  // namespace lth_sparse::inference
