// The operators of inference: a network is described once, checked, and made ready; a number stands for it from then on.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "arguments.h"
#include "cpu/dispatch.h"
#include "cpu/inference/network.h"
#include "layer_arguments.h"
#include "torch_threads.h"

namespace lth_sparse {
namespace {

using inference::Description;
using inference::Kind;
using inference::Network;
using inference::Operation;
using inference::Shape;

/// The numbers of a description, one after the other.
class Reader {
 public:
  explicit Reader(const std::vector<int64_t>& numbers) : numbers_(numbers) {}

  int64_t next() {
    STD_TORCH_CHECK(at_ < numbers_.size(), "program: it ends in the middle of an operation");
    return numbers_[at_++];
  }
  /// The next one, in [least, end).
  int64_t next(int64_t least, int64_t end, const char* name) {
    const int64_t number = next();
    STD_TORCH_CHECK(number >= least && number < end, "program: got ", number, " as ", name, ", expected ", least, " or more, below ", end);
    return number;
  }
  void finish() const { STD_TORCH_CHECK(at_ == numbers_.size(), "program: there is more of it than its operations"); }

 private:
  const std::vector<int64_t>& numbers_;
  size_t at_ = 0;
};

/// Images have as many zeros around them as any convolution reaches beyond them: a wider padding than this is at most the image.
constexpr int64_t kAnyPadding = 8;
constexpr int64_t kMostValues = int64_t{1} << 20, kMostFloats = int64_t{1} << 31;

/// Which part of each of the tensors of weights has been taken.
struct Taken {
  const Tensor &row_offsets, &columns, &values, &bias;
  int64_t rows = 0, live = 0, biases = 0;
};

class Builder {
 public:
  Builder(Reader reader, const std::vector<double>& bounds, const Taken& weights) : reader_(reader), bounds_(bounds), taken_(weights) {}

  Description build() {
    const int64_t values = reader_.next(1, kMostValues, "the number of values");
    for (int64_t k = 0; k < values; ++k) {
      Shape shape{};
      shape.channels = reader_.next(1, kMostFloats, "channels");
      shape.height = reader_.next(1, kMostFloats, "height");
      shape.width = reader_.next(1, kMostFloats, "width");
      check_size(shape, 0, 0);
      network_.values.push_back(shape);
    }
    defined_.resize(values, false);
    const int64_t operations = reader_.next(1, kMostValues, "the number of operations");
    STD_TORCH_CHECK(static_cast<int64_t>(bounds_.size()) == 2 * operations, "bounds: got ", bounds_.size(), ", expected two for each of ",
                    operations, " operations");
    for (int64_t k = 0; k < operations; ++k) network_.operations.push_back(operation(k));
    reader_.finish();
    STD_TORCH_CHECK(taken_.rows == taken_.row_offsets.numel() && taken_.live == taken_.columns.numel() &&
                        taken_.live == taken_.values.numel() && taken_.biases == taken_.bias.numel(),
                    "program: its convolutions have fewer weights than were given");
    return std::move(network_);
  }

 private:
  /// Offsets are 32 bits wide, and count from a tile into the zeros around an image.
  static void check_size(const Shape& shape, int64_t rows, int64_t columns) {
    const double floats = static_cast<double>(shape.channels) * static_cast<double>(shape.height + 2 * rows + 1) *
                          static_cast<double>(shape.width + 2 * columns + 2) * 16.0;
    STD_TORCH_CHECK(floats < static_cast<double>(kMostFloats), "program: an image of ", shape.channels, " x ", shape.height, " x ",
                    shape.width, " is too large");
  }

  int64_t defined_value() {
    const int64_t value = reader_.next(0, static_cast<int64_t>(network_.values.size()), "a value");
    STD_TORCH_CHECK(defined_[value], "program: value ", value, " is used before it is computed");
    return value;
  }
  const Shape& shape(int64_t value) const { return network_.values[value]; }

