// Which of the kernels take a batch of which size.
//
// Include inside the target of an instruction set (../target.h), after single.h and lanes.h.

/// The passes of elements of whatever type.
template <class Pass>
struct OfElements {
  using E = typename Pass::Element;

  static void forward(const LinearLayer& layer, const void* x, const void* values, const void* bias, bool relu, void* y,
                      const Parallel& parallel) {
    Pass::forward(layer, static_cast<const E*>(x), static_cast<const E*>(values), static_cast<const E*>(bias), relu,
                  static_cast<E*>(y), parallel);
  }
  static void grad_input(const LinearLayer& layer, const void* grad_out, const void* values, void* grad_x,
                         const Parallel& parallel) {
    Pass::grad_input(layer, static_cast<const E*>(grad_out), static_cast<const E*>(values), static_cast<E*>(grad_x), parallel);
  }
  static void grad_weight(const LinearLayer& layer, const void* x, const void* grad_out, void* grad_values,
                          const Parallel& parallel) {
    Pass::grad_weight(layer, static_cast<const E*>(x), static_cast<const E*>(grad_out), static_cast<E*>(grad_values), parallel);
  }
};

template <class Pass>
const LinearKernels* passes_of() {
  using Passes = OfElements<Pass>;
  static const LinearKernels kernels = {&Passes::forward, &Passes::grad_input, &Passes::grad_weight};
  return &kernels;
}

/// Of elements E: rows in up to four vectors `V`, and groups of as many for what is more; in one of `Shorter` where that holds the
/// batch. None where a group is larger than L3 would keep.
template <class V, class Shorter, class E>
const LinearKernels* linear_of(int64_t batch, int64_t features) {
  constexpr int64_t kBytes = int64_t{4} << 20;
  const int64_t lanes = std::min<int64_t>(ceil_div(batch, V::width), 4) * V::width;
  if (batch > 1 && lanes * features * static_cast<int64_t>(sizeof(E)) > kBytes) return nullptr;
  if (batch == 1) return passes_of<SingleRow<V, E>>();
  if (batch <= Shorter::width) return passes_of<BatchInLanes<Shorter, 1, E>>();
  switch (ceil_div(batch, V::width)) {
    case 1: return passes_of<BatchInLanes<V, 1, E>>();
    case 2: return passes_of<BatchInLanes<V, 2, E>>();
    case 3: return passes_of<BatchInLanes<V, 3, E>>();
    default: return passes_of<BatchInLanes<V, 4, E>>();
  }
}

template <class V, class Shorter = V>
const LinearKernels* linear_of(Element element, int64_t batch, int64_t features) {
  const LinearKernels* found = nullptr;
  with_element<typename V::Element>(element,
                                    [&](auto one) { found = linear_of<V, Shorter, decltype(one)>(batch, features); });
  return found;
}
