// The innermost loops, for any vector type: the rows of a sparse matrix against the tile that the registers hold.
//
// Include like engine.h, before it and after transfer.h. A tile is R rows of Q vectors. `accumulate_*` keep a row's output in
// registers and add each live weight times its operands; `multiply_*` keep the gradient of the output there and add up its
// products with the operands of each live weight.

template <class V>
class Tiles {
  using T = typename V::Element;
  static constexpr int W = V::width;

 public:
  /// Whether a tile of so many vectors is stored from the registers: see Rows::image. With 16 registers that was slower.
  static constexpr bool stores_images(int vectors) { return vectors == W && V::registers >= 32; }

  /// Calls `use` with the number of each run of entries, which is a clip, and with the positions [R0, R1) x [Q0, Q1) of a
  /// tile that it leaves. A position is G vectors wide. Spelled out, for a branch on the clip of each run is mispredicted.
  template <int R, int Q, int G, class Use>
  LTH_SPARSE_INLINE static void for_each_clip(const Use& use) {
    use.template operator()<0, 0, R, 0, Q>();
    use.template operator()<1, 0, R, G, Q>();
    use.template operator()<2, 0, R, 0, Q - G>();
    use.template operator()<3, 1, R, 0, Q>();
    use.template operator()<4, 1, R, G, Q>();
    use.template operator()<5, 1, R, 0, Q - G>();
    use.template operator()<6, 0, R - 1, 0, Q>();
    use.template operator()<7, 0, R - 1, G, Q>();
    use.template operator()<8, 0, R - 1, 0, Q - G>();
  }

  /// Calls `use` with the shape of a tile, and the width of its positions if its kernel leaves out padding, else 0.
  template <class Use>
  static void with_tile(const Blocking& blocking, const Tile& tile, const Use& use) {
    if constexpr (V::registers >= 32) {
      if (blocking.by_clip)
        return blocking.groups == 1 ? use.template operator()<4, 4, 1>() : use.template operator()<2, 8, 4>();
      switch (tile.rows * 32 + tile.columns) {
        case 4 * 32 + 4: return use.template operator()<4, 4, 0>();
        case 3 * 32 + 4: return use.template operator()<3, 4, 0>();
        case 2 * 32 + 4: return use.template operator()<2, 4, 0>();
        case 2 * 32 + 8: return use.template operator()<2, 8, 0>();
        case 4 * 32 + 7: return use.template operator()<4, 7, 0>();
        case 3 * 32 + 7: return use.template operator()<3, 7, 0>();
        case 2 * 32 + 7: return use.template operator()<2, 7, 0>();
        case 1 * 32 + 16: return use.template operator()<1, 16, 0>();
      }
    } else {
      if (blocking.by_clip) return use.template operator()<2, 4, 2>();
      if (tile.rows == 2) return use.template operator()<2, 4, 0>();
    }
    switch (tile.columns) {
      case 8: return use.template operator()<1, 8, 0>();
      case 7: return use.template operator()<1, 7, 0>();
      case 6: return use.template operator()<1, 6, 0>();
      case 5: return use.template operator()<1, 5, 0>();
      case 4: return use.template operator()<1, 4, 0>();
      case 3: return use.template operator()<1, 3, 0>();
      case 2: return use.template operator()<1, 2, 0>();
      default: return use.template operator()<1, 1, 0>();
    }
  }

  /// Rows of the matrix against one tile: the runs of row first_row + r begin at starts[r * row_step].
  template <class Listed>
  struct Rows {
    const Listed& entries;
    int64_t first_row;
    const int32_t* starts;
    int64_t row_step;
    int64_t count;
    const T* in;
    int64_t in_row_step;
    T* out;
    int64_t out_row_step;
    bool first;            // the accumulators begin with the bias, not with what `out` holds
    const T* bias;         // or null
    // Where what is complete goes, pixels and images transposed, or null to leave it in `out`: a tile of W pixels that follow
    // each other, of W images. The lines that are missed on the way are waited for while the next rows are multiplied.
    T* image;
    int64_t image_channel_step, image_step;
    bool stream;           // past the caches: `image`, or `out` where that is the tensor
    bool relu;             // no pixel of `image` is less than 0
  };

