// The passes of a layer: what is transformed when, and which thread does what.
//
// forward and grad_input, `correlate`, have two orders. Where there are many tiles, a task is a block of them: 32 or 64 tiles,
// whose transformed patches stay in L2, against all weights, transformed once and shared. Where there are few, weights are the
// larger part (512 channels of 4 x 4: 38 MB transformed): then a task is a panel of output channels, whose weights are
// transformed 64 channels at a time and used from L2, never written out, against the patches of all tiles, shared. So are
// weights of more than 128 MB, 256 tiles at a time.
//
// grad_weight has three. Where its sums are small, up to 16 parts of the tiles have sums of their own, added at the end; else
// patches and gradients are transformed first, and a task is one point, or, where the sums are larger than caches, 64 x 64
// channels of the weight. More threads than parts or points share the output channels of each: how the sums come about is a
// matter of the sizes alone. Of a part they transform the patches anew, a seventh of its
// time with 128 channels.
//
// What bounds it: the multipliers. On two Zen 5 cores (family 26 in bench/results, `operations`, nothing pruned, a quarter of the
// products counted) the forward pass sustains 65, 70 and 64 % of their ceiling at 64, 128 and 256 channels, 46 % at 32
// and 27 % at 16, where transforms are the larger part; grad_weight 56, 65 and 49 %.
//
// Include like ../engine.h, after the other headers of this folder.

template <class V, int M>
class Winograd {
  using T = typename V::Element;
  static constexpr int W = V::width, A = M + 2, P = A * A, kPanel = Products<V>::panel;
  /// Channels that are summed in registers before they are added in memory.
  static constexpr int64_t kChannels = 64;
  /// Tiles whose patches may be shared while panels of weights are transformed one by one.
  static constexpr int64_t kFewTiles = 256;

 public:
  static void correlate(const Correlation& c, const SparseRows& weights, bool transposed, int threads, const T* in,
                        const T* values, const T* bias, bool relu, T* out, const Parallel& parallel) {
    constexpr int64_t kLargeWeights = int64_t{4} << 20, kTooLargeWeights = int64_t{128} << 20;
    const Pass pass(c, weights, transposed, in, values, bias, relu, out);
    const int64_t bytes = P * pass.in_groups * pass.out_groups * W * W * static_cast<int64_t>(sizeof(T));
    if (bytes > kTooLargeWeights || (pass.tiling.tiles() <= kFewTiles && bytes > kLargeWeights))
      by_panels(pass, parallel);
    else
      by_tiles(pass, threads, parallel);
  }

  static void grad_weight(const Correlation& c, const SparseRows& weights, int threads, const T* in, const T* grad_out,
                          T* grad_values, const Parallel& parallel) {
    constexpr int64_t kSmallSums = int64_t{4} << 20, kLargeSums = int64_t{16} << 20;
    const Gradient pass(c, weights, in, grad_out, grad_values);
    const int64_t bytes = pass.sums() * static_cast<int64_t>(sizeof(T));
    if (bytes <= kSmallSums)
      by_parts(pass, threads, parallel);
    else if (bytes <= kLargeSums)
      by_points(pass, threads, parallel);
    else
      by_weights(pass, parallel);
  }

 private:
  struct Pass {
    const Correlation& c;
    const SparseRows& weights;
    bool transposed;
    const T *in, *values, *bias;
    bool relu;
    T* out;
    Tiling tiling;
    int64_t in_groups, out_groups;
    bool stream;

    Pass(const Correlation& c, const SparseRows& weights, bool transposed, const T* in, const T* values, const T* bias, bool relu,
         T* out)
        : c(c), weights(weights), transposed(transposed), in(in), values(values), bias(bias), relu(relu), out(out), tiling(c, M),
          in_groups(ceil_div(c.in.channels, W)), out_groups(ceil_div(c.out.channels, W)),
          stream(c.out.count * c.out.image_step() * static_cast<int64_t>(sizeof(T)) >= kStreamFrom) {}

    int64_t panels() const { return ceil_div(out_groups, kPanel); }
    /// Vectors of a panel: the last may have fewer.
    int64_t vectors(int64_t panel) const { return std::min<int64_t>(kPanel, out_groups - panel * kPanel); }
  };

  struct Gradient {
    const Correlation& c;
    const SparseRows& weights;
    const T *in, *grad_out;
    T* grad_values;
    Tiling tiling;
    int64_t in_groups, out_groups;

