#include "layer.h"

#include <ATen/record_function.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <mutex>

#include "../cpu/huge_pages.h"
#include "../dtypes.h"
#include "dense_passes.h"
#include "plain.h"

namespace lth_sparse {

using at::Tensor;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

const KernelTable* kernels = nullptr;

Tensor empty(at::IntArrayRef sizes, const Tensor& like, bool channels_last) {
  const auto format = channels_last && sizes.size() == 4 ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
  Tensor result = at::empty(sizes, like.options().memory_format(format));
  // As empty_images of ../arguments.h.
  advise_huge_pages(result.mutable_data_ptr(), result.nbytes(), 2);
  return result;
}

namespace {

Tensor empty_images(const LayerPlan& plan, const Images& images, const Tensor& like) {
  if (plan.linear) return empty({images.count, images.channels}, like, false);
  return empty({images.count, images.channels, images.height, images.width}, like, images.channels_last);
}

const char* label(int by, const char* sparse, const char* depthwise, const char* winograd) {
  return by == kSparse ? sparse : by == kDepthwise ? depthwise : winograd;
}

}  // namespace

Tensor weights_of(const LayerPlan& plan, int by, const Tensor& values, const Images& x) {
  return by == kDense ? dense_weight(plan, values, x) : values;
}

Tensor run_forward(const LayerPlan& plan, int by, const Operand& x, const Tensor& weights, const Tensor& bias, bool relu) {
  if (by == kDense) return dense_forward(plan, x, weights, bias, relu);
  RECORD_FUNCTION(label(by, "lth_sparse_cpu::forward", "lth_sparse_cpu::depthwise_forward", "lth_sparse_cpu::winograd_forward"),
                  std::vector<c10::IValue>({x.tensor, weights, bias}));
  const Images out = output_of(plan.convolution, x.images);
  const Tensor output = empty_images(plan, out, x.tensor);
  const void* const biases = bias.defined() ? bias.const_data_ptr() : nullptr;
  if (by == kSparse)
    kernels->sparse_forward(plan.convolution, plan.rows, x.images, out, *element_of(weights.scalar_type()),
                            x.tensor.const_data_ptr(), weights.const_data_ptr(), biases, relu, output.mutable_data_ptr());
  else if (by == kDepthwise)
    kernels->depthwise_forward(plan.convolution, plan.rows, x.images, out, x.tensor.const_data_ptr<float>(),
                               weights.const_data_ptr<float>(), static_cast<const float*>(biases), relu,
                               output.mutable_data_ptr<float>());
  else
    kernels->winograd_forward(plan.convolution, plan.rows, x.images, out, by, x.tensor.const_data_ptr<float>(),
                              weights.const_data_ptr<float>(), static_cast<const float*>(biases), relu,
                              output.mutable_data_ptr<float>());
  return output;
}

Tensor run_grad_input(const LayerPlan& plan, int by, const Operand& grad, const Tensor& weights, const Images& x) {
  if (by == kDense) return dense_grad_input(plan, grad, weights, x);
  RECORD_FUNCTION(label(by, "lth_sparse_cpu::grad_input", "lth_sparse_cpu::depthwise_grad_input",
                        "lth_sparse_cpu::winograd_grad_input"),
                  std::vector<c10::IValue>({grad.tensor, weights}));
  const Tensor gradient = empty_images(plan, x, grad.tensor);
  if (by == kSparse)
    kernels->sparse_grad_input(plan.convolution, plan.rows, plan.transposed, grad.images, x, *element_of(weights.scalar_type()),
                               grad.tensor.const_data_ptr(), weights.const_data_ptr(), gradient.mutable_data_ptr());
  else if (by == kDepthwise)
    kernels->depthwise_grad_input(plan.convolution, plan.rows, grad.images, x, grad.tensor.const_data_ptr<float>(),
                                  weights.const_data_ptr<float>(), gradient.mutable_data_ptr<float>());
  else
    kernels->winograd_grad_input(plan.convolution, plan.rows, grad.images, x, by, grad.tensor.const_data_ptr<float>(),
                                 weights.const_data_ptr<float>(), gradient.mutable_data_ptr<float>());
  return gradient;
}

Tensor run_grad_weight(const LayerPlan& plan, int by, const Operand& x, const Operand& grad) {
  if (by == kDense) return dense_grad_weight(plan, x, grad);
  RECORD_FUNCTION(label(by, "lth_sparse_cpu::grad_weight", "lth_sparse_cpu::depthwise_grad_weight",
                        "lth_sparse_cpu::winograd_grad_weight"),
                  std::vector<c10::IValue>({x.tensor, grad.tensor}));
  const Tensor gradient = empty({plan.rows.nnz()}, grad.tensor, false);
  if (by == kSparse)
    kernels->sparse_grad_weight(plan.convolution, plan.rows, x.images, grad.images, *element_of(grad.tensor.scalar_type()),
                                x.tensor.const_data_ptr(), grad.tensor.const_data_ptr(), gradient.mutable_data_ptr());
  else if (by == kDepthwise)
    kernels->depthwise_grad_weight(plan.convolution, plan.rows, x.images, grad.images, x.tensor.const_data_ptr<float>(),
                                   grad.tensor.const_data_ptr<float>(), gradient.mutable_data_ptr<float>());
  else
    kernels->winograd_grad_weight(plan.convolution, plan.rows, x.images, grad.images, by, x.tensor.const_data_ptr<float>(),
                                  grad.tensor.const_data_ptr<float>(), gradient.mutable_data_ptr<float>());
  return gradient;
}

namespace {

Tensor bias_gradient(const LayerPlan& plan, const Operand& grad) {
  return plan.linear ? at::sum(grad.tensor, {0}) : at::sum(grad.tensor, {0, 2, 3});
}

/// What passes ReLU, which gave `out`, of a gradient, and the bias's gradient where that comes along.
std::pair<Operand, Tensor> run_relu_backward(const LayerPlan& plan, const Operand& out, const Operand& grad) {
  Tensor gradient = empty_images(plan, grad.images, grad.tensor);
  if (grad.tensor.scalar_type() != at::kFloat || grad.tensor.numel() == 0 ||
      out.images.channels_last != grad.images.channels_last) {
    at::threshold_backward_out(gradient, grad.tensor, out.tensor, 0);
    return {{gradient, grad.images}, Tensor()};
  }
  const Tensor sums = at::empty({grad.images.channels}, grad.tensor.options());
  kernels->relu_backward(grad.images, out.tensor.const_data_ptr<float>(), grad.tensor.const_data_ptr<float>(),
                         gradient.mutable_data_ptr<float>(), sums.mutable_data_ptr<float>());
  return {{gradient, grad.images}, sums};
}

/// What lies in autograd's graph. Whatever is not plain in a backward pass, it leaves to Python, a second derivative too.
class SparseLayerBackward : public torch::autograd::Node {
 public:
  SparseLayerBackward(std::shared_ptr<LayerPlan> plan, const Passes& passes, const Tensor& given, const Operand& x,
                      const Tensor& values, const Tensor& weights, const Tensor& bias)
      : torch::autograd::Node(torch::autograd::collect_next_edges(given, values, bias)),
        plan_(std::move(plan)),
        passes_(passes),
        x_images_(x.images),
        sizes_(given.sizes()) {
    // Of the output nothing is kept here: that is not autograd's yet.
    if (values.requires_grad()) x_ = SavedVariable(given, /*is_output=*/false);
    if (!given.requires_grad()) return;
    values_ = SavedVariable(values, /*is_output=*/false);
    if (passes.forward == passes.grad_input && !weights.is_same(values)) weights_ = weights;
  }

