// How the images of a correlation are cut into tiles, and the tiles into blocks.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "../correlation.h"

namespace lth_sparse {

struct Tiling {
  int64_t tile;                  // M: a tile is M x M outputs
  int64_t rows_of_image;         // tile rows
  int64_t tiles_of_row;          // tiles
  int64_t rows;                  // tile rows of all images
  std::array<int64_t, 2> before;  // zeros before the first pixel: how far the first patch reaches beyond the image

  Tiling(const Correlation& c, int64_t tile)
      : tile(tile),
        rows_of_image(ceil_div(c.out.height, tile)),
        tiles_of_row(ceil_div(c.out.width, tile)),
        rows(c.out.count * rows_of_image),
        before{0, 0} {
    for (const auto& shift : c.shifts)
      for (int d = 0; d < 2; ++d) before[d] = std::max(before[d], -shift[d]);
  }

  int64_t patch() const { return tile + 2; }
  int64_t points() const { return patch() * patch(); }
  int64_t tiles() const { return rows * tiles_of_row; }
  /// Tile rows that together have about so many tiles.
  int64_t rows_with(int64_t tiles) const { return std::clamp<int64_t>(tiles / tiles_of_row, 1, rows); }
  /// Pixels of a row of patches side by side, and of tiles side by side.
  int64_t patch_pixels() const { return tiles_of_row * tile + 2; }
  int64_t tile_pixels() const { return tiles_of_row * tile; }
  /// Tile rows that are converted together: of small images several, so that runs of pixels fill vectors.
  int64_t band(const Images& out) const {
    constexpr int64_t kRun = 64;
    return std::clamp<int64_t>(ceil_div(kRun, tile * out.width), 1, rows_of_image);
  }

  /// Calls body(image, first tile row in it, tile rows, tile rows of the block before) for the bands of the block
  /// [first, first + count) of all tile rows. A band lies in one image.
  template <class Body>
  void for_each_band(int64_t first, int64_t count, int64_t band, const Body& body) const {
    for (int64_t row = 0; row < count;) {
      const int64_t within = (first + row) % rows_of_image;
      const int64_t here = std::min({band, count - row, rows_of_image - within});
      body((first + row) / rows_of_image, within, here, row);
      row += here;
    }
  }
};

/// A matrix for each point, apart by a cache line more than they need: at a power of two they would share their sets of the
/// caches.
inline int64_t point_step(int64_t elements) {
  constexpr int64_t kLine = 16;
  return elements + kLine;
}

}  // namespace lth_sparse
