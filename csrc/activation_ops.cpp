// The operators of what lies between convolutions: schemas, shape checks and nothing else.
//
// Images are float32, contiguous or channels_last, and all of a call in the same layout; a vector has an element for each
// channel. `taken` says of each window of a pool which of its four pixels was the largest, 4 if none was above 0.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cmath>
#include <functional>
#include <limits>
#include <optional>
#include <tuple>
#include <vector>

#include "arguments.h"
#include "cpu/dispatch.h"
#include "passes.h"

namespace lth_sparse {
namespace {

/// Each thread has the same share of the tasks at every call, and so finds in its own caches what it left there: threads that
/// take tasks as they come would fetch them from each other's.
const Parallel in_fixed_shares = [](int64_t count, const std::function<void(int64_t, int64_t)>& body) {
  if (count > 0) torch::stable::parallel_for(0, count, 1, body);
};

Images images_of(const Tensor& x, const char* name) {
  STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float, name, ": expected float32");
  STD_TORCH_CHECK(x.dim() == 4 && x.numel() > 0, name, ": got ", x.dim(), " dimensions and ", x.numel(),
                  " elements, expected 4, and at least 1");
  return images(x, name, x.size(1));
}

/// `expected` are another tensor's, which this one goes with.
void check_like(const Tensor& tensor, const char* name, ScalarType dtype, const Images& expected) {
  STD_TORCH_CHECK(tensor.scalar_type() == dtype && tensor.dim() == 4, name, ": expected another dtype, and 4 dimensions");
  STD_TORCH_CHECK(tensor.is_cpu() && tensor.size(0) == expected.count && tensor.size(1) == expected.channels &&
                      tensor.size(2) == expected.height && tensor.size(3) == expected.width,
                  name, ": expected [", expected.count, ", ", expected.channels, ", ", expected.height, ", ", expected.width,
                  "] on the CPU");
  STD_TORCH_CHECK(has_layout(tensor, expected.channels_last), name, ": expected the input's memory format");
}

Images pooled(const Images& x) {
  STD_TORCH_CHECK(x.height >= 2 && x.width >= 2, "input: got ", x.height, " x ", x.width, ", expected at least 2 x 2");
  return {x.count, x.channels, x.height / 2, x.width / 2, x.channels_last};
}

/// Single pixels lie the same way in both layouts, and whole vectors of channels are faster.
Images as_computed(Images x) {
  if (x.pixels() == 1) x.channels_last = true;
  return x;
}

const float* vector_data(const std::optional<Tensor>& tensor, const char* name, int64_t channels) {
  if (!tensor.has_value()) return nullptr;
  check_vector(*tensor, name, ScalarType::Float, channels);
  return tensor->const_data_ptr<float>();
}

float* writable(const std::optional<Tensor>& tensor, const char* name, int64_t channels) {
  return vector_data(tensor, name, channels) == nullptr ? nullptr : tensor->mutable_data_ptr<float>();
}

Tensor empty_vector(int64_t size) { return torch::stable::empty({size}, ScalarType::Float); }

Tensor empty_bytes(const Images& x) {
  return torch::stable::empty({x.count, x.channels, x.height, x.width}, ScalarType::Byte, std::nullopt, std::nullopt,
                              std::nullopt,
                              x.channels_last ? torch::headeronly::MemoryFormat::ChannelsLast
                                              : torch::headeronly::MemoryFormat::Contiguous);
}

/// ReLU is 0 and none.
Clamp clamp(const std::optional<double>& least, const std::optional<double>& greatest) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNaN = std::numeric_limits<float>::quiet_NaN();
  const auto or_else = [](const std::optional<double>& bound, float none) { return bound ? static_cast<float>(*bound) : none; };
  STD_TORCH_CHECK(or_else(least, -kInfinity) <= or_else(greatest, kInfinity), "least: expected none, or at most greatest");
  return {or_else(least, -kInfinity), or_else(greatest, kInfinity), or_else(least, kNaN), or_else(greatest, kNaN)};
}

const Activations& kernels() { return *instruction_set().activations(); }

