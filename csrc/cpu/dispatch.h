// Which instruction set to use, found out when the library is first called.
#pragma once

#include "activations.h"
#include "blocking.h"
#include "depthwise/kernels.h"
#include "inference/kernels.h"
#include "kernels.h"
#include "linear/kernels.h"
#include "winograd/kernels.h"

namespace lth_sparse {

struct InstructionSet {
  const char* name;
  Machine machine;
  const Kernels* (*kernels)(int width);
  const WinogradKernels* (*winograd)();
  const DepthwiseKernels* (*depthwise)(const Convolution&);
  const Activations* (*activations)();
  const LinearKernels* (*linear)(Element element, int64_t batch, int64_t features);
  const inference::Kernels* (*inference)();  // which may give null
};

/// The best that this processor runs, or the one that LTH_SPARSE_CPU names: avx512, avx2 or portable.
/// Throws std::runtime_error when it names another one, or one that this processor does not run.
const InstructionSet& instruction_set();

}  // namespace lth_sparse
