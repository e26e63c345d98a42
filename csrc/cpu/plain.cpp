#include "plain.h"

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "element.h"

namespace lth_sparse {
namespace {

/// Positions along a dimension, [begin, end), whose operand is a pixel of the input and not of its padding.
struct Inside {
  int64_t begin, end;

  Inside(const Correlation& c, int dimension, int64_t shift, int64_t positions) {
    const int64_t step = c.in_stride[dimension], size = dimension == 0 ? c.in.height : c.in.width;
    begin = std::clamp<int64_t>(ceil_div(std::max<int64_t>(-shift, 0), step), 0, positions);
    end = std::clamp<int64_t>(floor_div(size - 1 - shift, step) + 1, begin, positions);
  }
};

/// Calls use(place in `in`, pixel of `out`), the place within an image and a channel, for each position of a phase, given by its
/// first output pixel, at which the tap reads a pixel.
template <typename Use>
void for_each_product(const Correlation& c, int64_t tap, int64_t top, int64_t left, const Use& use) {
  const auto& shift = c.shifts[tap];
  const Inside rows(c, 0, shift[0], ceil_div(std::max<int64_t>(c.out.height - top, 0), c.out_stride[0]));
  const Inside columns(c, 1, shift[1], ceil_div(std::max<int64_t>(c.out.width - left, 0), c.out_stride[1]));
  for (int64_t j = rows.begin; j < rows.end; ++j)
    for (int64_t i = columns.begin; i < columns.end; ++i) {
      const int64_t y = j * c.in_stride[0] + shift[0], x = i * c.in_stride[1] + shift[1];
      const int64_t to_y = j * c.out_stride[0] + top, to_x = i * c.out_stride[1] + left;
      use((y * c.in.width + x) * c.in.pixel_step(), to_y * c.out.width + to_x);
    }
}

void check(const Correlation& c, const SparseRows& matrix) {
  const int64_t limit = matrix.column_limit(c.in.channels * c.taps());
  if (!matrix.offsets_ascend(0, matrix.rows) || any_outside(matrix.columns, 0, matrix.nnz(), limit))
    throw std::runtime_error(kNoMask);
  if (matrix.order != nullptr && any_outside(matrix.order, 0, matrix.nnz(), matrix.nnz())) throw std::runtime_error(kNoOrder);
}

}  // namespace

template <typename T, typename E>
void correlate_plainly(const Correlation& c, const SparseRows& matrix, const E* in, const T* values, const T* bias, bool relu,
                       E* out, const Parallel& parallel) {
  check(c, matrix);
  parallel(c.out.count * c.out.channels, [&](int64_t begin, int64_t end) {
    std::vector<T> sums(c.out.pixels());  // of a channel of an image
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / c.out.channels, channel = task % c.out.channels;
      const E* const from = in + image * c.in.image_step();
      std::fill(sums.begin(), sums.end(), bias == nullptr ? T(0) : bias[channel]);
      for (int64_t phase = 0; phase < c.phases(); ++phase) {
        const int64_t row = phase * c.out.channels + channel, before = matrix.columns_before(row);
        for (int64_t e = matrix.row_offsets[row]; e < matrix.row_offsets[row + 1]; ++e) {
          const int64_t column = before + matrix.columns[e];
          const T value = values[matrix.order == nullptr ? e : matrix.order[e]];
          const E* const operand = from + column / c.taps() * c.in.channel_step();
          for_each_product(c, column % c.taps(), phase / c.out_stride[1], phase % c.out_stride[1],
                           [&](int64_t source, int64_t pixel) { sums[pixel] += value * operand[source]; });
        }
      }
      E* const to = out + image * c.out.image_step() + channel * c.out.channel_step();
      // Not std::max, which gives 0 for NaN.
      for (int64_t pixel = 0; pixel < c.out.pixels(); ++pixel)
        to[pixel * c.out.pixel_step()] = E(relu && sums[pixel] < 0 ? T(0) : sums[pixel]);
    }
  });
}

template <typename T, typename E>
T gradient_of_value(const Correlation& c, const SparseRows& matrix, int64_t row, int64_t place, const E* in, const E* grad_out) {
  const int64_t column = matrix.columns_before(row) + matrix.columns[place];
  const E* const operand = in + column / c.taps() * c.in.channel_step();
  const E* const gradient = grad_out + row * c.out.channel_step();
  T sum = 0;
  for (int64_t image = 0; image < c.in.count; ++image)
    for_each_product(c, column % c.taps(), 0, 0, [&](int64_t source, int64_t pixel) {
      sum += operand[image * c.in.image_step() + source] * gradient[image * c.out.image_step() + pixel * c.out.pixel_step()];
    });
  return sum;
}

template <typename T, typename E>
void grad_weight_plainly(const Correlation& c, const SparseRows& matrix, const E* in, const E* grad_out, T* grad_values,
                         const Parallel& parallel) {
  check(c, matrix);
  parallel(matrix.rows, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      for (int64_t e = matrix.row_offsets[row]; e < matrix.row_offsets[row + 1]; ++e)
        grad_values[e] = gradient_of_value<T>(c, matrix, row, e, in, grad_out);
  });
}

#define LTH_SPARSE_INSTANTIATE(T, E)                                                                                        \
  template void correlate_plainly<T, E>(const Correlation&, const SparseRows&, const E*, const T*, const T*, bool, E*,       \
                                        const Parallel&);                                                                   \
  template void grad_weight_plainly<T, E>(const Correlation&, const SparseRows&, const E*, const E*, T*, const Parallel&);   \
  template T gradient_of_value<T, E>(const Correlation&, const SparseRows&, int64_t, int64_t, const E*, const E*)
LTH_SPARSE_INSTANTIATE(float, float);
LTH_SPARSE_INSTANTIATE(double, double);
LTH_SPARSE_INSTANTIATE(float, Bfloat16);
LTH_SPARSE_INSTANTIATE(float, Half);
#undef LTH_SPARSE_INSTANTIATE

}  // namespace lth_sparse