    Gradient(const Correlation& c, const SparseRows& weights, const T* in, const T* grad_out, T* grad_values)
        : c(c), weights(weights), in(in), grad_out(grad_out), grad_values(grad_values), tiling(c, M),
          in_groups(ceil_div(c.in.channels, W)), out_groups(ceil_div(c.out.channels, W)) {}

    int64_t sum_step() const { return point_step(in_groups * out_groups * W * W); }
    int64_t sums() const { return P * sum_step(); }
  };

  static constexpr int64_t kStreamFrom = int64_t{16} << 20;

  static void by_tiles(const Pass& pass, int threads, const Parallel& parallel) {
    const Tiling& tiling = pass.tiling;
    static thread_local Arena shared;
    const int64_t weight_step = point_step(pass.in_groups * W * kPanel * W), panel_size = P * weight_step;
    T* const weights = shared.take<T>(pass.panels() * panel_size);
    const int64_t row_groups = pass.transposed ? pass.in_groups : pass.out_groups;
    const int64_t column_groups = pass.transposed ? pass.out_groups : pass.in_groups;
    std::atomic<bool> damaged = false;
    parallel(row_groups, [&](int64_t begin, int64_t end) {
      alignas(64) T square[Weights<V, M>::kSquare];
      for (int64_t row = begin; row < end; ++row) {
        WeightRows<V> rows(pass.weights, row * W, 0);
        for (int64_t column = 0; column < column_groups; ++column) {
          const int64_t in_group = pass.transposed ? row : column, out_group = pass.transposed ? column : row;
          const int64_t panel = out_group / kPanel, vectors = pass.vectors(panel);
          T* const to = weights + panel * panel_size + in_group * W * vectors * W + out_group % kPanel * W;
          Weights<V, M>::transform(rows, column * W, pass.transposed, pass.values, square, to, weight_step, vectors * W);
        }
        if (rows.damaged_at_end()) damaged = true;
      }
    });

    if (damaged) throw std::runtime_error(kNoMask);

    // Fewer tiles than the caches would hold where threads would be left without.
    const int64_t most = M == 4 && pass.in_groups * W <= 64 ? 32 : 64;
    const int64_t share = ceil_div(tiling.tiles(), threads);
    const int64_t per_block = tiling.rows_with(std::clamp<int64_t>(share, 16, most));
    const int64_t capacity = per_block * tiling.tiles_of_row;
    parallel(ceil_div(tiling.rows, per_block), [&](int64_t begin, int64_t end) {
      static thread_local Arena arena;
      const int64_t patch_step = point_step(pass.in_groups * capacity * W), product_step = point_step(capacity * kPanel * W);
      T* const patches = arena.take<T>(P * (patch_step + product_step) + stage_size(pass.c, tiling));
      T *const products = patches + P * patch_step, *const stage = products + P * product_step;
      for (int64_t block = begin; block < end; ++block) {
        const int64_t first = block * per_block, rows = std::min(per_block, tiling.rows - first);
        load_patches<false>(pass.c, tiling, pass.in, first, rows, capacity, patches, patch_step, stage);
        for (int64_t panel = 0; panel < pass.panels(); ++panel) {
          multiply(pass.vectors(panel), rows * tiling.tiles_of_row, capacity, 0, pass.in_groups, patches, patch_step,
                   weights + panel * panel_size, weight_step, products, product_step);
          store_tiles(pass, first, rows, panel, products, product_step, stage);
        }
      }
      if (pass.stream) stream_fence();
    });
  }

  static void by_panels(const Pass& pass, const Parallel& parallel) {
    const int64_t chunk = pass.tiling.rows_with(kFewTiles);
    for (int64_t first = 0; first < pass.tiling.rows; first += chunk)
      by_panels(pass, first, std::min(chunk, pass.tiling.rows - first), parallel);
  }