  Operation operation(int64_t index) {
    Operation result{};
    result.kind = static_cast<Kind>(reader_.next(0, inference::kKinds, "a kind of operation"));
    result.bounds = {static_cast<float>(bounds_[2 * index]), static_cast<float>(bounds_[2 * index + 1])};
    STD_TORCH_CHECK(result.bounds.least <= result.bounds.greatest, "bounds: expected the least before the greatest");
    if (result.kind == Kind::kOutput) {
      result.result = network_.outputs++;
      result.operands = {defined_value()};
      return result;
    }
    result.result = reader_.next(0, static_cast<int64_t>(network_.values.size()), "a value");
    STD_TORCH_CHECK(!defined_[result.result], "program: value ", result.result, " is computed twice");
    const Shape out = shape(result.result);
    switch (result.kind) {
      case Kind::kInput: result.operands = {network_.inputs++}; break;
      case Kind::kConvolution: convolution(result, out); break;
      case Kind::kMaxPool:
      case Kind::kAveragePool: pool(result, out); break;
      case Kind::kGlobalAverage:
        result.operands = {defined_value()};
        check_shape(out, {shape(result.operands[0]).channels, 1, 1});
        break;
      case Kind::kAdd: result.operands = {defined_value(), defined_value()}; break;
      case Kind::kClamp: result.operands = {defined_value()}; break;
      case Kind::kConcatenate: concatenate(result, out); break;
      case Kind::kOutput: break;
    }
    if (result.kind == Kind::kAdd || result.kind == Kind::kClamp)
      for (const int64_t operand : result.operands) check_shape(out, shape(operand));
    defined_[result.result] = true;
    return result;
  }

  static void check_shape(const Shape& got, const Shape& expected) {
    STD_TORCH_CHECK(got == expected, "program: got a result of ", got.channels, " x ", got.height, " x ", got.width, ", expected ",
                    expected.channels, " x ", expected.height, " x ", expected.width);
  }

  /// in_channels, out_channels, kernel, stride, padding, dilation and groups, of a window on `in` that gives `out`.
  Convolution window(const Shape& in, const Shape& out) {
    std::vector<int64_t> numbers;
    for (int k = 0; k < 11; ++k) numbers.push_back(reader_.next());
    const Convolution c = lth_sparse::convolution(numbers);
    const Images result = output_of(c, {1, in.channels, in.height, in.width, false});
    STD_TORCH_CHECK(c.in_channels == in.channels, "program: got a window on ", c.in_channels, " channels of ", in.channels);
    check_shape(out, {c.out_channels, result.height, result.width});
    STD_TORCH_CHECK(c.padding[0] <= std::max(in.height, kAnyPadding) && c.padding[1] <= std::max(in.width, kAnyPadding),
                    "program: got a padding of ", c.padding[0], " x ", c.padding[1], ", expected one no larger than the image");
    check_size(in, c.padding[0], c.padding[1]);
    return c;
  }

  void pool(Operation& operation, const Shape& out) {
    operation.operands = {defined_value()};
    operation.window = window(shape(operation.operands[0]), out);
    const Convolution& c = operation.window;
    STD_TORCH_CHECK(c.in_channels == c.out_channels, "program: a pool has as many channels as its input");
    for (int d = 0; d < 2; ++d)
      STD_TORCH_CHECK(2 * c.padding[d] <= c.kernel[d] && c.dilation[d] == 1,
                      "program: a pool has no dilation, and a padding of at most half its kernel");
  }

