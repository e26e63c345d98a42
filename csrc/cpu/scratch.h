// Where a task keeps its part of the tensors while it computes: a few kilobytes to half a megabyte per thread, so that
// what the kernels touch stays in L1 and L2.
//
// A task computes a strip of output rows, for a block of images. Two scratch areas:
//
// - input: [channel][position], a plane per channel of the current block of channels. A position is a pixel of the
//   strip with its zero padding already there, so a tap is a constant offset. Pixels that a strided layer visits
//   together lie together: rows and columns are sorted by their remainder modulo the stride first.
// - output: the accumulators, in tiles that fit the registers: [tile][row][tile_rows * tile_columns vectors].
//
// What a vector's lanes are is the one choice on top:
//
// - images: lane k is image k. Each position holds `groups` vectors (groups * width images); every load is aligned to
//   the vector and any tap costs the same. Tensors come and go through in-register transposes. Of few images, vectors half
//   as long leave no lane empty, and products are of `pairs` of them: of two positions that follow each other, for which
//   nothing in scratch need be otherwise. Then a load at an odd column crosses a line, and yet 8 images take three quarters
//   to five sixths of the time.
// - pixels: the lanes are consecutive positions of one image, `position` counts single elements, rows follow each other
//   in a flat plane and a tile is a run of it. Loads are unaligned, and the columns between two rows are computed for
//   nothing, but one image is enough and nothing is transposed.
//
// A 1 x 1 convolution without padding does without neighbours: its lanes are the pixels of all images, in `panels` (panels.h).
// Where it has no stride either, and vectors divide the planes of contiguous tensors, it needs no scratch at all: these planes
// have the layout above themselves. That is `in_place`.
#pragma once

#include <cstdint>
#include <vector>

#include "correlation.h"
#include "panels.h"

namespace lth_sparse {

/// How a correlation is cut into tasks and tiles.
struct Blocking {
  bool lanes_are_pixels;
  bool panels;             // lanes are the pixels of all images: see panels.h
  bool in_place;           // the scratch areas are the tensors themselves: see below
  int width;               // lanes of a vector
  bool pairs;              // the products are of vectors twice as long, of two positions side by side: lanes are images
  int64_t groups;          // vectors of images at each position; 1 when lanes are pixels
  int tile_rows;           // of output positions in a tile, the last ones may have fewer; 1 when lanes are pixels
  int tile_columns;        // vectors in a row of a tile, a multiple of groups; the last ones of pixels may have fewer
  int64_t strip;           // output rows of a task; positions of a panel
  int64_t channel_block;   // input channels in scratch at a time
  int64_t channel_chunk;   // output channels of a task
  int64_t parts;           // of the images and strips: a task each or, for the gradient of the weights, several tasks that
                           // add to one partial sum one after the other
  bool unlisted;           // look the matrix up entry by entry, for so little work that to list it would cost more
  bool by_clip;            // sort the entries by what they read from padding alone, and do not multiply it

  int64_t images() const { return lanes_are_pixels ? 1 : groups * width; }
};

/// The positions of a tile that a tap reads from padding alone: its first or last row, its first or last column. Encoded
/// as 3 * rows + columns, each of them 0 for none, 1 for the first and 2 for the last; or all.
using Clip = uint8_t;
inline constexpr Clip kClipsAll = 9;
inline constexpr int kClips = kClipsAll + 1;

/// The registers of one step of the kernels: where its inputs begin, and where its accumulators lie.
struct Tile {
  int64_t in, out;  // elements from the start of the input and the output scratch
  int rows;
  int columns;  // vectors in a row
};

/// A run of pixels that lie `tensor_step` apart in an image's channel and next to each other in scratch, or the
/// other way round for the output of a strided correlation.
struct Run {
  int64_t tensor, scratch, count, tensor_step;
};

/// Which pixels of a [height, width] plane a strip holds, and where.
struct Placement {
  int64_t channel_step;  // elements from one channel's plane to the next in scratch

  // Lanes are images: pixel `first_pixel + k` lies at element position[k], or nowhere if that is negative.
  int64_t first_pixel = 0;
  std::vector<int32_t> position;
  std::vector<int32_t> padding;  // the elements where the zeros of padding begin, groups * width each

  // Lanes are pixels.
  std::vector<Run> runs;
  std::vector<Run> gaps;  // tensor fields unused: the zeros

  // Panels.
  std::vector<PanelRow> rows;
  std::array<int64_t, 2> stride;  // pixels from one position to the next: rows, columns
  int64_t end() const { return rows.back().at + rows.back().count; }
};

class Scratch {
 public:
  Scratch(const Correlation& correlation, const Blocking& blocking);

  /// Whether they would be large beside the tensors, or larger than their offsets can say: see plain.h.
  bool wasteful(int64_t element_size) const;
  int64_t strips() const { return strips_; }
  /// Strips of all images.
  int64_t tasks() const { return blocking_.panels ? strips_ : ceil_div(correlation_.in.count, blocking_.images()) * strips_; }
  /// Elements of the input scratch, of the output scratch.
  int64_t in_size() const { return in_size_; }
  int64_t out_size() const { return out_size_; }
  /// Elements between two rows of a tile in the input, between two rows of the matrix in the output.
  int64_t in_row_step() const { return columns_ * unit_; }
  int64_t out_row_step() const { return out_row_step_; }
  /// Of a strip; the last one may be shorter.
  const std::vector<Tile>& tiles(int64_t strip = 0) const { return strip == strips_ - 1 ? last_tiles_ : tiles_; }
  /// Whether tiles hold positions that are not in the output, and may read pixels of the input there.
  bool ragged() const { return ragged_; }
  /// Where all images' positions are one tile: for each tap, which of its operands lie in the padding and need not be
  /// multiplied. Else empty.
  const std::vector<Clip>& clips() const { return clips_; }
  /// The fraction of products, all of them with padding, that `by_clip` saves.
  double clipped() const;
  /// For each column of the sparse matrix, the offset of its operand from a tile's first, within its channel block.
  /// Negative where clips leave out the first positions, so that none before the scratch is read.
  std::vector<int32_t> column_offsets() const;

  Placement in(int64_t strip) const;
  Placement out(int64_t strip) const;

 private:
  void lay_out_panels();
  /// Of so many vectors next to each other.
  std::vector<Tile> tiles_of_pixels(int64_t vectors) const;
  Placement panel(int64_t strip, const std::array<int64_t, 2>& stride) const;
  int64_t position(int64_t row, int64_t column) const;
  /// Of a strip of so many output rows. No tile computes a row beyond them, except where clips leave out padding.
  std::vector<Tile> tiles_of_images(int64_t rows, int64_t across, int64_t padded_width) const;
  /// Of the only tile; sets `reads_padding` if the tap reads some of it in what is left.
  Clip clip(const std::array<int64_t, 2>& shift, bool& reads_padding) const;

  const Correlation& correlation_;
  const Blocking& blocking_;
  int64_t unit_;                       // elements of a position
  int64_t first_[2];                   // the first position that the first tile reads: the smallest shift of a tap
  int64_t in_rows_;                    // of positions that the tiles of a strip read
  int64_t rows_, columns_;             // of those of one phase of the stride
  int64_t strips_, plane_, in_size_, out_size_, out_row_step_, tile_step_, local_rows_;
  int64_t tiles_across_ = 0;
  bool ragged_;
  std::vector<Tile> tiles_, last_tiles_;
  std::vector<Clip> clips_;
};

}  // namespace lth_sparse
