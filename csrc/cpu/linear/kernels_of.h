// Which of the kernels take a batch of which size.
//
// Include inside the target of an instruction set (../target.h), after single.h and lanes.h.

template <class Pass>
const LinearKernels<typename Pass::Element>* passes_of() {
  static const LinearKernels<typename Pass::Element> kernels = {&Pass::forward, &Pass::grad_input, &Pass::grad_weight};
  return &kernels;
}

/// Rows in up to four vectors `V`, and groups of as many for what is more; in one of `Shorter` where that holds the batch. None
/// where a group is larger than L3 would keep.
template <class V, class Shorter = V>
const LinearKernels<typename V::Element>* linear_of(int64_t batch, int64_t features) {
  constexpr int64_t kBytes = int64_t{4} << 20;
  const int64_t lanes = std::min<int64_t>(ceil_div(batch, V::width), 4) * V::width;
  if (batch > 1 && lanes * features * static_cast<int64_t>(sizeof(typename V::Element)) > kBytes) return nullptr;
  if (batch == 1) return passes_of<SingleRow<V>>();
  if (batch <= Shorter::width) return passes_of<BatchInLanes<Shorter, 1>>();
  switch (ceil_div(batch, V::width)) {
    case 1: return passes_of<BatchInLanes<V, 1>>();
    case 2: return passes_of<BatchInLanes<V, 2>>();
    case 3: return passes_of<BatchInLanes<V, 3>>();
    default: return passes_of<BatchInLanes<V, 4>>();
  }
}