  /// The tile rows [first, first + tile_rows).
  static void by_panels(const Pass& pass, int64_t first, int64_t tile_rows, const Parallel& parallel) {
    const Tiling& tiling = pass.tiling;
    static thread_local Arena shared;
    const int64_t tiles = tile_rows * tiling.tiles_of_row, patch_step = point_step(pass.in_groups * tiles * W);
    T* const patches = shared.take<T>(P * patch_step);
    load_all_patches(pass.c, tiling, pass.in, first, tile_rows, tiles, patches, patch_step, parallel);
    const int64_t groups = kChannels / W;
    std::atomic<bool> damaged = false;
    parallel(pass.panels(), [&](int64_t begin, int64_t end) {
      static thread_local Arena arena;
      alignas(64) T square[Weights<V, M>::kSquare];
      const int64_t weight_step = point_step(groups * W * kPanel * W), product_step = point_step(tiles * kPanel * W);
      T* const products = arena.take<T>(P * (product_step + weight_step) + stage_size(pass.c, tiling));
      T *const weights = products + P * product_step, *const stage = weights + P * weight_step;
      for (int64_t panel = begin; panel < end; ++panel) {
        const int64_t vectors = pass.vectors(panel);
        std::optional<WeightRows<V>> rows[kPanel];
        if (!pass.transposed)
          for (int64_t q = 0; q < vectors; ++q) rows[q].emplace(pass.weights, (panel * kPanel + q) * W, 0);
        for (int64_t group = 0; group < pass.in_groups; group += groups) {
          const int64_t here = std::min(groups, pass.in_groups - group);
          for (int64_t g = 0; g < here; ++g) {
            if (pass.transposed) rows[0].emplace(pass.weights, (group + g) * W, panel * kPanel * W);
            for (int64_t q = 0; q < vectors; ++q) {
              WeightRows<V>& live = *rows[pass.transposed ? 0 : q];
              Weights<V, M>::transform(live, (pass.transposed ? panel * kPanel + q : group + g) * W, pass.transposed, pass.values,
                                       square, weights + g * W * vectors * W + q * W, weight_step, vectors * W);
              if (live.damaged()) damaged = true;
            }
          }
          multiply(vectors, tiles, tiles, group, here, patches, patch_step, weights, weight_step, products, product_step);
        }
        store_tiles(pass, first, tile_rows, panel, products, product_step, stage);
      }
      if (pass.stream) stream_fence();
    });
    if (damaged) throw std::runtime_error(kNoMask);
  }

  /// products[point][tile][vectors] of the patches of groups [first_group, first_group + groups), whose weights start at
  /// `weights`; added to what other groups gave.
  static void multiply(int64_t vectors, int64_t tiles, int64_t capacity, int64_t first_group, int64_t groups, const T* patches,
                       int64_t patch_step, const T* weights, int64_t weight_step, T* products, int64_t product_step) {
    constexpr int64_t kGroups = kChannels / W;
    for (int64_t point = 0; point < P; ++point)
      for (int64_t group = 0; group < groups; group += kGroups) {
        const T* const patch = patches + point * patch_step + (first_group + group) * capacity * W;
        const T* const weight = weights + point * weight_step + group * W * vectors * W;
        const int64_t here = std::min(kGroups, groups - group);
        const bool add = first_group + group > 0;
        T* const to = products + point * product_step;
        if (vectors == kPanel)
          Products<V>::template of_tiles<kPanel>(tiles, here, patch, capacity * W, weight, to, add);
        else
          Products<V>::template of_tiles<1>(tiles, here, patch, capacity * W, weight, to, add);
      }
  }

  /// Groups of output channels, cut into about `wanted` chunks of a size.
  struct Chunks {
    int64_t groups, size;

    Chunks(int64_t groups, int64_t wanted) : groups(groups), size(ceil_div(groups, std::clamp<int64_t>(wanted, 1, groups))) {}
    int64_t count() const { return ceil_div(groups, size); }
    int64_t first(int64_t task) const { return task % count() * size; }
    int64_t size_of(int64_t task) const { return std::min(size, groups - first(task)); }
  };