  template <int R, int Q, class Listed>
  static bool begin(const Rows<Listed>& rows, int64_t row, bool empty, V (&sum)[R][Q]) {
    if (empty && !rows.first && rows.image == nullptr) return false;
    if (rows.first) {
      const V bias = V::broadcast(rows.bias == nullptr ? T(0) : rows.bias[row]);
      LTH_SPARSE_UNROLL
      for (int r = 0; r < R; ++r)
        LTH_SPARSE_UNROLL
        for (int q = 0; q < Q; ++q) sum[r][q] = bias;
    } else {
      const T* const out = rows.out + row * rows.out_row_step;
      LTH_SPARSE_UNROLL
      for (int r = 0; r < R; ++r)
        LTH_SPARSE_UNROLL
        for (int q = 0; q < Q; ++q) sum[r][q] = V::load(out + (r * Q + q) * W);
    }
    return true;
  }

  /// Not inlined: what it needs in registers is not to be taken from the products.
  template <class Listed>
  __attribute__((noinline)) static void store_tile(const Rows<Listed>& rows, int64_t row, const T* tile) {
    V pixels[W];
    for (int k = 0; k < W; ++k) pixels[k] = V::load(tile + k * W);
    if (rows.relu)
      for (V& pixel : pixels) pixel = pixel.rectified();
    V::transpose(pixels);
    Transfer<V>::store_rows(pixels, rows.image + row * rows.image_channel_step, rows.image_step, W, W, rows.stream);
  }

  template <int R, int Q, class Listed>
  static void finish(const Rows<Listed>& rows, int64_t row, const V (&sum)[R][Q]) {
    if constexpr (stores_images(R * Q)) {
      if (rows.image != nullptr) {
        alignas(V) T tile[R * Q * W];
        LTH_SPARSE_UNROLL
        for (int r = 0; r < R; ++r)
          LTH_SPARSE_UNROLL
          for (int q = 0; q < Q; ++q) sum[r][q].store(tile + (r * Q + q) * W);
        return store_tile(rows, row, tile);
      }
    }
    T* const out = rows.out + row * rows.out_row_step;
    if constexpr (R == 1) {
      if (rows.stream && reinterpret_cast<uintptr_t>(out) % (W * sizeof(T)) == 0) {
        LTH_SPARSE_UNROLL
        for (int q = 0; q < Q; ++q) sum[0][q].stream(out + q * W);
        return;
      }
    }
    LTH_SPARSE_UNROLL
    for (int r = 0; r < R; ++r)
      LTH_SPARSE_UNROLL
      for (int q = 0; q < Q; ++q) sum[r][q].store(out + (r * Q + q) * W);
  }

  /// So many rows of one tile, `row_step` apart, in place.
  template <int R, int Q>
  static void rectify(T* row, int64_t row_step, int64_t count) {
    for (int64_t r = 0; r < count; ++r, row += row_step)
      LTH_SPARSE_UNROLL
      for (int k = 0; k < R * Q; ++k) V::load(row + k * W).rectified().store(row + k * W);
  }

