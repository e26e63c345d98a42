// The kernels, for any vector type: forward, grad_input (both are correlations) and grad_weight. The loops over tasks are
// here, the loads and stores in transfer.h, the products in tiles.h. Elements of other types than the vectors' (element.h)
// become these where they are loaded into scratch, and nothing is rounded to theirs but what is stored.
//
// Include inside the target of an instruction set (target.h), after every other header, so that nothing outside it is
// compiled for that set. See scratch.h for the layouts.
//
// What bounds them. A live weight costs, for each vector of output, one fused multiply-add whose operand comes from L1:
// both happen once a cycle on Zen 4 (an Intel core with two FMA ports does two of each). What is paid beside it, per
// vector of output: moving it in and out of registers once for each block of input channels, and converting it between
// tensor and scratch once. Blocks of input channels are as large as the caches allow, so that both stay small.
//
// Measured on two Zen 4 cores (bench/results, the 3x3 layers, batch 128), in GFLOP/s of live products: 108 to 145 at 50 %
// sparsity, 100 to 111 at 90 %, 38 to 79 at 98 %, where dense PyTorch sustains 182 to 214 of all products. So the bound is met
// to two thirds at 50 % and to half at 90 %; beyond, accumulators and conversions are the larger part, and on 64 channels of
// 32 x 32 memory is. On 4 x 4 images a live weight of a block beyond L1 takes 23 cycles for 11 products (a copy of the loop,
// by itself), which is what L2 delivers, 32 bytes a cycle; blocks that stay closer to L1 pay for nine ends of runs in each row
// instead. The block size is where both are least.
//
// On two Zen 5 cores (48 KB of L1, two multiply-adds and two loads a cycle, 262 GFLOP/s a core) a copy of the loop, by itself
// and with all in L1, reaches 183 GFLOP/s with 8 accumulators, 198 with 16 and 218 with 24, and with the ends of the runs of 90 %
// 150. Tiles of more than 16 cost in L1 what they gain here: 4 x 7 is no faster than 2 x 7, 4 x 4 than either where it fits. The
// kernels reach 90 to 135 at 90 %, 50 to 90 at 98 %, where dense PyTorch sustains 200 to 230.
//
// 1 x 1 layers do one product where a 3 x 3 layer does nine, so what they read and write bounds them sooner. There (two cores, 8
// images, 90 %, ResNet-50's layers): in panels of 14 x 14 images the products run at 175 GFLOP/s, which is what L2 delivers, and
// whole passes at 110 to 135. In place at 56 x 56 memory is the bound: 256 to 64 channels move 32 MB a pass, at 32 to 43 GB/s.
// With stride 2 half of a pass is pixels in and out: 65 to 105 GFLOP/s, where whole planes in scratch left 42 to 57.
//
// What cores take from each other's caches counts too: a virtual machine's may lie where they share none. So threads share
// the list of entries as entries.h and stream.h say, and grad_weight has few parts to add up.

/// `Pair`: a vector twice as long as V, or V where there is none.
template <class V, class Pair = V>
class Engine {
  using T = typename V::Element;
  static constexpr int W = V::width;

 public:
  static void correlate(const Correlation& correlation, const SparseRows& matrix, const Blocking& blocking, Element element,
                        const void* in, const void* given_values, const void* given_bias, bool relu, void* out,
                        const Parallel& parallel) {
    static thread_local Arena values_arena, bias_arena;
    const T* const values = in_own_type(element, given_values, matrix.nnz(), values_arena);
    const T* const bias = in_own_type(element, given_bias, correlation.out.channels, bias_arena);
    const Scratch scratch(correlation, blocking);
    if (scratch.wasteful(sizeof(T)))
      return with_element<T>(element, [&]<class E>(E) {
        correlate_plainly<T, E>(correlation, matrix, static_cast<const E*>(in), values, bias, relu, static_cast<E*>(out), parallel);
      });
    const std::vector<int32_t> offsets = scratch.column_offsets();
    if (blocking.unlisted) {
      const Unlisted<T> entries(matrix, offsets, values, parallel);
      return correlate_with(correlation, matrix, blocking, scratch, entries, element, in, bias, relu, out, parallel);
    }
    const Entries<T> entries(matrix, offsets, blocking.channel_block * correlation.taps(), correlation.taps(),
                             blocking.by_clip ? &scratch.clips() : nullptr, blocking.parts > 1,
                             ValueOf<T>{values, matrix.order, matrix.nnz()}, parallel);
    correlate_with(correlation, matrix, blocking, scratch, entries, element, in, bias, relu, out, parallel);
  }

