// The kernels of inference, for one instruction set, and what each is given. Who calls them: steps.h.
//
// Every value lies in vectors, of pixels or of images (layout.h). A convolution is computed tile by tile: up to kMostVectors
// vectors of a channel of the output in registers, to which each live weight adds as many vectors of the input, at an offset of
// its own. A tile of all outputs, or a block of them, is gone through once for each block of input channels that fits into the
// first-level cache.
//
// What bounds it: one load of a vector a product, beside a broadcast of the weight a tile. On AVX-512 a load that is not aligned
// to the vector crosses a line and takes two cycles, so taps beside the centre of lanes of pixels cost up to twice the others.
#pragma once

#include <cstdint>

namespace lth_sparse::inference {

/// A live weight: how far from the tile its input lies, in floats, and its value.
struct Entry {
  int32_t offset;
  float value;
};

constexpr int kMostVectors = 14;

struct TileCall {
  const float* in;
  int64_t in_step;          // from one vector of the input to the next, in floats
  const Entry* entries;
  const int32_t* starts;    // [outputs + 1]
  int64_t outputs;
  const float* bias;        // [outputs]
  float* sums;              // [outputs][vectors]: what former blocks of channels came to
  float* out;
  int64_t out_step;         // from one channel to the next
  const float* added;       // or null
  int64_t added_step;
  const uint32_t* mask;     // [vectors]: lanes that stay; null for all
  float least, greatest;
};

/// A layer with all of its weights: `group` outputs a tile, whose weights [taps][group] lie together.
struct DenseTileCall {
  const float* in;
  int64_t in_step;
  const int32_t* offsets;   // [taps]
  int64_t taps;
  const float* weights;     // [taps][group]
  const float* bias;        // [group]
  int outputs;              // of the group, that are there
  float* out;
  int64_t out_step;
  const float* added;
  int64_t added_step;
  const uint32_t* mask;
  float least, greatest;
};

/// A vector for each tap, reduced to one: the greatest, or the sum times `scale`.
struct ReduceCall {
  const float* in;
  const int32_t* offsets;   // [taps]
  int64_t taps;
  int64_t in_step;
  int64_t vectors;
  float* out;
  const uint32_t* mask;
  bool greatest;
  float scale;
};

/// out = a (+ b), clamped.
struct CombineCall {
  const float *a, *b;       // b may be null
  float* out;
  int64_t vectors;
  const uint32_t* mask;     // [vectors]; null for all lanes
  float least, greatest;
};

struct Kernels {
  int lanes;
  int dense_group, dense_vectors;  // the largest tile of a dense layer
  /// By the number of vectors - 1, and whether it is the first block of channels, the last one.
  void (*tile[kMostVectors][2][2])(const TileCall&);
  void (*dense[kMostVectors])(const DenseTileCall&);
  void (*reduce)(const ReduceCall&);
  void (*combine)(const CombineCall&);
  /// The sum of the lanes of `vectors` vectors.
  float (*total)(const float* in, int64_t vectors);
  /// every second element from `from` on: `count` of them.
  void (*every_second)(const float* from, int64_t count, float* to);
  /// `images` rows, image_step floats apart, of `count` numbers -> count vectors of images; the lanes of no image are 0.
  void (*images_to_lanes)(const float* from, int64_t image_step, int images, int64_t count, float* to);
  void (*lanes_to_images)(const float* from, int64_t count, float* to, int64_t image_step, int images);
};

/// Null where this build has none.
const Kernels* kernels_avx512();
const Kernels* kernels_avx2();
/// Sixteen lanes without any instruction set: what tests compare the others with.
const Kernels* kernels_portable();

}  // namespace lth_sparse::inference
