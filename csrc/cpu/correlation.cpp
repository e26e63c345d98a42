#include "correlation.h"

namespace lth_sparse {
namespace {

/// The phase, along one dimension, of the input pixels that tap k of a convolution reaches.
int64_t phase_of(const Convolution& layer, int dimension, int64_t k) {
  const int64_t position = k * layer.dilation[dimension] - layer.padding[dimension], stride = layer.stride[dimension];
  return position - floor_div(position, stride) * stride;
}

}  // namespace

Correlation forward_correlation(const Convolution& layer, const Images& x, const Images& output) {
  Correlation result{x, output, layer.stride, {1, 1}, {}};
  for (int64_t ky = 0; ky < layer.kernel[0]; ++ky)
    for (int64_t kx = 0; kx < layer.kernel[1]; ++kx)
      result.shifts.push_back(
          {ky * layer.dilation[0] - layer.padding[0], kx * layer.dilation[1] - layer.padding[1]});
  return result;
}

Correlation grad_input_correlation(const Convolution& layer, const Images& grad_out, const Images& grad_x) {
  Correlation result{grad_out, grad_x, {1, 1}, layer.stride, {}};
  for (int64_t ky = 0; ky < layer.kernel[0]; ++ky)
    for (int64_t kx = 0; kx < layer.kernel[1]; ++kx) {
      const std::array<int64_t, 2> k = {ky, kx};
      std::array<int64_t, 2> shift;
      for (int d = 0; d < 2; ++d)
        shift[d] = (phase_of(layer, d, k[d]) + layer.padding[d] - k[d] * layer.dilation[d]) / layer.stride[d];
      result.shifts.push_back(shift);
    }
  return result;
}

void transpose(const Convolution& layer, const SparseRows& forward, int32_t* row_offsets, int32_t* columns,
               int32_t* order) {
  const int64_t taps = layer.taps(), rows = layer.phases() * layer.in_channels;
  std::vector<int64_t> phase_of_tap;
  for (int64_t ky = 0; ky < layer.kernel[0]; ++ky)
    for (int64_t kx = 0; kx < layer.kernel[1]; ++kx)
      phase_of_tap.push_back(phase_of(layer, 0, ky) * layer.stride[1] + phase_of(layer, 1, kx));
  std::vector<int32_t> row_of_column(layer.in_channels * taps);
  for (int64_t channel = 0; channel < layer.in_channels; ++channel)
    for (int64_t tap = 0; tap < taps; ++tap)
      row_of_column[channel * taps + tap] =
          static_cast<int32_t>(phase_of_tap[tap] * layer.in_channels + channel);

  // A counting sort: visited row by row, the entries of a transposed row come out in ascending order.
  std::vector<int32_t> next(rows + 1, 0);
  for (int64_t row = 0; row < forward.rows; ++row) {
    const int64_t first = forward.columns_before(row);
    for (int32_t e = forward.row_offsets[row]; e < forward.row_offsets[row + 1]; ++e)
      ++next[row_of_column[first + forward.columns[e]] + 1];
  }
  for (int64_t row = 0; row < rows; ++row) next[row + 1] += next[row];
  for (int64_t row = 0; row <= rows; ++row) row_offsets[row] = next[row];
  for (int64_t row = 0; row < forward.rows; ++row) {
    const int64_t first = forward.columns_before(row);
    for (int32_t e = forward.row_offsets[row]; e < forward.row_offsets[row + 1]; ++e) {
      const int64_t column = first + forward.columns[e];
      const int32_t place = next[row_of_column[column]]++;
      columns[place] = static_cast<int32_t>(row * taps + column % taps);
      order[place] = e;
    }
  }
}

}  // namespace lth_sparse
