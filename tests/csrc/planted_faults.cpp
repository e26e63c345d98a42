// Faults for the sanitizers to find. `make sanitize` builds this file with the operators; no other build has it.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>

namespace {

/// A byte of the tensor's memory, wherever that is.
int64_t planted_read(const torch::stable::Tensor& bytes, int64_t at) {
  return static_cast<const uint8_t*>(bytes.const_data_ptr())[at];
}

int64_t planted_increment(int64_t value) { return value + 1; }

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(lth_sparse_cpu, library) {
  library.def("planted_read(Tensor bytes, int at) -> int");
  library.def("planted_increment(int value) -> int");
}

STABLE_TORCH_LIBRARY_IMPL(lth_sparse_cpu, CompositeExplicitAutograd, library) {
  library.impl("planted_read", TORCH_BOX(&planted_read));
  library.impl("planted_increment", TORCH_BOX(&planted_increment));
}