  static void grad_weight(const Correlation& correlation, const SparseRows& matrix, const Blocking& blocking, Element element,
                          const void* in, const void* grad_out, void* grad_values, const Parallel& parallel) {
    if (!is_converted(element))
      return grad_weight_in(correlation, matrix, blocking, element, in, grad_out, static_cast<T*>(grad_values), parallel);
    static thread_local Arena sums_arena;
    T* const sums = sums_arena.take<T>(matrix.nnz());
    grad_weight_in(correlation, matrix, blocking, element, in, grad_out, sums, parallel);
    with_element<T>(element, [&]<class E>(E) {
      parallel(ceil_div(matrix.nnz(), kSumsOfATask), [&](int64_t begin, int64_t end) {
        const int64_t first = begin * kSumsOfATask, last = std::min(end * kSumsOfATask, matrix.nnz());
        convert<V>(sums + first, last - first, static_cast<E*>(grad_values) + first);
      });
    });
  }

 private:
  static constexpr int64_t kStreamFrom = int64_t{16} << 20;
  /// Sums that a task adds up or converts, some microseconds' worth.
  static constexpr int64_t kSumsOfATask = 8192;

  /// `count` elements as they are, or converted into the arena; null stays null.
  static const T* in_own_type(Element element, const void* given, int64_t count, Arena& arena) {
    if (!is_converted(element) || given == nullptr) return static_cast<const T*>(given);
    T* const own = arena.take<T>(count);
    with_element<T>(element, [&]<class E>(E) { convert<V>(static_cast<const E*>(given), count, own); });
    return own;
  }

  static void grad_weight_in(const Correlation& correlation, const SparseRows& matrix, const Blocking& blocking, Element element,
                             const void* in, const void* grad_out, T* grad_values, const Parallel& parallel) {
    const Scratch scratch(correlation, blocking);
    if (scratch.wasteful(sizeof(T)))
      return with_element<T>(element, [&]<class E>(E) {
        grad_weight_plainly<T, E>(correlation, matrix, static_cast<const E*>(in), static_cast<const E*>(grad_out), grad_values,
                                  parallel);
      });
    const std::vector<int32_t> offsets = scratch.column_offsets();
    if (blocking.unlisted) {
      const Unlisted<int32_t> entries(matrix, offsets, nullptr, parallel);
      return grad_weight_with(correlation, matrix, blocking, scratch, entries, element, in, grad_out, grad_values, parallel);
    }
    const Entries<int32_t> entries(matrix, offsets, blocking.channel_block * correlation.taps(), correlation.taps(),
                                   blocking.by_clip ? &scratch.clips() : nullptr, blocking.parts > 1, PlaceOf{}, parallel);
    grad_weight_with(correlation, matrix, blocking, scratch, entries, element, in, grad_out, grad_values, parallel);
  }

