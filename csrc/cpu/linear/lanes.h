// The kernels whose lanes are the rows of a batch, in groups that Q vectors hold. A live weight is broadcast, and multiplied with
// the vectors of its feature.
//
// Include inside the target of an instruction set (../target.h), after tasks.h and features.h.

template <class V, int Q>
class BatchInLanes {
  using T = typename V::Element;
  static constexpr int W = V::width;
  static constexpr int kStep = Q * W;  // elements from a feature to the next

 public:
  using Element = T;

  static void forward(const LinearLayer& layer, const T* x, const T* values, const T* bias, bool relu, T* y,
                      const Parallel& parallel) {
    multiply(layer, layer.weights, layer.in_features, x, values, bias, relu, y, parallel);
  }

  static void grad_input(const LinearLayer& layer, const T* grad_out, const T* values, T* grad_x, const Parallel& parallel) {
    if constexpr (Q == 1) {
      scatter(layer, grad_out, values, grad_x, parallel);
    } else {
      static thread_local Arena arena;
      T* const ordered = arena.take<T>(layer.transposed.nnz());
      put_in_order(layer.transposed, values, ordered, parallel);
      multiply(layer, layer.transposed, layer.out_features, grad_out, ordered, nullptr, false, grad_x, parallel);
    }
  }

  /// Groups of rows in parts, each with sums of its own, which the groups of a part add to one after the other.
  static void grad_weight(const LinearLayer& layer, const T* x, const T* grad_out, T* grad_values, const Parallel& parallel) {
    constexpr int64_t kMostParts = 4, kSums = 8192;
    const Features<V, Q> inputs(x, layer.batch, layer.in_features);
    const SparseRows& weights = layer.weights;
    const int64_t groups = inputs.groups(), parts = std::min(groups, kMostParts), nnz = weights.nnz();
    static thread_local Arena arena;
    T* const partial = parts == 1 ? grad_values : arena.take<T>(parts * nnz);
    Damage damage;
    for_each_range(weights, W, parts, layer.threads, damage, parallel, [&](int64_t part, int64_t begin, int64_t end) {
      T* const sums = partial + part * nnz;
      std::fill(sums + weights.row_offsets[begin], sums + weights.row_offsets[end], T(0));
      alignas(V) T gradients[W * kStep];
      for (int64_t group = part * groups / parts; group < (part + 1) * groups / parts; ++group) {
        const T* const in = inputs.in_lanes(group);
        const T* const from = grad_out + group * kStep * layer.out_features;
        for (int64_t first = begin; first < end; first += W) {
          const int count = Features<V, Q>::load(from + first, inputs.rows(group), layer.out_features, end - first, gradients);
          for (int k = 0; k < count; ++k) add_products(layer, first + k, in, gradients + k * kStep, sums, damage);
        }
      }
    });
    if (parts == 1) return;
    parallel(ceil_div(nnz, kSums), [&](int64_t begin, int64_t end) {
      for (int64_t e = begin * kSums; e < std::min(end * kSums, nnz); ++e) {
        T sum = partial[e];
        for (int64_t part = 1; part < parts; ++part) sum += partial[part * nnz + e];
        grad_values[e] = sum;
      }
    });
  }

 private:
  /// The values of a transposed matrix, row by row.
  static void put_in_order(const SparseRows& transposed, const T* values, T* ordered, const Parallel& parallel) {
    constexpr int64_t kEntries = 8192;  // of a task
    Damage damage;
    parallel(ceil_div(transposed.nnz(), kEntries), [&](int64_t begin, int64_t end) {
      const int64_t first = begin * kEntries, last = std::min(end * kEntries, transposed.nnz());
      if (!damage.order_holds(transposed, first, last)) return;
      for (int64_t e = first; e < last; ++e) ordered[e] = values[transposed.order[e]];
    });
    damage.raise();
  }

  /// out = matrix * in, both with rows of the batch: in [batch, columns], out [batch, rows of the matrix].
  static void multiply(const LinearLayer& layer, const SparseRows& matrix, int64_t columns, const T* in, const T* values,
                       const T* bias, bool relu, T* out, const Parallel& parallel) {
    const Features<V, Q> inputs(in, layer.batch, columns);
    Damage damage;
    for_each_range(matrix, W, inputs.groups(), layer.threads, damage, parallel, [&](int64_t group, int64_t begin, int64_t end) {
      const T* const lanes = inputs.in_lanes(group);
      T* const to = out + group * kStep * matrix.rows;
      alignas(V) T sums[W * kStep];
      for (int64_t first = begin; first < end; first += W) {
        const int count = static_cast<int>(std::min<int64_t>(W, end - first));
        for (int k = 0; k < count; ++k) {
          const T start = bias == nullptr ? T(0) : bias[first + k];
          multiply_row(matrix, first + k, columns, lanes, values, start, relu, sums + k * kStep, damage);
        }
        Features<V, Q>::store(sums, inputs.rows(group), matrix.rows, count, to + first);
      }
    });
  }

