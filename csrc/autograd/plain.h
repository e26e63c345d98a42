// Plain tensors and plain eager mode: where a call means its numbers, and nobody else may see it or stand in for it.
#pragma once

#include <ATen/ATen.h>

namespace lth_sparse {

/// Whether it is dense memory on the CPU and nothing besides: no subclass that sees operators, no transform's wrapper, not
/// negated or conjugated in name only, not lazy. A tensor of inference mode is one.
bool is_plain(const at::Tensor& tensor);

/// Whether neither a mode, nor a transform of torch.func, autocast, a tracer or forward-mode AD is active in this thread.
bool is_plain_eager();

}  // namespace lth_sparse