  template <class Listed>
  static void correlate_with(const Correlation& c, const SparseRows& matrix, const Blocking& blocking,
                             const Scratch& scratch, const Listed& entries, Element element, const void* in, const T* bias,
                             bool relu, void* out, const Parallel& parallel) {
    const int64_t blocks = ceil_div(c.in.channels, blocking.channel_block);
    const int64_t chunks = ceil_div(c.out.channels, blocking.channel_chunk);
    // A 1 x 1 kernel without padding reaches the first phase of its stride alone; panels leave the others 0.
    const int64_t phases = blocking.panels ? 1 : c.phases();
    const bool stream =
        !is_converted(element) && c.out.count * c.out.image_step() * static_cast<int64_t>(sizeof(T)) >= kStreamFrom;
    // Then a tile of the accumulators, transposed, is one vector of each image: see Rows::image. Of the vectors' own elements: with
    // conversions in the rows' code all took a third to three quarters longer (256 channels of 8 x 8, 90 and 98 %).
    const bool tiles_are_pixels = !is_converted(element) && Tiles<V>::stores_images(blocking.tile_rows * blocking.tile_columns) &&
                                  !blocking.lanes_are_pixels && !blocking.pairs && blocking.groups == 1 && !c.out.channels_last &&
                                  c.phases() == 1 && c.out.width == blocking.tile_columns &&
                                  c.out.height % blocking.strip == 0 && blocking.strip % blocking.tile_rows == 0;

    parallel(blocking.parts * chunks, [&](int64_t begin, int64_t end) {
      static thread_local Arena in_arena, out_arena;
      const bool in_place = blocking.in_place;
      const T* in_scratch = in_place ? nullptr : in_arena.take<T>(scratch.in_size());
      T* out_scratch = in_place ? nullptr : out_arena.take<T>(scratch.out_size());
      Placement in_placement, out_placement;
      int64_t placed = -1;
      for (int64_t task = begin; task < end; ++task) {
        const int64_t first_channel = task % chunks * blocking.channel_chunk;
        const int64_t channels = std::min(blocking.channel_chunk, c.out.channels - first_channel);
        const int64_t strip = task / chunks % scratch.strips();
        const int64_t first_image = task / chunks / scratch.strips() * blocking.images();
        if (in_place) {
          in_scratch = static_cast<const T*>(in) + first_image * c.in.image_step();
          out_scratch = static_cast<T*>(out) + first_image * c.out.image_step() + first_channel * c.out.channel_step();
        } else if (strip != placed) {
          in_placement = scratch.in(strip);
          out_placement = scratch.out(strip);
          placed = strip;
        }
        const int64_t image = first_image * c.out.image_step() + first_channel * c.out.channel_step() +
                              strip * blocking.strip * c.out.width;
        const bool direct = tiles_are_pixels && first_image + W <= c.out.count;
        for (int64_t block = 0; block < blocks; ++block) {
          const int64_t first = block * blocking.channel_block;
          if (!in_place)
            load(c.in, element, in, first_image, first, std::min(blocking.channel_block, c.in.channels - first), blocking,
                 in_placement, const_cast<T*>(in_scratch));
          const std::vector<Tile>& tiles = scratch.tiles(strip);
          const bool store_image = direct && block == blocks - 1;
          for (const Tile& tile : tiles)
            for (int64_t phase = 0; phase < phases; ++phase) {
              const int64_t first_row = phase * c.out.channels + first_channel;
              with_tile(blocking, tile, [&]<class L, int R, int Q, int G>() {
                const typename L::template Rows<Listed> rows = {
                    entries,
                    first_row,
                    entries.starts(block, first_row),
                    entries.row_step(),
                    channels,
                    in_scratch + tile.in,
                    scratch.in_row_step(),
                    out_scratch + tile.out + phase * blocking.channel_chunk * scratch.out_row_step(),
                    scratch.out_row_step(),
                    block == 0,
                    bias == nullptr ? nullptr : bias + first_channel,
                    store_image ? static_cast<T*>(out) + image + (&tile - tiles.data()) * W : nullptr,
                    c.out.channel_step(),
                    c.out.image_step(),
                    stream && (in_place ? !relu : store_image),
                    relu};
                if constexpr (G == 0)
                  L::template accumulate_tile<R, Q>(rows);
                else
                  L::template accumulate_clipped<R, Q, G>(rows);
              });
            }
        }
        if (relu && !direct) rectify(blocking, scratch.tiles(strip), out_scratch, scratch.out_row_step(), channels);
        if (!in_place && !direct)
          store(c.out, element, out, first_image, first_channel, channels, blocking, out_placement, out_scratch, stream);
      }
      if (stream) stream_fence();
    });
  }