  static void multiply_row(const SparseRows& matrix, int64_t row, int64_t columns, const T* lanes, const T* values, T bias,
                           bool relu, T* out, Damage& damage) {
    // Fewer than four sums would wait for each other.
    constexpr int U = Q >= 3 ? 1 : 4 / Q;
    const T* const in = lanes + matrix.columns_before(row) * kStep;
    V sums[U][Q];
    LTH_SPARSE_UNROLL
    for (int u = 0; u < U; ++u)
      LTH_SPARSE_UNROLL
      for (int q = 0; q < Q; ++q) sums[u][q] = u == 0 ? V::broadcast(bias) : V::zero();
    const auto add = [&](int64_t e, V(&sum)[Q]) LTH_SPARSE_INLINE_LAMBDA {
      const V value = V::broadcast(values[e]);
      const T* const feature = in + static_cast<int64_t>(matrix.columns[e]) * kStep;
      LTH_SPARSE_UNROLL
      for (int q = 0; q < Q; ++q) sum[q] = sum[q].plus_product(value, V::load(feature + q * W));
    };
    damage.for_each_run(matrix, row, matrix.column_limit(columns), values,
                        [&](int64_t e, int64_t last) LTH_SPARSE_INLINE_LAMBDA {
      for (; e + U <= last; e += U)
        LTH_SPARSE_UNROLL
        for (int u = 0; u < U; ++u) add(e + u, sums[u]);
      for (; e < last; ++e) add(e, sums[0]);
    });
    LTH_SPARSE_UNROLL
    for (int q = 0; q < Q; ++q) {
      V sum = sums[0][q];
      if constexpr (U == 2) sum = sum + sums[1][q];
      if constexpr (U == 4) sum = (sum + sums[1][q]) + (sums[2][q] + sums[3][q]);
      (relu ? sum.rectified() : sum).store(out + q * W);
    }
  }

  /// grad_input from the matrix of the forward pass: each part of the output features adds to sums of its own.
  static void scatter(const LinearLayer& layer, const T* grad_out, const T* values, T* grad_x, const Parallel& parallel) {
    const SparseRows& weights = layer.weights;
    const int64_t parts = parts_of(layer, W), size = layer.in_features * W;
    static thread_local Arena arena;
    T* const partial = arena.take<T>(parts * size);
    Damage damage;
    parallel(parts, [&](int64_t begin, int64_t end) {
      alignas(V) T gradients[W * W];
      for (int64_t part = begin; part < end; ++part) {
        T* const sums = partial + part * size;
        std::fill_n(sums, size, T(0));
        const int64_t last = (part + 1) * weights.rows / parts;
        int64_t first = part * weights.rows / parts;
        if (!damage.offsets_hold(weights, first, last)) return;
        for (; first < last; first += W) {
          const int count = Features<V, 1>::load(grad_out + first, layer.batch, layer.out_features, last - first, gradients);
          for (int k = 0; k < count; ++k) scatter_row(layer, first + k, V::load(gradients + k * W), values, sums, damage);
        }
      }
    });
    damage.raise();
    constexpr int64_t kFeatures = 16 * W;  // of a task
    parallel(ceil_div(layer.in_features, kFeatures), [&](int64_t begin, int64_t end) {
      alignas(V) T sums[W * W];
      const int64_t last = std::min(end * kFeatures, layer.in_features);
      for (int64_t first = begin * kFeatures; first < last; first += W) {
        const int count = static_cast<int>(std::min<int64_t>(W, last - first));
        for (int k = 0; k < count; ++k) {
          V sum = V::load(partial + (first + k) * W);
          for (int64_t part = 1; part < parts; ++part) sum = sum + V::load(partial + part * size + (first + k) * W);
          sum.store(sums + k * W);
        }
        Features<V, 1>::store(sums, layer.batch, layer.in_features, count, grad_x + first);
      }
    });
  }

  static void scatter_row(const LinearLayer& layer, int64_t row, V gradient, const T* values, T* sums, Damage& damage) {
    const SparseRows& weights = layer.weights;
    T* const out = sums + weights.columns_before(row) * W;
    const auto place = [&](int64_t e) LTH_SPARSE_INLINE_LAMBDA { return out + static_cast<int64_t>(weights.columns[e]) * W; };
    const auto added = [&](int64_t e) LTH_SPARSE_INLINE_LAMBDA {
      return V::load(place(e)).plus_product(V::broadcast(values[e]), gradient);
    };
    damage.for_each_run(weights, row, weights.column_limit(layer.in_features), values,
                        [&](int64_t e, int64_t last) LTH_SPARSE_INLINE_LAMBDA {
      // The columns of a row differ.
      for (; e + 4 <= last; e += 4) {
        const V a = added(e), b = added(e + 1), c = added(e + 2), d = added(e + 3);
        a.store(place(e));
        b.store(place(e + 1));
        c.store(place(e + 2));
        d.store(place(e + 3));
      }
      for (; e < last; ++e) added(e).store(place(e));
    });
  }

  /// sums[e] grows by the products of entry e of a row.
  static void add_products(const LinearLayer& layer, int64_t row, const T* lanes, const T* gradients, T* sums, Damage& damage) {
    const SparseRows& weights = layer.weights;
    const T* const in = lanes + weights.columns_before(row) * kStep;
    V gradient[Q];
    LTH_SPARSE_UNROLL
    for (int q = 0; q < Q; ++q) gradient[q] = V::load(gradients + q * W);
    const auto product = [&](int64_t e) LTH_SPARSE_INLINE_LAMBDA {
      const T* const feature = in + static_cast<int64_t>(weights.columns[e]) * kStep;
      V sum = gradient[0] * V::load(feature);
      LTH_SPARSE_UNROLL
      for (int q = 1; q < Q; ++q) sum = sum.plus_product(gradient[q], V::load(feature + q * W));
      return sum;
    };
    damage.for_each_run(weights, row, weights.column_limit(layer.in_features), sums,
                        [&](int64_t e, int64_t last) LTH_SPARSE_INLINE_LAMBDA {
      for (; e + 4 <= last; e += 4) {
        const V products[4] = {product(e), product(e + 1), product(e + 2), product(e + 3)};
        V::add_sums(products, sums + e);
      }
      for (; e < last; ++e) {
        const V products[4] = {product(e), V::zero(), V::zero(), V::zero()};
        T four[4] = {};
        V::add_sums(products, four);
        sums[e] += four[0];
      }
    });
  }
};
