// The kernels of csrc/cpu on threads that ThreadSanitizer sees: `make sanitize-threads` builds it with -fsanitize=thread.
//
//     races THREADS          every kernel on so many threads, by two callers at once; exit status 1 where a result is not that
//                            of one thread, bit for bit
//     races THREADS planted  a data race, for ThreadSanitizer to find
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "cpu/blocking.h"
#include "cpu/dense_weight.h"
#include "cpu/dispatch.h"
#include "torch_threads.h"

namespace lth_sparse {
namespace {

using Bytes = std::vector<char>;

struct Layer {
  const char* name;
  Convolution convolution;
  int64_t count, height, width;
  double live;
};

// in, out, kernel, stride, padding, dilation, groups; images of height x width; density.
const Layer kLayers[] = {
    {"3x3", {24, 20, {3, 3}, {1, 1}, {1, 1}, {1, 1}, 1}, 9, 14, 13, 0.1},
    {"3x3, few images", {16, 40, {3, 3}, {1, 1}, {1, 1}, {1, 1}, 1}, 2, 24, 22, 0.3},
    {"3x3, stride 2", {12, 24, {3, 3}, {2, 2}, {1, 1}, {1, 1}, 1}, 9, 15, 12, 0.2},
    {"3x3, dilated, groups", {12, 24, {3, 3}, {1, 1}, {2, 2}, {2, 2}, 2}, 8, 12, 13, 0.2},
    {"taps far outside", {8, 8, {2, 2}, {1, 1}, {60, 60}, {110, 110}, 1}, 4, 12, 12, 0.5},
    {"1x1", {48, 40, {1, 1}, {1, 1}, {0, 0}, {1, 1}, 1}, 9, 12, 12, 0.1},
    {"depthwise", {40, 40, {3, 3}, {1, 1}, {1, 1}, {1, 1}, 40}, 5, 17, 15, 0.7},
    {"depthwise 5x5, stride 2", {19, 19, {5, 5}, {2, 2}, {2, 2}, {1, 1}, 19}, 5, 17, 15, 0.7},
    {"linear, one row", {600, 300, {1, 1}, {1, 1}, {0, 0}, {1, 1}, 1}, 1, 1, 1, 0.5},
    {"linear", {300, 200, {1, 1}, {1, 1}, {0, 0}, {1, 1}, 1}, 37, 1, 1, 0.1},
    {"linear, many rows", {120, 90, {1, 1}, {1, 1}, {0, 0}, {1, 1}, 1}, 700, 1, 1, 0.1},
};

const char* const kElements[] = {"float", "double", "bfloat16", "float16"};

/// One caller: its threads, and what it has found.
struct Caller {
  torch::stable::Threads threads, alone;
  int64_t kernels = 0, differing = 0;

  explicit Caller(int64_t count) : threads(count), alone(1) {}

  /// `compute` writes its results into memory of these sizes; by all threads they have to be what they are by one.
  void compare(const std::string& what, const std::vector<int64_t>& bytes,
               const std::function<void(const std::vector<void*>&)>& compute) {
    std::vector<Bytes> results[2];
    for (int i = 0; i < 2; ++i) {
      torch::stable::threads = i == 0 ? &alone : &threads;
      std::vector<void*> places;
      for (const int64_t size : bytes) results[i].emplace_back(size, char(0x7f));
      for (Bytes& result : results[i]) places.push_back(result.data());
      compute(places);
    }
    ++kernels;
    if (results[0] == results[1]) return;
    ++differing;
    std::fprintf(stderr, "%s: differs from what one thread computes\n", what.c_str());
  }
};

/// Small numbers that every element type has.
Bytes numbers(int64_t count, Element element, std::mt19937& random) {
  Bytes result(count * bytes_of(element));
  for (int64_t i = 0; i < count; ++i) {
    const float value = static_cast<float>(static_cast<int>(random() % 17) - 8) / 4;
    char* const to = result.data() + i * bytes_of(element);
    const auto put = [&](auto number) { std::memcpy(to, &number, sizeof number); };
    switch (element) {
      case Element::kFloat: put(value); break;
      case Element::kDouble: put(static_cast<double>(value)); break;
      case Element::kBfloat16: put(Bfloat16(value)); break;
      case Element::kHalf: put(Half(value)); break;
    }
  }
  return result;
}

/// A layer's mask and its two matrices.
struct Matrices {
  std::vector<char> mask;
  std::vector<int32_t> offsets{0}, columns, transposed_offsets, transposed_columns, order;
  SparseRows rows, transposed;