  template <class Listed>
  static void grad_weight_with(const Correlation& c, const SparseRows& matrix, const Blocking& blocking,
                               const Scratch& scratch, const Listed& entries, Element element, const void* in,
                               const void* grad_out, T* grad_values, const Parallel& parallel) {
    const int64_t blocks = ceil_div(c.in.channels, blocking.channel_block);
    const int64_t chunks = ceil_div(c.out.channels, blocking.channel_chunk);
    const int64_t tasks = scratch.tasks();
    const int64_t nnz = matrix.nnz(), parts = blocking.parts;
    static thread_local Arena parts_arena;
    T* const partial = parts_arena.take<T>(parts * nnz);

    parallel(parts * chunks, [&](int64_t begin, int64_t end) {
      static thread_local Arena in_arena, out_arena;
      const bool in_place = blocking.in_place;
      const T* in_scratch = in_place ? nullptr : in_arena.take<T>(scratch.in_size());
      const T* out_scratch = in_place ? nullptr : out_arena.take<T>(scratch.out_size());
      Placement in_placement, out_placement;
      int64_t placed = -1;
      for (int64_t piece = begin; piece < end; ++piece) {
        const int64_t part = piece / chunks;
        const int64_t first_channel = piece % chunks * blocking.channel_chunk;
        const int64_t channels = std::min(blocking.channel_chunk, c.out.channels - first_channel);
        T* const sums = partial + part * nnz;
        for (int64_t block = 0; block < blocks; ++block)
          for (int64_t row = first_channel; row < first_channel + channels; ++row)
            std::fill(sums + entries.starts(block, row)[0], sums + entries.starts(block, row)[entries.runs()], T(0));
        for (int64_t task = part * tasks / parts; task < (part + 1) * tasks / parts; ++task) {
          const int64_t strip = task % scratch.strips();
          const int64_t first_image = task / scratch.strips() * blocking.images();
          if (in_place) {
            in_scratch = static_cast<const T*>(in) + first_image * c.in.image_step();
            out_scratch =
                static_cast<const T*>(grad_out) + first_image * c.out.image_step() + first_channel * c.out.channel_step();
          } else {
            if (strip != placed) {
              in_placement = scratch.in(strip);
              out_placement = scratch.out(strip);
              placed = strip;
            }
            load(c.out, element, grad_out, first_image, first_channel, channels, blocking, out_placement,
                 const_cast<T*>(out_scratch));
          }
          for (int64_t block = 0; block < blocks; ++block) {
            const int64_t first = block * blocking.channel_block;
            if (!in_place)
              load(c.in, element, in, first_image, first, std::min(blocking.channel_block, c.in.channels - first), blocking,
                   in_placement, const_cast<T*>(in_scratch));
            for (const Tile& tile : scratch.tiles(strip)) {
              with_tile(blocking, tile, [&]<class L, int R, int Q, int G>() {
                const typename L::template Products<Listed> rows = {
                    entries,
                    first_channel,
                    entries.starts(block, first_channel),
                    entries.row_step(),
                    channels,
                    in_scratch + tile.in,
                    scratch.in_row_step(),
                    out_scratch + tile.out,
                    scratch.out_row_step(),
                    sums};
                if constexpr (G == 0)
                  L::template multiply_tile<R, Q>(rows);
                else
                  L::template multiply_clipped<R, Q, G>(rows);
              });
            }
          }
        }
      }
    });
    const bool ragged = scratch.ragged();
    const int64_t piece = ceil_div(kSumsOfATask, parts);
    // Captured by value: a tenth faster than by reference where a single image leaves little else to do.
    parallel(ceil_div(nnz, piece), [=, &c, &matrix, &entries](int64_t begin, int64_t end) {
      for (int64_t e = begin * piece, last = std::min(end * piece, nnz); e < last; ++e) {
        T sum = partial[e];
        for (int64_t part = 1; part < parts; ++part) sum += partial[part * nnz + e];
        const int32_t place = entries.value(e);
        // Positions beyond the output have a gradient of 0, but 0 x Inf is NaN: what is not finite is done again.
        grad_values[place] = ragged && !std::isfinite(sum) ? exact(c, matrix, element, in, grad_out, place) : sum;
      }
    });
  }