/// (output, mean, inverse deviation, taken); taken is empty without a pool.
std::tuple<Tensor, Tensor, Tensor, Tensor> batch_norm(
    const Tensor& x, const std::optional<Tensor>& residual, const std::optional<Tensor>& weight,
    const std::optional<Tensor>& bias, const std::optional<Tensor>& running_mean, const std::optional<Tensor>& running_var,
    bool of_batch, double momentum, double epsilon, const std::optional<double>& least, const std::optional<double>& greatest,
    bool pool) {
  const Images in = images_of(x, "input");
  if (residual.has_value()) check_like(*residual, "residual", ScalarType::Float, in);
  STD_TORCH_CHECK(!pool || !residual.has_value(), "residual: expected none with a pool");
  STD_TORCH_CHECK(!pool || (least == 0.0 && !greatest.has_value()), "least, greatest: expected 0 and none, as ReLU, with a pool");
  STD_TORCH_CHECK(running_mean.has_value() == running_var.has_value(), "running_var: expected where there is a running_mean");
  STD_TORCH_CHECK(of_batch || running_mean.has_value(), "running_mean: expected one in evaluation mode");
  STD_TORCH_CHECK(!of_batch || in.count * in.pixels() > 1, "input: expected more than 1 value per channel when training");
  const Images out = pool ? pooled(in) : in;
  const int64_t channels = in.channels;
  Tensor output = empty_images(out, x), mean = empty_vector(channels), inverse = empty_vector(channels);
  Tensor taken = pool ? empty_bytes(out) : torch::stable::empty({0}, ScalarType::Byte);

  BatchNormForward a{};
  a.images = as_computed(in);
  a.x = x.const_data_ptr<float>();
  a.residual = residual.has_value() ? residual->const_data_ptr<float>() : nullptr;
  a.clamp = clamp(least, greatest);
  a.norm = {vector_data(weight, "weight", channels), vector_data(bias, "bias", channels), mean.mutable_data_ptr<float>(),
            inverse.mutable_data_ptr<float>(), of_batch};
  if (of_batch) {
    a.running_mean = writable(running_mean, "running_mean", channels);
    a.running_var = writable(running_var, "running_var", channels);
  } else {
    const float* const means = vector_data(running_mean, "running_mean", channels);
    const float* const variances = vector_data(running_var, "running_var", channels);
    for (int64_t c = 0; c < channels; ++c) {
      a.norm.mean[c] = means[c];
      a.norm.inverse_deviation[c] = static_cast<float>(1 / std::sqrt(variances[c] + epsilon));
    }
  }
  a.momentum = momentum;
  a.epsilon = epsilon;
  a.out = output.mutable_data_ptr<float>();
  a.taken = pool ? taken.mutable_data_ptr<uint8_t>() : nullptr;
  kernels().batch_norm(a, in_fixed_shares);
  return {output, mean, inverse, taken};
}

/// The gradients of (x, weight, bias, residual). `out`: where a residual was added and the sum clamped; else the residual's
/// gradient is empty here, and grad_out if there is a residual.
std::tuple<Tensor, Tensor, Tensor, Tensor> batch_norm_backward(
    const Tensor& grad_out, const Tensor& x, const std::optional<Tensor>& out, const std::optional<Tensor>& weight,
    const std::optional<Tensor>& bias, const Tensor& mean, const Tensor& inverse_deviation,
    const std::optional<Tensor>& taken, bool of_batch, const std::optional<double>& least,
    const std::optional<double>& greatest) {
  const Images in = images_of(x, "input");
  const int64_t channels = in.channels;
  const Images after = taken.has_value() ? pooled(in) : in;
  check_like(grad_out, "grad_out", ScalarType::Float, after);
  if (out.has_value()) check_like(*out, "out", ScalarType::Float, in);
  if (taken.has_value()) check_like(*taken, "taken", ScalarType::Byte, after);
  check_vector(mean, "mean", ScalarType::Float, channels);
  check_vector(inverse_deviation, "inverse_deviation", ScalarType::Float, channels);
  Tensor grad_x = empty_images(in, x), grad_weight = empty_vector(channels), grad_bias = empty_vector(channels);
  Tensor grad_residual = out.has_value() ? empty_images(in, x) : empty_vector(0);

  BatchNormBackward a{};
  a.images = as_computed(in);
  a.x = x.const_data_ptr<float>();
  a.out = out.has_value() ? out->const_data_ptr<float>() : nullptr;
  a.grad_out = grad_out.const_data_ptr<float>();
  a.taken = taken.has_value() ? taken->const_data_ptr<uint8_t>() : nullptr;
  a.clamp = clamp(least, greatest);
  a.norm = {vector_data(weight, "weight", channels), vector_data(bias, "bias", channels), mean.mutable_data_ptr<float>(),
            inverse_deviation.mutable_data_ptr<float>(), of_batch};
  a.grad_x = grad_x.mutable_data_ptr<float>();
  a.grad_residual = out.has_value() ? grad_residual.mutable_data_ptr<float>() : nullptr;
  a.grad_weight = grad_weight.mutable_data_ptr<float>();
  a.grad_bias = grad_bias.mutable_data_ptr<float>();
  kernels().batch_norm_backward(a, in_fixed_shares);
  return {grad_x, grad_weight, grad_bias, grad_residual};
}