  static void by_parts(const Gradient& pass, int threads, const Parallel& parallel) {
    constexpr int64_t kAllSums = int64_t{16} << 20, kFewest = 4, kMost = 16, kTiles = 64;
    const Tiling& tiling = pass.tiling;
    const int64_t bytes = pass.sums() * static_cast<int64_t>(sizeof(T));
    const int64_t per_block = tiling.rows_with(kTiles), blocks = ceil_div(tiling.rows, per_block);
    // Powers of two, which threads share evenly.
    int64_t parts = kMost;
    while (parts > kFewest && parts * bytes > kAllSums) parts /= 2;
    parts = std::min(parts, blocks);
    const Chunks chunks(pass.out_groups, threads / parts);
    static thread_local Arena shared;
    T* const sums = shared.take<T>(parts * pass.sums());
    parallel(parts * chunks.count(), [&](int64_t begin, int64_t end) {
      static thread_local Arena arena;
      const int64_t capacity = per_block * tiling.tiles_of_row;
      const int64_t patch_step = point_step(pass.in_groups * capacity * W);
      const int64_t gradient_step = point_step(chunks.size * capacity * W);
      T* const patches = arena.take<T>(P * (patch_step + gradient_step) + stage_size(pass.c, tiling));
      T *const gradients = patches + P * patch_step, *const stage = gradients + P * gradient_step;
      for (int64_t task = begin; task < end; ++task) {
        const int64_t part = task / chunks.count(), first_group = chunks.first(task), groups = chunks.size_of(task);
        T* const own = sums + part * pass.sums() + first_group * pass.in_groups * W * W;
        const int64_t first_block = blocks * part / parts, last_block = blocks * (part + 1) / parts;
        for (int64_t block = first_block; block < last_block; ++block) {
          const int64_t first = block * per_block, rows = std::min(per_block, tiling.rows - first);
          load_patches<false>(pass.c, tiling, pass.in, first, rows, capacity, patches, patch_step, stage);
          load_gradients<false>(pass.c, tiling, pass.grad_out, first_group, groups, first, rows, capacity, gradients,
                                gradient_step, stage);
          for (int64_t point = 0; point < P; ++point)
            Products<V>::of_channels(rows * tiling.tiles_of_row, pass.in_groups * W, groups, patches + point * patch_step,
                                     capacity * W, gradients + point * gradient_step, capacity * W,
                                     own + point * pass.sum_step(), pass.in_groups * W * W, block > first_block);
        }
      }
    });
    gather(pass, sums, parts, parallel);
  }

  static void by_points(const Gradient& pass, int threads, const Parallel& parallel) {
    constexpr int64_t kTiles = 256, kTasksOfAThread = 2;
    const Chunks chunks(pass.out_groups, ceil_div(kTasksOfAThread * threads, P));
    const Tiling& tiling = pass.tiling;
    const int64_t chunk = tiling.rows_with(kTiles), tiles = chunk * tiling.tiles_of_row;
    const int64_t patch_step = point_step(pass.in_groups * tiles * W), gradient_step = point_step(pass.out_groups * tiles * W);
    static thread_local Arena shared;
    T* const patches = shared.take<T>(P * (patch_step + gradient_step) + pass.sums());
    T *const gradients = patches + P * patch_step, *const sums = gradients + P * gradient_step;
    for (int64_t first = 0; first < tiling.rows; first += chunk) {
      const int64_t rows = std::min(chunk, tiling.rows - first);
      load_all_patches(pass.c, tiling, pass.in, first, rows, tiles, patches, patch_step, parallel);
      load_all_gradients(pass.c, tiling, pass.grad_out, first, rows, tiles, gradients, gradient_step, parallel);
      parallel(P * chunks.count(), [&](int64_t begin, int64_t end) {
        for (int64_t task = begin; task < end; ++task) {
          const int64_t point = task / chunks.count(), group = chunks.first(task);
          Products<V>::of_channels(rows * tiling.tiles_of_row, pass.in_groups * W, chunks.size_of(task),
                                   patches + point * patch_step, tiles * W,
                                   gradients + point * gradient_step + group * tiles * W, tiles * W,
                                   sums + point * pass.sum_step() + group * pass.in_groups * W * W, pass.in_groups * W * W,
                                   first > 0);
        }
      });
    }
    gather(pass, sums, 1, parallel);
  }

  static void gather(const Gradient& pass, const T* sums, int64_t parts, const Parallel& parallel) {
    std::atomic<bool> damaged = false;
    parallel(pass.out_groups, [&](int64_t begin, int64_t end) {
      alignas(64) T square[Weights<V, M>::kSquare];
      for (int64_t group = begin; group < end; ++group) {
        WeightRows<V> rows(pass.weights, group * W, 0);
        for (int64_t in_group = 0; in_group < pass.in_groups; ++in_group)
          Weights<V, M>::gather(rows, in_group * W, sums + (group * pass.in_groups + in_group) * W * W, parts, pass.sums(),
                                pass.sum_step(), square, pass.grad_values, false);
        if (rows.damaged_at_end()) damaged = true;
      }
    });
    if (damaged) throw std::runtime_error(kNoMask);
  }