  /// ReLU followed, and gave this.
  void keep_rectified(const Tensor& output) {
    rectified_ = true;
    output_ = SavedVariable(output, /*is_output=*/true);
  }

  std::string name() const override { return "SparseLayerBackward"; }

  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    x_.reset_data();
    values_.reset_data();
    weights_.reset();
    output_.reset_data();
  }

  variable_list apply(variable_list&& gradients) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    const Tensor grad_out = gradients[0];
    variable_list result(3);
    if (!grad_out.defined()) return result;
    const std::array<bool, 3> needed = {task_should_compute_output(0), task_should_compute_output(1),
                                        task_should_compute_output(2)};
    const Tensor given = x_.unpack(), values = values_.unpack();
    const auto self = c10::intrusive_ptr<Node>::unsafe_reclaim_from_nonowning(static_cast<Node*>(this));
    const Tensor output = rectified_ ? output_.unpack(self) : Tensor();
    if (!at::GradMode::is_enabled() && is_plain_eager() && is_as_it_was(grad_out, given, values, output)) {
      const at::AutoDispatchBelowADInplaceOrView below_autograd;
      Operand grad = operand(*plan_, grad_out);
      // The kernels read all in one layout, that for which they were chosen.
      if (plan_->has_output(x_images_, grad.images)) {
        Tensor sums;
        if (rectified_) std::tie(grad, sums) = run_relu_backward(*plan_, operand(*plan_, output), grad);
        if (needed[0]) {
          const Tensor weights = weights_.defined() ? weights_ : weights_of(*plan_, passes_.grad_input, values, x_images_);
          result[0] = run_grad_input(*plan_, passes_.grad_input, grad, weights, x_images_).view(sizes_);
        }
        if (needed[1]) result[1] = run_grad_weight(*plan_, passes_.grad_weight, operand(*plan_, given), grad);
        if (needed[2]) result[2] = sums.defined() ? sums : bias_gradient(*plan_, grad);
        return result;
      }
    }
    const Tensor passing = rectified_ ? at::threshold_backward(grad_out, output, 0) : grad_out;
    auto [grad_x, grad_values, grad_bias] = plan_->gradients(passing, given, values, sizes_, needed);
    return {std::move(grad_x), std::move(grad_values), std::move(grad_bias)};
  }

