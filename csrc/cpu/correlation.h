// What a sparse layer computes, in one form for its forward pass and its gradients.
//
// A correlation gives, for every row r of a sparse matrix and every output position (j, i),
//
//     out[r][j][i] = bias + sum over the entries (channel, tap, value) of r:
//                    value * in[channel][j * in_stride + shift(tap)][i * in_stride + shift(tap)]
//
// with zero outside the input. The forward pass of a convolution is that with a row for each output channel. Its
// grad_input is the same with the roles of the channels exchanged; a stride s then becomes s * s phases: the input
// pixels (s j + p, s i + q) of one phase (p, q) see only the taps that reach them. A phase is a set of rows of its own:
// row (p * s + q) * channels + channel. A linear layer is a convolution of 1 x 1 images.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "inline.h"

namespace lth_sparse {

inline int64_t ceil_div(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }
inline int64_t floor_div(int64_t value, int64_t divisor) { return value / divisor - (value % divisor < 0); }

/// A dense [count, channels, height, width] tensor: its sizes, and which of its two contiguous layouts it has.
struct Images {
  int64_t count, channels, height, width;
  bool channels_last;

  int64_t pixels() const { return height * width; }
  /// Elements from one image to the next, one channel to the next, one pixel to the next.
  int64_t image_step() const { return channels * pixels(); }
  int64_t channel_step() const { return channels_last ? 1 : pixels(); }
  int64_t pixel_step() const { return channels_last ? channels : 1; }
};

/// A convolution as torch.nn.Conv2d has it, zero padding on both sides. Pairs are (rows, columns).
struct Convolution {
  int64_t in_channels, out_channels;
  std::array<int64_t, 2> kernel, stride, padding, dilation;
  int64_t groups;

  int64_t taps() const { return kernel[0] * kernel[1]; }
  int64_t phases() const { return stride[0] * stride[1]; }
};

struct Correlation {
  Images in, out;
  std::array<int64_t, 2> in_stride, out_stride;
  std::vector<std::array<int64_t, 2>> shifts;  // of each tap

  int64_t taps() const { return static_cast<int64_t>(shifts.size()); }
  int64_t phases() const { return out_stride[0] * out_stride[1]; }
  int64_t rows() const { return phases() * out.channels; }
  /// Output positions of one phase along a dimension: 0 for rows, 1 for columns.
  int64_t positions(int dimension) const {
    const int64_t size = dimension == 0 ? out.height : out.width;
    return ceil_div(size, out_stride[dimension]);
  }
  /// Of a 1 x 1 kernel without padding: each position of the output sees one pixel of the input, and at most one sees it.
  bool pointwise() const { return taps() == 1 && shifts[0] == std::array<int64_t, 2>{0, 0}; }
};

/// The sparse matrix of a correlation, row by row. A column is channel * taps + tap, ascending within a row.
struct SparseRows {
  const int32_t* row_offsets;  // [rows + 1]
  const int32_t* columns;      // [nnz]
  const int32_t* order;        // [nnz]: the place of each entry in `values`, or null when that is its own place
  int64_t rows;
  // Columns of a grouped convolution count from its group's first channel: row r adds (r / rows_per_group) *
  // columns_per_group.
  int64_t rows_per_group, columns_per_group;

  int64_t nnz() const { return row_offsets[rows]; }
  /// What the columns of a row count from.
  int64_t columns_before(int64_t row) const { return row / rows_per_group * columns_per_group; }
  /// Whether the offsets of rows [begin, end), and where the last one ends, ascend, within [0, nnz].
  bool offsets_ascend(int64_t begin, int64_t end) const {
    bool ascend = row_offsets[begin] >= 0 && row_offsets[end] <= nnz();
    for (int64_t row = begin; row < end; ++row) ascend &= row_offsets[row] <= row_offsets[row + 1];
    return ascend;
  }
  /// What a column of any row must be less than, if it is not less than `all` already.
  int64_t column_limit(int64_t all) const { return columns_per_group > 0 ? columns_per_group : all; }
};

inline constexpr const char* kNoMask = "row_offsets, columns: not those of a mask of this layer";
inline constexpr const char* kNoOrder = "order: expected places among the values";

/// Whether any of indices[first, last) is not in [0, limit): then it is negative, or its distance from the greatest is. That
/// is an `or` of sign bits; SSE2 has no unsigned comparison.
LTH_SPARSE_INLINE bool any_outside(const int32_t* indices, int64_t first, int64_t last, int64_t limit) {
  uint32_t bits = 0;
  const uint32_t greatest = static_cast<uint32_t>(limit - 1);
  for (int64_t e = first; e < last; ++e) {
    const uint32_t index = static_cast<uint32_t>(indices[e]);
    bits |= index | (greatest - index);
  }
  return bits >> 31 != 0;
}

/// The output for `x`; a size of it is below 1 where the kernel does not fit into x.
inline Images output_of(const Convolution& layer, const Images& x) {
  const auto size = [&](int d, int64_t in) {
    return floor_div(in + 2 * layer.padding[d] - layer.dilation[d] * (layer.kernel[d] - 1) - 1, layer.stride[d]) + 1;
  };
  return {x.count, layer.out_channels, size(0, x.height), size(1, x.width), x.channels_last};
}

/// x -> output.
Correlation forward_correlation(const Convolution& layer, const Images& x, const Images& output);
/// grad_out -> grad_x.
Correlation grad_input_correlation(const Convolution& layer, const Images& grad_out, const Images& grad_x);

/// The transposed matrix: the rows of `grad_input_correlation`, given those of the forward pass.
///
/// Writes row_offsets [phases * in_channels + 1], columns [nnz] (output channel * taps + tap) and order [nnz].
void transpose(const Convolution& layer, const SparseRows& forward, int32_t* row_offsets, int32_t* columns,
               int32_t* order);

}  // namespace lth_sparse