  Matrices(const Layer& layer, std::mt19937& random) {
    const Convolution& c = layer.convolution;
    const int64_t columns_of_row = c.in_channels / c.groups * c.taps();
    for (int64_t row = 0; row < c.out_channels; ++row) {
      for (int64_t column = 0; column < columns_of_row; ++column) {
        mask.push_back(random() % 1000 < layer.live * 1000);
        if (mask.back()) columns.push_back(static_cast<int32_t>(column));
      }
      offsets.push_back(static_cast<int32_t>(columns.size()));
    }
    rows = {offsets.data(), columns.data(), nullptr, c.out_channels, c.out_channels / c.groups, columns_of_row};
    const int64_t transposed_rows = c.phases() * c.in_channels;
    transposed_offsets.resize(transposed_rows + 1);
    transposed_columns.resize(columns.size());
    order.resize(columns.size());
    transpose(c, rows, transposed_offsets.data(), transposed_columns.data(), order.data());
    transposed = {transposed_offsets.data(), transposed_columns.data(), order.data(), transposed_rows, transposed_rows, 0};
  }
};

void check_sparse(Caller& caller, const std::string& name, const Layer& layer, const Matrices& m, const Images& x,
                  const Images& y, Element element, std::mt19937& random) {
  const Convolution& c = layer.convolution;
  const int64_t nnz = m.rows.nnz(), bytes = bytes_of(element), in = x.count * x.image_step(), out = y.count * y.image_step();
  const Bytes input = numbers(in, element, random), gradient = numbers(out, element, random);
  const Bytes values = numbers(nnz, element, random), bias = numbers(c.out_channels, element, random);
  const bool doubles = element == Element::kDouble;
  const Machine machine = doubles ? Machine{8, 16} : instruction_set().machine;
  const auto kernels = doubles ? &double_kernels : instruction_set().kernels;
  const auto blocking = [&](const Correlation& correlation, bool summed) {
    return choose_blocking(correlation, nnz, element, machine, torch::stable::get_num_threads(), summed);
  };
  caller.compare(name + ", forward", {out * bytes}, [&](const std::vector<void*>& to) {
    const Correlation correlation = forward_correlation(c, x, y);
    const Blocking b = blocking(correlation, false);
    kernels(b.width)->correlate(correlation, m.rows, b, element, input.data(), values.data(), bias.data(), true, to[0], parallel);
  });
  caller.compare(name + ", grad_input", {in * bytes}, [&](const std::vector<void*>& to) {
    const Correlation correlation = grad_input_correlation(c, y, x);
    const Blocking b = blocking(correlation, false);
    kernels(b.width)->correlate(correlation, m.transposed, b, element, gradient.data(), values.data(), nullptr, false, to[0],
                                parallel);
  });
  caller.compare(name + ", grad_weight", {nnz * bytes}, [&](const std::vector<void*>& to) {
    const Correlation correlation = forward_correlation(c, x, y);
    const Blocking b = blocking(correlation, true);
    kernels(b.width)->grad_weight(correlation, m.rows, b, element, input.data(), gradient.data(), to[0], parallel);
  });
  if (x.pixels() > 1 || c.taps() > 1) return;
  const int64_t features = std::max(c.in_channels, c.out_channels);
  const LinearKernels* const linear =
      doubles ? linear_doubles(x.count, features) : instruction_set().linear(element, x.count, features);
  if (linear == nullptr) return;
  const auto as_linear = [&] {
    return LinearLayer{m.rows, m.transposed, c.in_channels, c.out_channels, x.count, torch::stable::get_num_threads()};
  };
  caller.compare(name + ", linear forward", {out * bytes}, [&](const std::vector<void*>& to) {
    linear->forward(as_linear(), input.data(), values.data(), bias.data(), true, to[0], parallel);
  });
  caller.compare(name + ", linear grad_input", {in * bytes}, [&](const std::vector<void*>& to) {
    linear->grad_input(as_linear(), gradient.data(), values.data(), to[0], parallel);
  });
  caller.compare(name + ", linear grad_weight", {nnz * bytes}, [&](const std::vector<void*>& to) {
    linear->grad_weight(as_linear(), input.data(), gradient.data(), to[0], parallel);
  });
}

const float* floats(const Bytes& bytes) { return reinterpret_cast<const float*>(bytes.data()); }
float* floats(void* place) { return static_cast<float*>(place); }

/// What is of floats alone: Winograd's algorithm, depthwise kernels, the dense weight.
void check_floats(Caller& caller, const std::string& name, const Layer& layer, const Matrices& m, const Images& x,
                  const Images& y, std::mt19937& random) {
  const Convolution& c = layer.convolution;
  const int64_t nnz = m.rows.nnz(), in = x.count * x.image_step() * 4, out = y.count * y.image_step() * 4;
  const Bytes input = numbers(in / 4, Element::kFloat, random), gradient = numbers(out / 4, Element::kFloat, random);
  const Bytes values = numbers(nnz, Element::kFloat, random), bias = numbers(c.out_channels, Element::kFloat, random);
  if (has_winograd(c)) {
    const WinogradKernels& winograd = *instruction_set().winograd();
    const auto threads = [] { return static_cast<int>(torch::stable::get_num_threads()); };
    for (const int tile : {2, 4}) {
      const std::string of = name + ", Winograd " + std::to_string(tile);
      caller.compare(of + ", forward", {out}, [&](const std::vector<void*>& to) {
        winograd.correlate(forward_correlation(c, x, y), m.rows, false, tile, threads(), floats(input), floats(values),
                           floats(bias), true, floats(to[0]), parallel);
      });
      caller.compare(of + ", grad_input", {in}, [&](const std::vector<void*>& to) {
        winograd.correlate(grad_input_correlation(c, y, x), m.rows, true, tile, threads(), floats(gradient), floats(values),
                           nullptr, false, floats(to[0]), parallel);
      });
      caller.compare(of + ", grad_weight", {nnz * 4}, [&](const std::vector<void*>& to) {
        winograd.grad_weight(forward_correlation(c, x, y), m.rows, tile, threads(), floats(input), floats(gradient),
                             floats(to[0]), parallel);
      });
    }
  }
  if (has_depthwise(c)) {
    const DepthwiseKernels& depthwise = *instruction_set().depthwise(c);
    const DepthwiseLayer of{m.rows, x, y, c.padding};
    caller.compare(name + ", depthwise forward", {out}, [&](const std::vector<void*>& to) {
      depthwise.forward(of, floats(input), floats(values), floats(bias), true, floats(to[0]), parallel);
    });
    caller.compare(name + ", depthwise grad_input", {in}, [&](const std::vector<void*>& to) {
      depthwise.grad_input(of, floats(gradient), floats(values), floats(to[0]), parallel);
    });
    caller.compare(name + ", depthwise grad_weight", {nnz * 4}, [&](const std::vector<void*>& to) {
      depthwise.grad_weight(of, floats(input), floats(gradient), floats(to[0]), parallel);
    });
  }
  const int64_t size = static_cast<int64_t>(m.mask.size());
  const LiveWeights live{reinterpret_cast<const bool*>(m.mask.data()), m.rows.row_offsets, m.rows.columns, c.out_channels,
                         c.in_channels / c.groups, c.taps(), x.channels_last, false};
  const Bytes dense = numbers(size, Element::kFloat, random);
  caller.compare(name + ", scatter", {size * 4}, [&](const std::vector<void*>& to) {
    scatter(live, reinterpret_cast<const uint32_t*>(values.data()), static_cast<uint32_t*>(to[0]), parallel);
  });
  caller.compare(name + ", gather", {nnz * 4}, [&](const std::vector<void*>& to) {
    gather(live, reinterpret_cast<const uint32_t*>(dense.data()), static_cast<uint32_t*>(to[0]), parallel);
  });
}

/// As csrc/activation_ops.cpp gives them out.
const Parallel in_fixed_shares = [](int64_t count, const std::function<void(int64_t, int64_t)>& body) {
  if (count > 0) torch::stable::parallel_for(0, count, 1, body);
};

void check_activations(Caller& caller, const std::string& name, const Images& x, std::mt19937& random) {
  const Activations& kernels = *instruction_set().activations();
  const Images half{x.count, x.channels, x.height / 2, x.width / 2, x.channels_last};
  const int64_t size = x.count * x.image_step(), pooled = half.count * half.image_step(), of_channels = x.channels * 4;
  const Bytes input = numbers(size, Element::kFloat, random), other = numbers(size, Element::kFloat, random);
  const Bytes weight = numbers(x.channels, Element::kFloat, random), bias = numbers(x.channels, Element::kFloat, random);
  const float kInfinity = std::numeric_limits<float>::infinity(), kNaN = std::numeric_limits<float>::quiet_NaN();
  const Clamp relu{0, kInfinity, 0, kNaN};
  std::vector<uint8_t> taken(pooled);
  for (uint8_t& place : taken) place = static_cast<uint8_t>(random() % 5);
  for (const bool pool : {false, true}) {
    const int64_t after = pool ? pooled : size;
    const std::string of = name + (pool ? ", BatchNorm with a pool" : ", BatchNorm");
    caller.compare(of, {after * 4, of_channels, of_channels, of_channels, of_channels, pool ? pooled : 0},
                   [&](const std::vector<void*>& to) {
                     BatchNormForward a{};
                     a.images = x;
                     a.x = floats(input);
                     a.residual = pool ? nullptr : floats(other);
                     a.clamp = relu;
                     a.norm = {floats(weight), floats(bias), floats(to[1]), floats(to[2]), true};
                     a.running_mean = floats(to[3]);
                     a.running_var = floats(to[4]);
                     std::fill_n(a.running_mean, x.channels, 0.0f);
                     std::fill_n(a.running_var, x.channels, 1.0f);
                     a.momentum = 0.1;
                     a.epsilon = 1e-5;
                     a.out = floats(to[0]);
                     a.taken = pool ? static_cast<uint8_t*>(to[5]) : nullptr;
                     kernels.batch_norm(a, in_fixed_shares);
                   });
    caller.compare(of + ", backward", {size * 4, size * 4, of_channels, of_channels}, [&](const std::vector<void*>& to) {
      std::vector<float> mean(x.channels, 0.1f), inverse(x.channels, 0.9f);
      BatchNormBackward a{};
      a.images = x;
      a.x = floats(input);
      a.out = pool ? nullptr : floats(other);
      a.grad_out = floats(other);
      a.taken = pool ? taken.data() : nullptr;
      a.clamp = relu;
      a.norm = {floats(weight), floats(bias), mean.data(), inverse.data(), true};
      a.grad_x = floats(to[0]);
      a.grad_residual = pool ? nullptr : floats(to[1]);
      a.grad_weight = floats(to[2]);
      a.grad_bias = floats(to[3]);
      kernels.batch_norm_backward(a, in_fixed_shares);
    });
  }
  caller.compare(name + ", ReLU and pool", {pooled * 4, pooled}, [&](const std::vector<void*>& to) {
    kernels.relu_max_pool(x, floats(input), floats(to[0]), static_cast<uint8_t*>(to[1]), in_fixed_shares);
  });
  caller.compare(name + ", ReLU and pool, backward", {size * 4, of_channels}, [&](const std::vector<void*>& to) {
    kernels.relu_max_pool_backward(x, floats(other), taken.data(), floats(to[0]), in_fixed_shares);
    kernels.sums_of_pooled(half, floats(other), taken.data(), floats(to[1]), in_fixed_shares);
  });
  caller.compare(name + ", ReLU, backward", {size * 4, of_channels}, [&](const std::vector<void*>& to) {
    kernels.relu_backward(x, floats(input), floats(other), floats(to[0]), floats(to[1]), in_fixed_shares);
  });
}

void check_all(Caller& caller) {
  std::mt19937 random(0);
  for (const Layer& layer : kLayers) {
    const Matrices matrices(layer, random);
    for (const bool channels_last : {false, true}) {
      const Images x{layer.count, layer.convolution.in_channels, layer.height, layer.width, channels_last};
      const Images y = output_of(layer.convolution, x);
      const std::string name = std::string(layer.name) + (channels_last ? ", channels_last" : ", contiguous");
      for (const Element element : {Element::kFloat, Element::kDouble, Element::kBfloat16, Element::kHalf})
        check_sparse(caller, name + ", " + kElements[static_cast<int>(element)], layer, matrices, x, y, element, random);
      check_floats(caller, name, layer, matrices, x, y, random);
      if (x.pixels() > 1) check_activations(caller, name, x, random);
    }
  }
}

/// The counter of torch_threads.h, were it no atomic.
int64_t planted(int64_t count) {
  torch::stable::Threads threads(count);
  torch::stable::threads = &threads;
  int64_t calls = 0;
  parallel(1000, [&](int64_t begin, int64_t end) { calls += end - begin; });
  return calls;
}

}  // namespace
}  // namespace lth_sparse

int main(int count, char** arguments) {
  const int64_t threads = count > 1 ? std::atoll(arguments[1]) : 2;
  if (count > 2) {
    std::printf("%lld calls\n", static_cast<long long>(lth_sparse::planted(threads)));
    return 0;
  }
  lth_sparse::Caller callers[2] = {lth_sparse::Caller(threads), lth_sparse::Caller(threads)};
  std::thread first([&] { lth_sparse::check_all(callers[0]); }), second([&] { lth_sparse::check_all(callers[1]); });
  first.join();
  second.join();
  std::printf("%s: %lld kernels on %lld threads, by two callers\n", lth_sparse::instruction_set().name,
              static_cast<long long>(callers[0].kernels + callers[1].kernels), static_cast<long long>(threads));
  return callers[0].differing + callers[1].differing == 0 ? 0 : 1;
}