  /// Adds the products of entries to the positions [R0, R1) x [Q0, Q1) of a tile.
  template <int R, int Q, int R0, int R1, int Q0, int Q1, class Listed>
  static void add(const Rows<Listed>& rows, const Listed& entries, int64_t e, int64_t last, V (&sum)[R][Q]) {
    if constexpr (R == 1 && Q1 - Q0 < 4) {
      // Too few sums to hide their latency: four entries at a time, each into sums of its own.
      V more[3][Q];
      for (auto& sums : more)
        LTH_SPARSE_UNROLL
        for (int q = Q0; q < Q1; ++q) sums[q] = V::zero();
      for (; e + 4 <= last; e += 4)
        LTH_SPARSE_UNROLL
        for (int k = 0; k < 4; ++k) {
          const V weight = V::broadcast(entries.value(e + k));
          LTH_SPARSE_UNROLL
          for (int q = Q0; q < Q1; ++q) {
            V& s = k == 0 ? sum[0][q] : more[k - 1][q];
            s = s.plus_product(weight, V::load(rows.in + entries.offset(e + k) + q * W));
          }
        }
      LTH_SPARSE_UNROLL
      for (int q = Q0; q < Q1; ++q) sum[0][q] = (sum[0][q] + more[0][q]) + (more[1][q] + more[2][q]);
    }
    for (; e != last; ++e) {
      const V weight = V::broadcast(entries.value(e));
      const T* const in = rows.in + entries.offset(e);
      LTH_SPARSE_UNROLL
      for (int r = R0; r < R1; ++r)
        LTH_SPARSE_UNROLL
        for (int q = Q0; q < Q1; ++q)
          sum[r][q] = sum[r][q].plus_product(weight, V::load(in + r * rows.in_row_step + q * W));
    }
  }

  /// As accumulate_tile, but without the products that are zero because their operands lie in the padding. A position is
  /// G vectors wide. Entries that meet nothing else are the last run of a row, which is not visited.
  template <int R, int Q, int G, class Listed>
  static void accumulate_clipped(const Rows<Listed>& rows) {
    for (int64_t row = 0; row < rows.count; ++row) {
      const int32_t* const starts = rows.starts + row * rows.row_step;
      V sum[R][Q];
      if (!begin(rows, row, starts[0] == starts[kClipsAll], sum)) continue;
      for_each_clip<R, Q, G>([&]<int K, int R0, int R1, int Q0, int Q1>() __attribute__((always_inline)) {
        add<R, Q, R0, R1, Q0, Q1>(rows, rows.entries, starts[K], starts[K + 1], sum);
      });
      finish(rows, row, sum);
    }
  }

  template <int R, int Q, class Listed>
  static void accumulate_tile(const Rows<Listed>& rows) {
    for (int64_t row = 0; row < rows.count; ++row) {
      const int32_t* const starts = rows.starts + row * rows.row_step;
      const int64_t e = starts[0], last = starts[1];
      V sum[R][Q];
      if (!begin(rows, row, e == last, sum)) continue;
      add<R, Q, 0, R, 0, Q>(rows, rows.entries.of_row(rows.first_row + row), e, last, sum);
      finish(rows, row, sum);
    }
  }

  /// The same for grad_weight: `out` is the gradient of the output, and sums[k] grows by the product of entry k.
  template <class Listed>
  struct Products {
    const Listed& entries;
    int64_t first_row;
    const int32_t* starts;
    int64_t row_step;
    int64_t count;
    const T* in;
    int64_t in_row_step;
    const T* out;
    int64_t out_row_step;
    T* sums;
  };

  template <int R, int Q, class Listed>
  static void load_gradient(const Products<Listed>& rows, int64_t row, V (&gradient)[R][Q]) {
    const T* const out = rows.out + row * rows.out_row_step;
    LTH_SPARSE_UNROLL
    for (int r = 0; r < R; ++r)
      LTH_SPARSE_UNROLL
      for (int q = 0; q < Q; ++q) gradient[r][q] = V::load(out + (r * Q + q) * W);
  }