  static void by_weights(const Gradient& pass, const Parallel& parallel) {
    constexpr int64_t kScratch = int64_t{96} << 20;
    const Tiling& tiling = pass.tiling;
    const int64_t side = kChannels / W;  // groups
    const int64_t of_a_tile = P * (pass.in_groups + pass.out_groups) * W * static_cast<int64_t>(sizeof(T));
    const int64_t chunk = tiling.rows_with(kScratch / of_a_tile), tiles = chunk * tiling.tiles_of_row;
    const int64_t patch_step = point_step(pass.in_groups * tiles * W), gradient_step = point_step(pass.out_groups * tiles * W);
    static thread_local Arena shared;
    T* const patches = shared.take<T>(P * (patch_step + gradient_step));
    T* const gradients = patches + P * patch_step;
    const int64_t in_blocks = ceil_div(pass.in_groups, side), out_blocks = ceil_div(pass.out_groups, side);
    std::atomic<bool> damaged = false;
    for (int64_t first = 0; first < tiling.rows; first += chunk) {
      const int64_t rows = std::min(chunk, tiling.rows - first);
      load_all_patches(pass.c, tiling, pass.in, first, rows, tiles, patches, patch_step, parallel);
      load_all_gradients(pass.c, tiling, pass.grad_out, first, rows, tiles, gradients, gradient_step, parallel);
      parallel(in_blocks * out_blocks, [&](int64_t begin, int64_t end) {
        static thread_local Arena arena;
        alignas(64) T square[Weights<V, M>::kSquare];
        const int64_t sum_step = point_step(side * side * W * W);
        T* const sums = arena.take<T>(P * sum_step);
        for (int64_t task = begin; task < end; ++task) {
          const int64_t in_group = task % in_blocks * side, out_group = task / in_blocks * side;
          const int64_t ins = std::min(side, pass.in_groups - in_group), outs = std::min(side, pass.out_groups - out_group);
          for (int64_t point = 0; point < P; ++point)
            Products<V>::of_channels(rows * tiling.tiles_of_row, ins * W, outs, patches + point * patch_step + in_group * tiles * W,
                                     tiles * W, gradients + point * gradient_step + out_group * tiles * W, tiles * W,
                                     sums + point * sum_step, ins * W * W, false);
          for (int64_t out = 0; out < outs; ++out) {
            WeightRows<V> live(pass.weights, (out_group + out) * W, in_group * W);
            for (int64_t in = 0; in < ins; ++in)
              Weights<V, M>::gather(live, (in_group + in) * W, sums + (out * ins + in) * W * W, 1, 0, sum_step, square,
                                    pass.grad_values, first > 0);
            if (live.damaged()) damaged = true;
          }
        }
      });
    }
    if (damaged) throw std::runtime_error(kNoMask);
  }

  static int64_t stage_size(const Correlation& c, const Tiling& tiling) {
    return (tiling.band(c.out) * M + 2) * tiling.patch_pixels() * W;
  }

  static void load_all_patches(const Correlation& c, const Tiling& tiling, const T* in, int64_t first, int64_t rows,
                               int64_t capacity, T* patches, int64_t patch_step, const Parallel& parallel) {
    in_shares(tiling, first, rows, parallel, [&](int64_t from, int64_t count, T* stage) {
      load_patches<true>(c, tiling, in, from, count, capacity, patches + (from - first) * tiling.tiles_of_row * W, patch_step, stage);
    }, stage_size(c, tiling));
  }

  static void load_all_gradients(const Correlation& c, const Tiling& tiling, const T* grad_out, int64_t first, int64_t rows,
                                 int64_t capacity, T* gradients, int64_t gradient_step, const Parallel& parallel) {
    in_shares(tiling, first, rows, parallel, [&](int64_t from, int64_t count, T* stage) {
      load_gradients<true>(c, tiling, grad_out, 0, ceil_div(c.out.channels, W), from, count, capacity,
                           gradients + (from - first) * tiling.tiles_of_row * W, gradient_step, stage);
    }, stage_size(c, tiling));
  }

