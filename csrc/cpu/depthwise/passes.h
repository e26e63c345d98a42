// The passes of a depthwise layer for one vector type: over which images, by which table of weights. Include like ../engine.h,
// after rows.h and planes.h.

template <class V, int K, int S>
class DepthwisePasses {
  using Planes = DepthwisePlanes<V, K, S>;
  using SmallPlanes = DepthwiseSmallPlanes<V, K, S>;
  using Rows = DepthwiseRows<V, K, S, false>;

 public:
  static void forward(const DepthwiseLayer& layer, const float* x, const float* values, const float* bias, bool relu, float* y,
                      const Parallel& parallel) {
    static thread_local Arena arena;
    const TapTable table = tap_table(layer, false);
    correlate({layer.in, layer.out, layer.padding, x, weights(layer, values, table, arena), table.tap_step, bias, relu, y}, parallel);
  }

  static void grad_input(const DepthwiseLayer& layer, const float* grad_out, const float* values, float* grad_x,
                         const Parallel& parallel) {
    // With stride 1 it is a forward pass whose weights are turned by half.
    constexpr bool kTurned = S == 1;
    static thread_local Arena arena;
    const TapTable table = tap_table(layer, kTurned);
    DepthwisePass pass{layer.out, layer.in, layer.padding, grad_out, weights(layer, values, table, arena), table.tap_step, nullptr,
                       false, grad_x};
    if constexpr (kTurned) {
      for (int64_t& padding : pass.padding) padding = K - 1 - padding;
      correlate(pass, parallel);
    } else {
      if (layer.channels_last()) DepthwiseRows<V, K, S, true>::correlate(pass, parallel);
      else if (small(layer)) SmallPlanes::template correlate<true>(pass, parallel);
      else Planes::correlate_transposed(pass, parallel);
    }
  }

  static void grad_weight(const DepthwiseLayer& layer, const float* x, const float* grad_out, float* grad_values,
                          const Parallel& parallel) {
    static thread_local Arena arena;
    const TapTable table = tap_table(layer, false);
    float* const sums = arena.take<float>(size(layer));
    const DepthwisePass pass{layer.in, layer.out, layer.padding, x, nullptr, table.tap_step, nullptr, false, nullptr};
    if (layer.channels_last()) Rows::grad_weight(pass, grad_out, sums, parallel);
    else if (small(layer)) SmallPlanes::grad_weight(pass, grad_out, sums, parallel);
    else Planes::grad_weight(pass, grad_out, sums, parallel);
    gather_taps(layer.weights, sums, table, grad_values);
  }

  static constexpr DepthwiseKernels kernels{&forward, &grad_input, &grad_weight};

 private:
  static void correlate(const DepthwisePass& pass, const Parallel& parallel) {
    if (pass.in.channels_last) Rows::correlate(pass, parallel);
    else if (SmallPlanes::worth_it(pass.in, pass.out)) SmallPlanes::template correlate<false>(pass, parallel);
    else Planes::correlate(pass, parallel);
  }

  static bool small(const DepthwiseLayer& layer) { return SmallPlanes::worth_it(layer.in, layer.out); }
  static int64_t whole_vectors(const DepthwiseLayer& layer) { return ceil_div(layer.in.channels, V::width) * V::width; }
  static int64_t size(const DepthwiseLayer& layer) { return whole_vectors(layer) * K * K; }

  static TapTable tap_table(const DepthwiseLayer& layer, bool turned) {
    if (layer.channels_last() || small(layer)) return {layer.in.channels, K * K, 1, whole_vectors(layer), turned};
    return {layer.in.channels, K * K, K * K, 1, turned};
  }

  static const float* weights(const DepthwiseLayer& layer, const float* values, const TapTable& table, Arena& arena) {
    float* const weights = arena.take<float>(size(layer));
    std::fill_n(weights, size(layer), 0.0f);
    scatter_taps(layer.weights, values, table, weights);
    return weights;
  }
};

/// The kernels for a layer, of those that `has_depthwise` is true of.
template <class V>
const DepthwiseKernels* depthwise_of(const Convolution& c) {
  if (c.kernel[0] == 3) return c.stride[0] == 1 ? &DepthwisePasses<V, 3, 1>::kernels : &DepthwisePasses<V, 3, 2>::kernels;
  return c.stride[0] == 1 ? &DepthwisePasses<V, 5, 1>::kernels : &DepthwisePasses<V, 5, 2>::kernels;
}
