// A layer as the operators are given it, 11 integers, checked before any two of them are multiplied.
//
// in_channels, out_channels, then (rows, columns) of kernel, stride, padding and dilation, then groups. A linear layer is a
// 1 x 1 convolution whose input has two dimensions.
#pragma once

#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu/correlation.h"

namespace lth_sparse {

/// Whether no product of the sizes of images overflows: an image's are multiplied even where a batch has none.
inline bool is_small(const Images& x) {
  const bool sizes = x.count >= 0 && x.channels <= INT32_MAX && x.height >= 0 && x.width >= 0 && x.height <= INT32_MAX &&
                     x.width <= INT32_MAX;
  return sizes && x.pixels() <= INT32_MAX && x.channels * x.pixels() <= INT32_MAX;
}

/// Why the kernels do not take a layer of such integers, or null. With these bounds no product that is made of a layer and
/// real tensors overflows, and what the kernels keep for each column, tap or phase is small beside the layer's mask, or is
/// less than 100 MB.
inline const char* refusal(const Convolution& c) {
  constexpr int64_t kMostTaps = int64_t{1} << 20, kMostColumns = int64_t{1} << 24, kFarthest = int64_t{1} << 20;
  constexpr int64_t kMostPhases = 64;
  if (std::max(c.in_channels, c.out_channels) > INT32_MAX) return "it has 2^31 channels or more";
  for (int d = 0; d < 2; ++d) {
    if (c.kernel[d] > kMostTaps) return "its kernel has more than 2^20 entries";
    if (c.stride[d] > INT32_MAX) return "its stride is 2^31 or more";
    if (c.padding[d] > kFarthest) return "its padding is wider than 2^20";
    if (c.kernel[d] > 1 && c.dilation[d] > kFarthest / (c.kernel[d] - 1)) return "its kernel reaches further than 2^20";
  }
  if (c.taps() > kMostTaps) return "its kernel has more than 2^20 entries";
  if (c.taps() > 1 && std::max(c.in_channels, c.out_channels) * c.taps() > kMostColumns)
    return "its channels times the entries of its kernel are more than 2^24";
  if (c.phases() > std::max(kMostPhases, c.taps())) return "its stride leaves out most of the input";
  if (c.phases() * c.in_channels > INT32_MAX) return "its channels times its strides are 2^31 or more";
  return nullptr;
}

/// The layer, whether or not the kernels take it.
inline Convolution any_convolution(const std::vector<int64_t>& layer) {
  STD_TORCH_CHECK(layer.size() == 11, "layer: got ", layer.size(), " integers, expected 11");
  const Convolution c{layer[0],
                      layer[1],
                      {layer[2], layer[3]},
                      {layer[4], layer[5]},
                      {layer[6], layer[7]},
                      {layer[8], layer[9]},
                      layer[10]};
  bool positive = c.in_channels > 0 && c.out_channels > 0 && c.groups > 0;
  for (int d = 0; d < 2; ++d)
    positive = positive && c.kernel[d] > 0 && c.stride[d] > 0 && c.padding[d] >= 0 && c.dilation[d] > 0;
  STD_TORCH_CHECK(positive, "layer: expected positive integers, and a padding of at least 0");
  STD_TORCH_CHECK(c.in_channels % c.groups == 0 && c.out_channels % c.groups == 0, "layer: got ", c.in_channels,
                  " input and ", c.out_channels, " output channels, expected multiples of ", c.groups, " groups");
  return c;
}

inline Convolution convolution(const std::vector<int64_t>& layer) {
  const Convolution c = any_convolution(layer);
  const char* const reason = refusal(c);
  STD_TORCH_CHECK(reason == nullptr, "layer: the sparse kernels do not take it: ", reason);
  return c;
}

}  // namespace lth_sparse
