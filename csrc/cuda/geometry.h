// What a launch is told: the correlation (plans/correlation.py), how it is cut up (plans/staging.py), and the
// column blocks of its matrix (plans/channel_chunks.py). Python fills Geometry and Tiling field by field, in order.
#pragma once

#include <device.h>

#include <cstdint>

namespace lth_sparse::cuda {

constexpr int kBlockRows = 16;   // rows that a tensor core multiplies at once
constexpr int kDepth = 8;        // columns that it multiplies at once in TF32
constexpr int kWarp = 32;
constexpr int kMostThreads = 256;
constexpr int kWarpPixels = 64;  // positions of a warp
constexpr int kWord = 32;        // columns whose liveness one integer of `live` holds

/// Pairs are rows and columns.
struct Geometry {
  int32_t kernel[2], in_size[2], out_size[2], in_stride[2], out_stride[2], start[2], step[2], positions[2];

  __host__ __device__ int phases() const { return out_stride[0] * out_stride[1]; }
  __host__ __device__ int taps() const { return kernel[0] * kernel[1]; }

  /// How far from its position a tap reads along a dimension, in the one phase that sees it.
  __device__ int shift(int dimension, int tap) const {
    const int at = start[dimension] + tap * step[dimension], stride = out_stride[dimension];
    return at >= 0 ? (at + stride - 1) / stride : -(-at / stride);
  }
};

/// The fields of lth_sparse.plans.staging.Tiling.
struct Tiling {
  int32_t block_count, pixel_warps, column_warps, images, rows, columns, piece, gradient_piece, buffers, left, in_rows,
      in_columns, row_pitch, split_pitch, image_pitch, plane_pitch, gradient_pitch, first_row_shift, first_column_shift,
      chunk_channels, pairs, shared_bytes;

  __host__ __device__ int threads() const { return kWarp * block_count * pixel_warps * column_warps; }
  /// Elements that the input takes in a buffer: with pairs, all of it twice.
  __host__ __device__ int input_elements() const { return (pairs ? 2 : 1) * chunk_channels * plane_pitch; }
  __host__ __device__ int tile_positions() const { return kWarpPixels * pixel_warps; }
};

/// Elements from one image, channel, row and column to the next.
struct Steps {
  int32_t image, channel, row, column;

  /// Whether neighbouring elements are channels of one pixel.
  __host__ __device__ bool channels_last() const { return channel == 1; }
};

/// Where the tiles of a launch lie among `images` images: tiles along images, rows and columns.
struct Grid {
  int32_t images, counts[3];

  __host__ __device__ int tiles() const { return counts[0] * counts[1] * counts[2]; }
};

/// The tensors of ChunkedBlocks, and their sizes. `channels`: those of the input, over all groups.
struct Blocks {
  const int32_t *slot_rows, *columns, *live, *starts, *order, *chunk_offsets;
  int32_t blocks, chunks, column_count, channels;

  __host__ __device__ int64_t slots() const { return static_cast<int64_t>(column_count) * kBlockRows; }

  /// The first column of a chunk of a block; the chunk ends where the next one begins.
  __device__ int chunk_begin(int block, int chunk) const { return chunk_offsets[block * (chunks + 1) + chunk]; }
};

}  // namespace lth_sparse::cuda
