// What the sparse kernels take a tensor's elements for.
#pragma once

#include <torch/headeronly/core/ScalarType.h>

#include <optional>

#include "cpu/element.h"

namespace lth_sparse {

/// Of tensors of this dtype, if they take them.
inline std::optional<Element> element_of(torch::headeronly::ScalarType dtype) {
  using torch::headeronly::ScalarType;
  switch (dtype) {
    case ScalarType::Float: return Element::kFloat;
    case ScalarType::Double: return Element::kDouble;
    case ScalarType::BFloat16: return Element::kBfloat16;
    case ScalarType::Half: return Element::kHalf;
    default: return std::nullopt;
  }
}

}  // namespace lth_sparse