  void convolution(Operation& operation, const Shape& out) {
    operation.operands = {defined_value()};
    operation.added = reader_.next(-1, static_cast<int64_t>(network_.values.size()), "a value to add");
    if (operation.added >= 0) {
      STD_TORCH_CHECK(defined_[operation.added], "program: value ", operation.added, " is used before it is computed");
      check_shape(out, shape(operation.added));
    }
    operation.window = window(shape(operation.operands[0]), out);
    const Convolution& c = operation.window;
    const int64_t rows = c.out_channels + 1, columns = c.in_channels / c.groups * c.taps();
    STD_TORCH_CHECK(taken_.rows + rows <= taken_.row_offsets.numel() && taken_.biases + c.out_channels <= taken_.bias.numel(),
                    "program: it has more outputs than there are weights");
    const int32_t* const offsets = taken_.row_offsets.const_data_ptr<int32_t>() + taken_.rows;
    bool ascend = offsets[0] == 0;
    for (int64_t row = 0; row + 1 < rows; ++row) ascend = ascend && offsets[row] <= offsets[row + 1];
    STD_TORCH_CHECK(ascend && taken_.live + offsets[rows - 1] <= taken_.columns.numel(), kNoMask);
    const int32_t* const live = taken_.columns.const_data_ptr<int32_t>() + taken_.live;
    STD_TORCH_CHECK(!any_outside(live, 0, offsets[rows - 1], columns), kNoMask);
    for (int64_t row = 0; row + 1 < rows; ++row)
      for (int32_t e = offsets[row] + 1; e < offsets[row + 1]; ++e) STD_TORCH_CHECK(live[e - 1] < live[e], kNoMask);
    operation.weights.row_offsets.assign(offsets, offsets + rows);
    operation.weights.columns.assign(live, live + offsets[rows - 1]);
    const float* const values = taken_.values.const_data_ptr<float>() + taken_.live;
    operation.weights.values.assign(values, values + offsets[rows - 1]);
    const float* const bias = taken_.bias.const_data_ptr<float>() + taken_.biases;
    operation.bias.assign(bias, bias + c.out_channels);
    taken_.rows += rows;
    taken_.live += offsets[rows - 1];
    taken_.biases += c.out_channels;
  }

  void concatenate(Operation& operation, const Shape& out) {
    const int64_t parts = reader_.next(1, kMostValues, "the number of parts");
    int64_t channels = 0;
    for (int64_t k = 0; k < parts; ++k) {
      operation.operands.push_back(defined_value());
      const Shape& part = shape(operation.operands.back());
      channels += part.channels;
      check_shape({part.channels, out.height, out.width}, part);
    }
    check_shape(out, {channels, out.height, out.width});
  }