  /// The products of N entries over the positions [R0, R1) x [Q0, Q1) of a tile, by lane. They take turns, and each has two
  /// sums, so that none waits for its last addition: one after the other was a tenth slower.
  template <int N, int R, int Q, int R0, int R1, int Q0, int Q1, class Listed>
  LTH_SPARSE_INLINE static void dot(const Products<Listed>& rows, const Listed& entries, int64_t e,
                                    const V (&gradient)[R][Q], V* products) {
    V sum[N][2];
    const T* in[N];
    LTH_SPARSE_UNROLL
    for (int k = 0; k < N; ++k) {
      in[k] = rows.in + entries.offset(e + k);
      sum[k][0] = sum[k][1] = V::zero();
    }
    LTH_SPARSE_UNROLL
    for (int r = R0; r < R1; ++r)
      LTH_SPARSE_UNROLL
      for (int q = Q0; q < Q1; ++q)
        LTH_SPARSE_UNROLL
        for (int k = 0; k < N; ++k) {
          V& s = sum[k][((r - R0) * (Q1 - Q0) + q - Q0) % 2];
          s = s.plus_product(gradient[r][q], V::load(in[k] + r * rows.in_row_step + q * W));
        }
    LTH_SPARSE_UNROLL
    for (int k = 0; k < N; ++k) products[k] = sum[k][0] + sum[k][1];
  }

  static void add_fewer_sums(const V (&sum)[4], T* to, int64_t count) {
    T four[4] = {};
    V::add_sums(sum, four);
    for (int64_t k = 0; k < count; ++k) to[k] += four[k];
  }

  template <int R, int Q, class Listed>
  static void multiply_tile(const Products<Listed>& rows) {
    for (int64_t row = 0; row < rows.count; ++row) {
      const int32_t* const starts = rows.starts + row * rows.row_step;
      int64_t e = starts[0];
      const int64_t last = starts[1];
      if (e == last) continue;
      V gradient[R][Q];
      load_gradient(rows, row, gradient);
      const auto& entries = rows.entries.of_row(rows.first_row + row);
      V sum[4];
      for (; e + 4 <= last; e += 4) {
        if constexpr (R * Q + 8 < V::registers) {
          dot<4, R, Q, 0, R, 0, Q>(rows, entries, e, gradient, sum);
        } else {
          dot<2, R, Q, 0, R, 0, Q>(rows, entries, e, gradient, sum);
          dot<2, R, Q, 0, R, 0, Q>(rows, entries, e + 2, gradient, sum + 2);
        }
        V::add_sums(sum, rows.sums + e);
      }
      if (const int64_t left = last - e; left > 0) {
        sum[1] = sum[2] = sum[3] = V::zero();
        dot<1, R, Q, 0, R, 0, Q>(rows, entries, e, gradient, sum);
        if (left > 1) dot<1, R, Q, 0, R, 0, Q>(rows, entries, e + 1, gradient, sum + 1);
        if (left > 2) dot<1, R, Q, 0, R, 0, Q>(rows, entries, e + 2, gradient, sum + 2);
        add_fewer_sums(sum, rows.sums + e, left);
      }
    }
  }

  /// As multiply_tile, but without the products that are zero because their operands lie in the padding.
  template <int R, int Q, int G, class Listed>
  static void multiply_clipped(const Products<Listed>& rows) {
    for (int64_t row = 0; row < rows.count; ++row) {
      const int32_t* const starts = rows.starts + row * rows.row_step;
      if (starts[0] == starts[kClipsAll]) continue;
      V gradient[R][Q];
      load_gradient(rows, row, gradient);
      V sum[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
      int filled = 0;
      T* to = rows.sums + starts[0];
      for_each_clip<R, Q, G>([&]<int K, int R0, int R1, int Q0, int Q1>() __attribute__((always_inline)) {
        for (int64_t e = starts[K]; e < starts[K + 1]; ++e) {
          dot<1, R, Q, R0, R1, Q0, Q1>(rows, rows.entries, e, gradient, sum + filled);
          if (++filled == 4) {
            V::add_sums(sum, to);
            to += 4;
            filled = 0;
          }
        }
      });
      if (filled > 0) add_fewer_sums(sum, to, filled);
    }
  }
};
