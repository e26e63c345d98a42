// The kernels for a batch of one, whose lanes are live weights that follow each other. Of elements E, which become V's where they
// are loaded, but for the row itself, which is gathered from and so converted before.
//
// Include inside the target of an instruction set (../target.h), after tasks.h.

template <class V, class E>
class SingleRow {
  using T = typename V::Element;
  static constexpr int W = V::width;

 public:
  using Element = E;

  static void forward(const LinearLayer& layer, const E* given, const E* values, const E* bias, bool relu, E* y,
                      const Parallel& parallel) {
    const SparseRows& weights = layer.weights;
    const T* const x = computed_with(given, layer.in_features);
    Damage damage;
    for_each_range(weights, 1, 1, layer.threads, damage, parallel, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const T sum = multiply_row(layer, row, x, values, damage) + (bias == nullptr ? T(0) : T(bias[row]));
        // Not std::max, which gives 0 for NaN.
        y[row] = E(relu && sum < 0 ? T(0) : sum);
      }
    });
  }

  /// Each part of the output features adds to sums of its own.
  static void grad_input(const LinearLayer& layer, const E* grad_out, const E* values, E* grad_x, const Parallel& parallel) {
    const SparseRows& weights = layer.weights;
    const int64_t parts = parts_of(layer, 1), size = layer.in_features;
    static thread_local Arena arena;
    T* const partial = arena.take<T>(parts * size);
    Damage damage;
    parallel(parts, [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; ++part) {
        T* const sums = partial + part * size;
        std::fill_n(sums, size, T(0));
        const int64_t first = part * weights.rows / parts, last = (part + 1) * weights.rows / parts;
        if (!damage.offsets_hold(weights, first, last)) return;
        for (int64_t row = first; row < last; ++row) scatter_row(layer, row, T(grad_out[row]), values, sums, damage);
      }
    });
    damage.raise();
    constexpr int64_t kFeatures = 512;  // of a task
    parallel(ceil_div(size, kFeatures), [&](int64_t begin, int64_t end) {
      const int64_t first = begin * kFeatures, last = std::min(end * kFeatures, size);
      for (int64_t part = 1; part < parts; ++part)
        for (int64_t feature = first; feature < last; ++feature) partial[feature] += partial[part * size + feature];
      convert<V>(partial + first, last - first, grad_x + first);
    });
  }

  static void grad_weight(const LinearLayer& layer, const E* x, const E* grad_out, E* grad_values, const Parallel& parallel) {
    const SparseRows& weights = layer.weights;
    Damage damage;
    for_each_range(weights, 1, 1, layer.threads, damage, parallel, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const E* const in = x + weights.columns_before(row);
        const T gradient = T(grad_out[row]);
        damage.for_each_run(weights, row, weights.column_limit(layer.in_features), grad_values,
                            [&](int64_t e, int64_t last) LTH_SPARSE_INLINE_LAMBDA {
          for (; e < last; ++e) grad_values[e] = E(gradient * T(in[weights.columns[e]]));
        });
      }
    });
  }

 private:
  /// The row of this call.
  static const T* computed_with(const E* given, int64_t features) {
    if constexpr (std::is_same_v<E, T>) {
      return given;
    } else {
      static thread_local Arena arena;
      T* const row = arena.take<T>(features);
      convert<V>(given, features, row);
      return row;
    }
  }

  static T multiply_row(const LinearLayer& layer, int64_t row, const T* x, const E* values, Damage& damage) {
    const SparseRows& weights = layer.weights;
    const T* const in = x + weights.columns_before(row);
    V sums[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
    T rest = 0;
    damage.for_each_run(weights, row, weights.column_limit(layer.in_features), values,
                        [&](int64_t e, int64_t last) LTH_SPARSE_INLINE_LAMBDA {
      for (; e + 4 * W <= last; e += 4 * W)
        LTH_SPARSE_UNROLL
        for (int k = 0; k < 4; ++k)
          sums[k] = sums[k].plus_product(V::load(values + e + k * W), V::gather(in, weights.columns + e + k * W));
      for (; e + W <= last; e += W) sums[0] = sums[0].plus_product(V::load(values + e), V::gather(in, weights.columns + e));
      for (; e < last; ++e) rest += T(values[e]) * in[weights.columns[e]];
    });
    T four[4] = {};
    V::add_sums(sums, four);
    return ((four[0] + four[1]) + (four[2] + four[3])) + rest;
  }

  static void scatter_row(const LinearLayer& layer, int64_t row, T gradient, const E* values, T* sums, Damage& damage) {
    const SparseRows& weights = layer.weights;
    T* const out = sums + weights.columns_before(row);
    damage.for_each_run(weights, row, weights.column_limit(layer.in_features), values,
                        [&](int64_t e, int64_t last) LTH_SPARSE_INLINE_LAMBDA {
      constexpr int U = 8;
      const Run<V, E> run(values, e, last);
      // The columns of a row differ.
      for (; e + U <= last; e += U) {
        T added[U];
        LTH_SPARSE_UNROLL
        for (int u = 0; u < U; ++u) added[u] = out[weights.columns[e + u]] + run[e + u] * gradient;
        LTH_SPARSE_UNROLL
        for (int u = 0; u < U; ++u) out[weights.columns[e + u]] = added[u];
      }
      for (; e < last; ++e) out[weights.columns[e]] += run[e] * gradient;
    });
  }
};