  /// Calls load(first tile row, tile rows, stage) on some tile rows at a time. What they write, other threads read next.
  template <class Load>
  static void in_shares(const Tiling& tiling, int64_t first, int64_t rows, const Parallel& parallel, const Load& load,
                        int64_t stage_size) {
    const int64_t share = tiling.rows_with(16);
    parallel(ceil_div(rows, share), [&](int64_t begin, int64_t end) {
      static thread_local Arena arena;
      T* const stage = arena.take<T>(stage_size);
      const int64_t from = begin * share;
      load(first + from, std::min(end * share, rows) - from, stage);
      stream_fence();
    });
  }

  /// patches[point][group][tile][W] of the block of tile rows [first, first + rows). `Stream`: past the caches.
  template <bool Stream>
  static void load_patches(const Correlation& c, const Tiling& tiling, const T* in, int64_t first, int64_t rows,
                           int64_t capacity, T* patches, int64_t patch_step, T* stage) {
    const int64_t row_step = tiling.patch_pixels() * W, band = tiling.band(c.out);
    std::fill_n(stage, (band * M + 2) * row_step, T(0));
    for (int64_t group = 0; group * W < c.in.channels; ++group) {
      const int channels = static_cast<int>(std::min<int64_t>(W, c.in.channels - group * W));
      int64_t image_before = -1, rows_before = 0;
      tiling.for_each_band(first, rows, band, [&](int64_t image, int64_t row, int64_t count, int64_t before) {
        const bool goes_on = image == image_before;
        if (goes_on) std::copy_n(stage + rows_before * M * row_step, 2 * row_step, stage);
        // Rows of the stage, and the rows of the image that they hold.
        const int64_t top = row * M - tiling.before[0], stage_rows = count * M + 2;
        const int64_t from = std::clamp<int64_t>(-top, goes_on ? 2 : 0, stage_rows);
        const int64_t to = std::clamp<int64_t>(c.in.height - top, from, stage_rows);
        if (!goes_on) std::fill_n(stage, from * row_step, T(0));
        const T* const source = in + image * c.in.image_step() + group * W * c.in.channel_step();
        Staging<V>::load(c.in, source, channels, top + from, to - from, stage + from * row_step + tiling.before[1] * W, row_step,
                         next_band(c.in, tiling, row, count));
        std::fill_n(stage + to * row_step, (stage_rows - to) * row_step, T(0));
        for (int64_t r = 0; r < count; ++r)
          for (int64_t t = 0; t < tiling.tiles_of_row; ++t) {
            const T* const patch = stage + r * M * row_step + t * M * W;
            T* const target = patches + (group * capacity + (before + r) * tiling.tiles_of_row + t) * W;
            both<A, A, V>([&](int i, int j) LTH_SPARSE_INLINE_LAMBDA { return V::load(patch + i * row_step + j * W); },
                          [](const V(&d)[A], V(&v)[A]) LTH_SPARSE_INLINE_LAMBDA { Transform<V, M>::input(d, v); },
                          [&](int i, int j, V v) LTH_SPARSE_INLINE_LAMBDA { put<Stream>(v, target + (i * A + j) * patch_step); });
          }
        image_before = image;
        rows_before = count;
      });
    }
  }