  /// Calls `use` with the loops for the tile's vectors, and with what Tiles::with_tile calls it with.
  template <class Use>
  static void with_tile(const Blocking& blocking, const Tile& tile, const Use& use) {
    if constexpr (!std::is_same_v<V, Pair>) {
      if (blocking.pairs)
        return Tiles<Pair>::with_tile(blocking, {tile.in, tile.out, tile.rows, tile.columns / 2},
                                      [&]<int R, int Q, int G>() { use.template operator()<Tiles<Pair>, R, Q, G>(); });
    }
    Tiles<V>::with_tile(blocking, tile, [&]<int R, int Q, int G>() { use.template operator()<Tiles<V>, R, Q, G>(); });
  }

  /// What the rows have left in `out`, complete, of every tile. Neither in their registers nor beside them: that cost rows that
  /// do without it a tenth of their time and more.
  __attribute__((noinline)) static void rectify(const Blocking& blocking, const std::vector<Tile>& tiles, T* out,
                                                int64_t row_step, int64_t count) {
    for (const Tile& tile : tiles)
      with_tile(blocking, tile, [&]<class L, int R, int Q, int>() { L::template rectify<R, Q>(out + tile.out, row_step, count); });
  }

  __attribute__((noinline)) static void load(const Images& images, Element element, const void* tensor, int64_t first_image, int64_t first_channel,
                   int64_t channels, const Blocking& blocking, const Placement& place, T* scratch) {
    with_element<T>(element, [&]<class E>(E) {
      const E* const from = static_cast<const E*>(tensor);
      if (blocking.panels)
        PanelTransfer<V>::load(images, from, first_channel, channels, place, scratch);
      else
        Transfer<V>::load(images, from, first_image, first_channel, channels, blocking, place, scratch);
    });
  }

  __attribute__((noinline)) static void store(const Images& images, Element element, void* tensor, int64_t first_image, int64_t first_channel,
                    int64_t channels, const Blocking& blocking, const Placement& place, const T* scratch, bool stream) {
    with_element<T>(element, [&]<class E>(E) {
      E* const to = static_cast<E*>(tensor);
      if (blocking.panels)
        PanelTransfer<V>::store(images, to, first_channel, channels, place, scratch, stream);
      else
        Transfer<V>::store(images, to, first_image, first_channel, channels, blocking, place, scratch, stream);
    });
  }

  /// The gradient of one value, position by position.
  static T exact(const Correlation& c, const SparseRows& matrix, Element element, const void* in, const void* grad_out,
                 int32_t place) {
    const int64_t row = std::upper_bound(matrix.row_offsets, matrix.row_offsets + matrix.rows + 1, place) -
                        matrix.row_offsets - 1;
    T gradient = 0;
    with_element<T>(element, [&]<class E>(E) {
      gradient = gradient_of_value<T>(c, matrix, row, place, static_cast<const E*>(in), static_cast<const E*>(grad_out));
    });
    return gradient;
  }
};

template <class V, class Pair = V>
const Kernels* kernels_of() {
  static const Kernels kernels = {&Engine<V, Pair>::correlate, &Engine<V, Pair>::grad_weight};
  return &kernels;
}
