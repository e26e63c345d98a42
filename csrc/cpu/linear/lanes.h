// The kernels whose lanes are the rows of a batch, in groups that Q vectors hold. A live weight is broadcast, and multiplied with
// the vectors of its feature. Of elements E, which become V's where they are loaded, and are rounded when all is added up.
//
// Include inside the target of an instruction set (../target.h), after tasks.h and features.h.

template <class V, int Q, class E>
class BatchInLanes {
  using T = typename V::Element;
  static constexpr int W = V::width;
  static constexpr int kStep = Q * W;  // elements from a feature to the next
  static constexpr int kBlock = Features<V, Q, E>::kBlock;

 public:
  using Element = E;

  static void forward(const LinearLayer& layer, const E* x, const E* values, const E* bias, bool relu, E* y,
                      const Parallel& parallel) {
    multiply(layer, layer.weights, layer.in_features, x, values, bias, relu, y, parallel);
  }

  static void grad_input(const LinearLayer& layer, const E* grad_out, const E* values, E* grad_x, const Parallel& parallel) {
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
  static void grad_weight(const LinearLayer& layer, const E* x, const E* grad_out, E* grad_values, const Parallel& parallel) {
    constexpr int64_t kMostParts = 4, kSums = 8192;
    const Features<V, Q, E> inputs(x, layer.batch, layer.in_features);
    const SparseRows& weights = layer.weights;
    const int64_t groups = inputs.groups(), parts = std::min(groups, kMostParts), nnz = weights.nnz();
    static thread_local Arena arena;
    T* partial = nullptr;
    if constexpr (std::is_same_v<E, T>) partial = parts == 1 ? grad_values : nullptr;
    const bool in_place = partial != nullptr;
    if (!in_place) partial = arena.take<T>(parts * nnz);
    Damage damage;
    for_each_range(weights, kBlock, parts, layer.threads, damage, parallel, [&](int64_t part, int64_t begin, int64_t end) {
      T* const sums = partial + part * nnz;
      std::fill(sums + weights.row_offsets[begin], sums + weights.row_offsets[end], T(0));
      alignas(V) T gradients[kBlock * kStep];
      for (int64_t group = part * groups / parts; group < (part + 1) * groups / parts; ++group) {
        const E* const in = inputs.in_lanes(group);
        const E* const from = grad_out + group * kStep * layer.out_features;
        for (int64_t first = begin; first < end; first += kBlock) {
          const int count = Features<V, Q, E>::load(from + first, inputs.rows(group), layer.out_features, end - first, gradients);
          for (int k = 0; k < count; ++k) add_products(layer, first + k, in, gradients + k * kStep, sums, damage);
        }
      }
    });
    if (in_place) return;
    parallel(ceil_div(nnz, kSums), [&](int64_t begin, int64_t end) {
      for (int64_t e = begin * kSums; e < std::min(end * kSums, nnz); ++e) {
        T sum = partial[e];
        for (int64_t part = 1; part < parts; ++part) sum += partial[part * nnz + e];
        grad_values[e] = E(sum);
      }
    });
  }

 private:
  /// The values of a transposed matrix, row by row.
  static void put_in_order(const SparseRows& transposed, const E* values, T* ordered, const Parallel& parallel) {
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
  template <class Value>
  static void multiply(const LinearLayer& layer, const SparseRows& matrix, int64_t columns, const E* in, const Value* values,
                       const E* bias, bool relu, E* out, const Parallel& parallel) {
    const Features<V, Q, E> inputs(in, layer.batch, columns);
    Damage damage;
    for_each_range(matrix, kBlock, inputs.groups(), layer.threads, damage, parallel, [&](int64_t group, int64_t begin, int64_t end) {
      const E* const lanes = inputs.in_lanes(group);
      E* const to = out + group * kStep * matrix.rows;
      alignas(V) T sums[kBlock * kStep];
      for (int64_t first = begin; first < end; first += kBlock) {
        const int count = static_cast<int>(std::min<int64_t>(kBlock, end - first));
        for (int k = 0; k < count; ++k) {
          const T start = bias == nullptr ? T(0) : T(bias[first + k]);
          multiply_row(matrix, first + k, columns, lanes, values, start, relu, sums + k * kStep, damage);
        }
        Features<V, Q, E>::store(sums, inputs.rows(group), matrix.rows, count, to + first);
      }
    });
  }

  template <class Value>
  static void multiply_row(const SparseRows& matrix, int64_t row, int64_t columns, const E* lanes, const Value* values, T bias,
                           bool relu, T* out, Damage& damage) {
    // Fewer than four sums would wait for each other.
    constexpr int U = Q >= 3 ? 1 : 4 / Q;
    const E* const in = lanes + matrix.columns_before(row) * kStep;
    V sums[U][Q];
    LTH_SPARSE_UNROLL
    for (int u = 0; u < U; ++u)
      LTH_SPARSE_UNROLL
      for (int q = 0; q < Q; ++q) sums[u][q] = u == 0 ? V::broadcast(bias) : V::zero();
    const auto add = [&](int64_t e, T of_entry, V(&sum)[Q]) LTH_SPARSE_INLINE_LAMBDA {
      const V value = V::broadcast(of_entry);
      const E* const feature = in + static_cast<int64_t>(matrix.columns[e]) * kStep;
      LTH_SPARSE_UNROLL
      for (int q = 0; q < Q; ++q) sum[q] = sum[q].plus_product(value, V::load(feature + q * W));
    };
    damage.for_each_run(matrix, row, matrix.column_limit(columns), values,
                        [&](int64_t e, int64_t last) LTH_SPARSE_INLINE_LAMBDA {
      const Run<V, Value> run(values, e, last);
      for (; e + U <= last; e += U)
        LTH_SPARSE_UNROLL
        for (int u = 0; u < U; ++u) add(e + u, run[e + u], sums[u]);
      for (; e < last; ++e) add(e, run[e], sums[0]);
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
  static void scatter(const LinearLayer& layer, const E* grad_out, const E* values, E* grad_x, const Parallel& parallel) {
    const SparseRows& weights = layer.weights;
    const int64_t parts = parts_of(layer, W), size = layer.in_features * W;
    static thread_local Arena arena;
    T* const partial = arena.take<T>(parts * size);
    Damage damage;
    parallel(parts, [&](int64_t begin, int64_t end) {
      alignas(V) T gradients[kBlock * W];
      for (int64_t part = begin; part < end; ++part) {
        T* const sums = partial + part * size;
        std::fill_n(sums, size, T(0));
        const int64_t last = (part + 1) * weights.rows / parts;
        int64_t first = part * weights.rows / parts;
        if (!damage.offsets_hold(weights, first, last)) return;
        for (; first < last; first += kBlock) {
          const int count = Features<V, 1, E>::load(grad_out + first, layer.batch, layer.out_features, last - first, gradients);
          for (int k = 0; k < count; ++k) scatter_row(layer, first + k, V::load(gradients + k * W), values, sums, damage);
        }
      }
    });
    damage.raise();
    constexpr int64_t kFeatures = 8 * kBlock;  // of a task
    parallel(ceil_div(layer.in_features, kFeatures), [&](int64_t begin, int64_t end) {
      alignas(V) T sums[kBlock * W];
      const int64_t last = std::min(end * kFeatures, layer.in_features);
      for (int64_t first = begin * kFeatures; first < last; first += kBlock) {
        const int count = static_cast<int>(std::min<int64_t>(kBlock, last - first));
        for (int k = 0; k < count; ++k) {
          V sum = V::load(partial + (first + k) * W);
          for (int64_t part = 1; part < parts; ++part) sum = sum + V::load(partial + part * size + (first + k) * W);
          sum.store(sums + k * W);
        }
        Features<V, 1, E>::store(sums, layer.batch, layer.in_features, count, grad_x + first);
      }
    });
  }

  static void scatter_row(const LinearLayer& layer, int64_t row, V gradient, const E* values, T* sums, Damage& damage) {
    const SparseRows& weights = layer.weights;
    T* const out = sums + weights.columns_before(row) * W;
    const auto place = [&](int64_t e) LTH_SPARSE_INLINE_LAMBDA { return out + static_cast<int64_t>(weights.columns[e]) * W; };
    const auto added = [&](int64_t e, T value) LTH_SPARSE_INLINE_LAMBDA {
      return V::load(place(e)).plus_product(V::broadcast(value), gradient);
    };
    damage.for_each_run(weights, row, weights.column_limit(layer.in_features), values,
                        [&](int64_t e, int64_t last) LTH_SPARSE_INLINE_LAMBDA {
      const Run<V, E> run(values, e, last);
      // The columns of a row differ.
      for (; e + 4 <= last; e += 4) {
        const V a = added(e, run[e]), b = added(e + 1, run[e + 1]), c = added(e + 2, run[e + 2]), d = added(e + 3, run[e + 3]);
        a.store(place(e));
        b.store(place(e + 1));
        c.store(place(e + 2));
        d.store(place(e + 3));
      }
      for (; e < last; ++e) added(e, run[e]).store(place(e));
    });
  }

  /// sums[e] grows by the products of entry e of a row.
  static void add_products(const LinearLayer& layer, int64_t row, const E* lanes, const T* gradients, T* sums, Damage& damage) {
    const SparseRows& weights = layer.weights;
    const E* const in = lanes + weights.columns_before(row) * kStep;
    V gradient[Q];
    LTH_SPARSE_UNROLL
    for (int q = 0; q < Q; ++q) gradient[q] = V::load(gradients + q * W);
    const auto product = [&](int64_t e) LTH_SPARSE_INLINE_LAMBDA {
      const E* const feature = in + static_cast<int64_t>(weights.columns[e]) * kStep;
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