  Reader reader_;
  const std::vector<double>& bounds_;
  Taken taken_;
  Description network_;
  std::vector<bool> defined_;
};

std::mutex networks_mutex;
std::map<int64_t, std::shared_ptr<Network>>& networks() {
  static auto* const known = new std::map<int64_t, std::shared_ptr<Network>>();
  return *known;
}

std::shared_ptr<Network> known(int64_t number) {
  const std::lock_guard<std::mutex> guard(networks_mutex);
  const auto found = networks().find(number);
  STD_TORCH_CHECK(found != networks().end(), "network: there is none of number ", number);
  return found->second;
}

int64_t network(const std::vector<int64_t>& program, const std::vector<double>& bounds, const Tensor& row_offsets,
                const Tensor& columns, const Tensor& values, const Tensor& bias) {
  const inference::Kernels* const kernels = instruction_set().inference();
  STD_TORCH_CHECK(kernels != nullptr, "there are no kernels of inference for ", instruction_set().name);
  check_vector(row_offsets, "row_offsets", ScalarType::Int, row_offsets.numel());
  check_vector(columns, "columns", ScalarType::Int, columns.numel());
  check_vector(values, "values", ScalarType::Float, columns.numel());
  check_vector(bias, "bias", ScalarType::Float, bias.numel());
  Description description = Builder(Reader(program), bounds, Taken{row_offsets, columns, values, bias}).build();
  auto made = std::make_shared<Network>(std::move(description), *kernels, static_cast<int>(torch::stable::get_num_threads()));
  const std::lock_guard<std::mutex> guard(networks_mutex);
  // No small number, such as somebody may give by mistake, is that of a network.
  static int64_t last = int64_t{1} << 32;
  networks()[++last] = std::move(made);
  return last;
}

void release(int64_t number) {
  const std::lock_guard<std::mutex> guard(networks_mutex);
  networks().erase(number);
}

struct Arguments {
  std::vector<const float*> inputs;
  std::vector<Tensor> results;
  std::vector<float*> outputs;
  int64_t batch = 0;
};

Arguments arguments(const Description& description, const std::vector<Tensor>& inputs) {
  Arguments result;
  STD_TORCH_CHECK(static_cast<int64_t>(inputs.size()) == description.inputs, "inputs: got ", inputs.size(), " tensors, expected ",
                  description.inputs);
  result.inputs.resize(inputs.size());
  for (size_t k = 0; k < inputs.size(); ++k) {
    STD_TORCH_CHECK(inputs[k].dim() == 4, "input: got ", inputs[k].dim(), " dimensions, expected 4");
    if (k == 0) result.batch = inputs[k].size(0);
    STD_TORCH_CHECK(inputs[k].size(0) == result.batch, "inputs: expected as many images in each");
  }
  for (const Operation& operation : description.operations) {
    const Shape& shape = description.values[operation.kind == Kind::kOutput ? operation.operands[0] : operation.result];
    if (operation.kind == Kind::kInput) {
      const Tensor& x = inputs[operation.operands[0]];
      STD_TORCH_CHECK(x.is_cpu() && x.scalar_type() == ScalarType::Float && has_layout(x, false),
                      "input: expected contiguous float32 on the CPU");
      STD_TORCH_CHECK(x.size(1) == shape.channels && x.size(2) == shape.height && x.size(3) == shape.width, "input: got images of ",
                      x.size(1), " x ", x.size(2), " x ", x.size(3), ", expected ", shape.channels, " x ", shape.height, " x ", shape.width);
      result.inputs[operation.operands[0]] = x.const_data_ptr<float>();
    } else if (operation.kind == Kind::kOutput) {
      result.results.push_back(torch::stable::empty({result.batch, shape.channels, shape.height, shape.width}, ScalarType::Float));
      result.outputs.push_back(result.results.back().mutable_data_ptr<float>());
    }
  }
  return result;
}

std::vector<Tensor> run(int64_t number, const std::vector<Tensor>& inputs) {
  const std::shared_ptr<Network> network = known(number);
  Arguments given = arguments(network->description(), inputs);
  network->run(given.inputs, given.outputs, given.batch, parallel);
  return given.results;
}

std::vector<double> times(int64_t number, const std::vector<Tensor>& inputs) {
  const std::shared_ptr<Network> network = known(number);
  Arguments given = arguments(network->description(), inputs);
  return network->timed(given.inputs, given.outputs, given.batch, parallel);
}

int64_t bytes(int64_t number, bool of_images) { return known(number)->bytes(of_images); }

STABLE_TORCH_LIBRARY_FRAGMENT(lth_sparse_cpu, library) {
  library.def(
      "inference_network(int[] program, float[] bounds, Tensor row_offsets, Tensor columns, Tensor values, Tensor bias) -> int");
  library.def("inference_release(int network) -> ()");
  library.def("inference_run(int network, Tensor[] inputs) -> Tensor[]");
  library.def("inference_times(int network, Tensor[] inputs) -> float[]");
  library.def("inference_bytes(int network, bool of_images) -> int");
}

STABLE_TORCH_LIBRARY_IMPL(lth_sparse_cpu, CompositeExplicitAutograd, library) {
  library.impl("inference_network", TORCH_BOX(&network));
  library.impl("inference_release", TORCH_BOX(&release));
  library.impl("inference_run", TORCH_BOX(&run));
  library.impl("inference_times", TORCH_BOX(&times));
  library.impl("inference_bytes", TORCH_BOX(&bytes));
}

}  // namespace
}  // namespace lth_sparse
