#include "plain.h"

#include <ATen/EmptyTensor.h>
#include <ATen/PythonTorchFunctionTLS.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/forward_grad.h>

namespace lth_sparse {
namespace {

c10::DispatchKeySet keys_of_a_new_tensor() { return at::detail::empty_cpu({0}, at::kFloat).key_set(); }

c10::DispatchKeySet keys_in_inference_mode() {
  const c10::InferenceMode guard;
  return keys_of_a_new_tensor();
}

/// Which dispatch keys a thread adds and leaves out: everything that may intervene in a call adds one, or no longer leaves it out.
struct ThreadKeys {
  c10::DispatchKeySet included, excluded;

  static ThreadKeys now() {
    const c10::impl::LocalDispatchKeySet keys = c10::impl::tls_local_dispatch_key_set();
    return {keys.included_, keys.excluded_};
  }
  bool operator==(const ThreadKeys& other) const { return included == other.included && excluded == other.excluded; }
};

constexpr c10::DispatchKeySet kInPlace(c10::DispatchKey::ADInplaceOrView);
constexpr ThreadKeys kEager = {c10::default_included_set, c10::default_excluded_set};

ThreadKeys in_inference_mode() {
  return {kEager.included - kInPlace, kEager.excluded | c10::autograd_dispatch_keyset};
}

}  // namespace

bool is_plain(const at::Tensor& tensor) {
  static const c10::DispatchKeySet usual = keys_of_a_new_tensor(), inference = keys_in_inference_mode();
  const c10::DispatchKeySet keys = tensor.key_set();
  return keys == usual || keys == inference;
}

bool is_plain_eager() {
  static const ThreadKeys inference = in_inference_mode();
  const ThreadKeys keys = ThreadKeys::now();
  return (keys == kEager || keys == inference) && !at::impl::torch_function_mode_enabled() &&
         !torch::autograd::ForwardADLevel::has_any_level();
}

}  // namespace lth_sparse