  /// gradients[point][group][tile][W], as `load_patches`, of `groups` groups of channels from `first_group` on.
  template <bool Stream>
  static void load_gradients(const Correlation& c, const Tiling& tiling, const T* grad_out, int64_t first_group, int64_t groups,
                             int64_t first, int64_t rows, int64_t capacity, T* gradients, int64_t gradient_step, T* stage) {
    const int64_t row_step = tiling.tile_pixels() * W, band = tiling.band(c.out);
    std::fill_n(stage, band * M * row_step, T(0));
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t channel = (first_group + group) * W;
      const int channels = static_cast<int>(std::min<int64_t>(W, c.out.channels - channel));
      tiling.for_each_band(first, rows, band, [&](int64_t image, int64_t row, int64_t count, int64_t before) {
        const int64_t here = std::min(count * M, c.out.height - row * M);
        const T* const source = grad_out + image * c.out.image_step() + channel * c.out.channel_step();
        Staging<V>::load(c.out, source, channels, row * M, here, stage, row_step, next_band(c.out, tiling, row, count));
        std::fill_n(stage + here * row_step, (count * M - here) * row_step, T(0));
        for (int64_t r = 0; r < count; ++r)
          for (int64_t t = 0; t < tiling.tiles_of_row; ++t) {
            const T* const tile = stage + r * M * row_step + t * M * W;
            T* const target = gradients + (group * capacity + (before + r) * tiling.tiles_of_row + t) * W;
            both<M, A, V>([&](int i, int j) LTH_SPARSE_INLINE_LAMBDA { return V::load(tile + i * row_step + j * W); },
                          [](const V(&y)[M], V(&z)[A]) LTH_SPARSE_INLINE_LAMBDA { Transform<V, M>::gradient(y, z); },
                          [&](int i, int j, V z) LTH_SPARSE_INLINE_LAMBDA { put<Stream>(z, target + (i * A + j) * gradient_step); });
          }
      });
    }
  }

  /// From a band's pixels to those of the band after it.
  static int64_t next_band(const Images& images, const Tiling& tiling, int64_t row, int64_t count) {
    return row + count < tiling.rows_of_image ? count * M * images.width * images.pixel_step() : images.image_step();
  }

  /// The outputs of a panel's channels from products[point][tile][vectors].
  static void store_tiles(const Pass& pass, int64_t first, int64_t rows, int64_t panel, const T* products,
                          int64_t product_step, T* stage) {
    (pass.relu ? store_tiles_as<true> : store_tiles_as<false>)(pass, first, rows, panel, products, product_step, stage);
  }

  template <bool Relu>
  static void store_tiles_as(const Pass& pass, int64_t first, int64_t rows, int64_t panel, const T* products,
                             int64_t product_step, T* stage) {
    const Tiling& tiling = pass.tiling;
    const Images& images = pass.c.out;
    const int64_t row_step = tiling.tile_pixels() * W, vectors = pass.vectors(panel);
    for (int64_t q = 0; q < vectors; ++q) {
      const int64_t channel = (panel * kPanel + q) * W;
      const int channels = static_cast<int>(std::min<int64_t>(W, images.channels - channel));
      const V bias = pass.bias == nullptr ? V::zero() : V::load(pass.bias + channel, channels);
      tiling.for_each_band(first, rows, tiling.band(images), [&](int64_t image, int64_t row, int64_t count, int64_t before) {
        for (int64_t r = 0; r < count; ++r)
          for (int64_t t = 0; t < tiling.tiles_of_row; ++t) {
            const T* const from = products + (((before + r) * tiling.tiles_of_row + t) * vectors + q) * W;
            T* const to = stage + r * M * row_step + t * M * W;
            both<A, M, V>([&](int i, int j) LTH_SPARSE_INLINE_LAMBDA { return V::load(from + (i * A + j) * product_step); },
                          [](const V(&m)[A], V(&y)[M]) LTH_SPARSE_INLINE_LAMBDA { Transform<V, M>::output(m, y); },
                          [&](int i, int j, V y) LTH_SPARSE_INLINE_LAMBDA {
                            const V sum = y + bias;
                            (Relu ? sum.rectified() : sum).store(to + i * row_step + j * W);
                          });
          }
        T* const target = pass.out + image * images.image_step() + channel * images.channel_step();
        Staging<V>::store(images, target, channels, row * M, std::min(count * M, images.height - row * M), stage, row_step,
                          pass.stream);
      });
    }
  }

  template <bool Stream>
  LTH_SPARSE_INLINE static void put(V vector, T* to) {
    if constexpr (Stream)
      vector.stream(to);
    else
      vector.store(to);
  }
};

template <class V>
const WinogradKernels* winograd_of() {
  static const WinogradKernels kernels = {
      [](const Correlation& c, const SparseRows& weights, bool transposed, int tile, int threads, const float* in,
         const float* values, const float* bias, bool relu, float* out, const Parallel& parallel) {
        (tile == 4 ? Winograd<V, 4>::correlate : Winograd<V, 2>::correlate)(c, weights, transposed, threads, in, values, bias,
                                                                            relu, out, parallel);
      },
      [](const Correlation& c, const SparseRows& weights, int tile, int threads, const float* in, const float* grad_out,
         float* grad_values, const Parallel& parallel) {
        (tile == 4 ? Winograd<V, 4>::grad_weight : Winograd<V, 2>::grad_weight)(c, weights, threads, in, grad_out, grad_values,
                                                                                parallel);
      }};
  return &kernels;
}
