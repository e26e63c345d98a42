// A BatchNorm's numbers of each channel, as its kernels for either layout need them.
#pragma once

#include <cmath>
#include <cstdint>

#include "activations.h"

namespace lth_sparse {

/// Two sums over a channel: in the forward pass of x and x^2, in the backward pass of dz and dz (x - mean), where dz is the
/// gradient that passes the clamp.
struct ChannelSums {
  double first = 0, second = 0;
};

/// The sum of squares of n values whose sum, mean (rounded) and sum of squares about that mean are these.
inline double sum_of_squares(double sum, float mean, double about_mean, double n) {
  return about_mean + 2 * double(mean) * sum - n * double(mean) * double(mean);
}

/// Sets the channel's statistics, and moves the running ones. NaN stays NaN.
inline void finish_statistics(const BatchNormForward& a, int64_t channel, ChannelSums sums) {
  const double n = double(a.images.count * a.images.pixels()), mean = sums.first / n;
  const double difference = sums.second / n - mean * mean, variance = difference < 0 ? 0 : difference;
  a.norm.mean[channel] = float(mean);
  a.norm.inverse_deviation[channel] = float(1 / std::sqrt(variance + a.epsilon));
  if (a.running_mean == nullptr) return;
  float& running_mean = a.running_mean[channel];
  float& running_var = a.running_var[channel];
  running_mean = float((1 - a.momentum) * running_mean + a.momentum * mean);
  running_var = float((1 - a.momentum) * running_var + a.momentum * variance * n / (n - 1));
}

/// z = (x - mean) * scale + bias, in both passes.
struct Affine {
  float mean, scale, bias;
};

inline Affine affine(const BatchNorm& norm, int64_t channel) {
  const float weight = norm.weight == nullptr ? 1 : norm.weight[channel];
  return {norm.mean[channel], norm.inverse_deviation[channel] * weight, norm.bias == nullptr ? 0 : norm.bias[channel]};
}

/// grad_x = dz * of_gradient + (x - mean) * of_x + constant.
struct GradientTerms {
  float of_gradient, of_x, constant;
};

/// Sets the gradients of weight and bias, and gives what makes grad_x.
inline GradientTerms finish_gradients(const BatchNormBackward& a, int64_t channel, ChannelSums sums) {
  const double n = double(a.images.count * a.images.pixels()), inverse = a.norm.inverse_deviation[channel];
  const double scale = inverse * (a.norm.weight == nullptr ? 1 : a.norm.weight[channel]);
  a.grad_bias[channel] = float(sums.first);
  a.grad_weight[channel] = float(sums.second * inverse);
  if (!a.norm.of_batch) return {float(scale), 0, 0};
  return {float(scale), float(-scale * inverse * inverse * sums.second / n), float(-scale * sums.first / n)};
}

}  // namespace lth_sparse