/// (output, taken).
std::tuple<Tensor, Tensor> relu_max_pool(const Tensor& x) {
  const Images in = images_of(x, "input"), out = pooled(in);
  Tensor output = empty_images(out, x), taken = empty_bytes(out);
  kernels().relu_max_pool(in, x.const_data_ptr<float>(), output.mutable_data_ptr<float>(), taken.mutable_data_ptr<uint8_t>(),
                          in_fixed_shares);
  return {output, taken};
}

/// (gradient of x, its sums over each channel, which are the gradient of a bias before it; empty unless `summed`).
std::tuple<Tensor, Tensor> relu_max_pool_backward(const Tensor& grad_out, const Tensor& taken,
                                                  const std::vector<int64_t>& input_shape, bool channels_last,
                                                  bool summed) {
  images_of(grad_out, "grad_out");
  STD_TORCH_CHECK(input_shape.size() == 4, "input_shape: got ", input_shape.size(), " sizes, expected 4");
  const Images in{input_shape[0], input_shape[1], input_shape[2], input_shape[3], channels_last};
  const Images out = pooled(in);
  check_like(grad_out, "grad_out", ScalarType::Float, out);
  check_like(taken, "taken", ScalarType::Byte, out);
  Tensor grad_x = empty_images(in, grad_out), sums = empty_vector(summed ? in.channels : 0);
  const float* const gradient = grad_out.const_data_ptr<float>();
  const uint8_t* const places = taken.const_data_ptr<uint8_t>();
  if (summed) kernels().sums_of_pooled(as_computed(out), gradient, places, sums.mutable_data_ptr<float>(), in_fixed_shares);
  kernels().relu_max_pool_backward(in, gradient, places, grad_x.mutable_data_ptr<float>(), in_fixed_shares);
  return {grad_x, sums};
}

}  // namespace

void relu_backward(const Images& images, const float* out, const float* grad_out, float* grad_x, float* sums) {
  kernels().relu_backward(as_computed(images), out, grad_out, grad_x, sums, in_fixed_shares);
}

STABLE_TORCH_LIBRARY_FRAGMENT(lth_sparse_cpu, library) {
  library.def(
      "batch_norm(Tensor x, Tensor? residual, Tensor? weight, Tensor? bias, Tensor(a!)? running_mean, "
      "Tensor(b!)? running_var, bool of_batch, float momentum, float epsilon, float? least, float? greatest, bool pool) -> "
      "(Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "batch_norm_backward(Tensor grad_out, Tensor x, Tensor? out, Tensor? weight, Tensor? bias, Tensor mean, "
      "Tensor inverse_deviation, Tensor? taken, bool of_batch, float? least, float? greatest) -> (Tensor, Tensor, Tensor, Tensor)");
  library.def("relu_max_pool(Tensor x) -> (Tensor, Tensor)");
  library.def(
      "relu_max_pool_backward(Tensor grad_out, Tensor taken, int[] input_shape, bool channels_last, bool summed) -> "
      "(Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(lth_sparse_cpu, CPU, library) {
  library.impl("batch_norm", TORCH_BOX(&batch_norm));
  library.impl("batch_norm_backward", TORCH_BOX(&batch_norm_backward));
  library.impl("relu_max_pool", TORCH_BOX(&relu_max_pool));
  library.impl("relu_max_pool_backward", TORCH_BOX(&relu_max_pool_backward));
}

}  // namespace lth_sparse
