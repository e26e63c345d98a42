// The operator that gives the address of the kernels' table: an integer is all that the stable ABI can hand over.
#include "kernel_table.h"

#include <torch/csrc/stable/library.h>

#include <cstdint>

namespace lth_sparse {
namespace {

const KernelTable kTable = {LTH_SPARSE_SOURCES, &sparse_forward,       &sparse_grad_input,     &sparse_grad_weight,
                            &winograd_forward,  &winograd_grad_input,  &winograd_grad_weight,  &depthwise_forward,
                            &depthwise_grad_input, &depthwise_grad_weight, &scatter_values,       &gather_values,
                            &relu_backward};

int64_t kernel_table() { return reinterpret_cast<int64_t>(&kTable); }

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(lth_sparse_cpu, library) { library.def("kernel_table() -> int"); }

STABLE_TORCH_LIBRARY_IMPL(lth_sparse_cpu, CompositeExplicitAutograd, library) {
  library.impl("kernel_table", TORCH_BOX(&kernel_table));
}

}  // namespace lth_sparse