 private:
  /// Whether all is plain, and of the dtype and the sizes that it had: whoever holds the node may call it with any gradient, and put
  /// other memory under a tensor. What is not, Python refuses in a sentence.
  bool is_as_it_was(const Tensor& grad_out, const Tensor& given, const Tensor& values, const Tensor& output) const {
    for (const Tensor* const tensor : {&grad_out, &given, &values, &output})
      if (tensor->defined() && (!is_plain(*tensor) || tensor->scalar_type() != grad_out.scalar_type())) return false;
    return grad_out.dim() == static_cast<int64_t>(sizes_.size()) && (!given.defined() || given.sizes() == sizes_) &&
           (!output.defined() || output.sizes() == grad_out.sizes()) &&
           (values.defined() ? plan_->has_numbers(values) : plan_->is_whole());
  }

  const std::shared_ptr<LayerPlan> plan_;
  const Passes passes_;
  const Images x_images_;
  const at::DimVector sizes_;
  SavedVariable x_, values_, output_;
  Tensor weights_;  // What the forward pass has made of the values, where the backward pass needs it again.
  bool rectified_ = false;
  std::mutex mutex_;
};

}  // namespace

Operand operand(const LayerPlan& plan, const Tensor& tensor) {
  if (plan.linear) {
    Tensor rows = tensor.dim() == 2 ? tensor : tensor.reshape({-1, tensor.size(-1)});
    if (!rows.is_contiguous()) rows = rows.contiguous();
    const Images images{rows.size(0), rows.size(1), 1, 1, true};
    return {std::move(rows), images};
  }
  Tensor pictures = tensor.dim() == 4 ? tensor : tensor.unsqueeze(0);
  const bool contiguous = pictures.is_contiguous();
  // Of one channel they are both, and have the format of their strides: lth_sparse/backends/base.py.
  const bool by_strides = pictures.size(1) == 1 && pictures.suggest_memory_format() == at::MemoryFormat::ChannelsLast;
  const bool channels_last = pictures.is_contiguous(at::MemoryFormat::ChannelsLast) && (!contiguous || by_strides);
  if (!contiguous && !channels_last) pictures = pictures.contiguous();
  const Images images{pictures.size(0), pictures.size(1), pictures.size(2), pictures.size(3), channels_last};
  return {std::move(pictures), images};
}

Tensor forward(const std::shared_ptr<LayerPlan>& plan, const Passes& passes, const Tensor& given, const Operand& x,
               const Tensor& values, const Tensor& bias, bool relu) {
  Tensor weights, output;
  {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    weights = weights_of(*plan, passes.forward, values, x.images);
    output = run_forward(*plan, passes.forward, x, weights, bias, relu);
    at::DimVector sizes(given.sizes());
    if (plan->linear && given.dim() != 2) {
      sizes.back() = plan->convolution.out_channels;
      output = output.view(sizes);
    } else if (!plan->linear && given.dim() == 3) {
      output = output.squeeze(0);
    }
  }
  if (torch::autograd::compute_requires_grad(given, values, bias)) {
    const auto node = c10::make_intrusive<SparseLayerBackward>(plan, passes, given, x, values, weights, bias);
    torch::autograd::set_history(output, node);
    if (relu) node->keep_rectified(output);
    torch::autograd::fire_node_creation_hooks(node);
  }
  return output;
}

}  // namespace lth_sparse
