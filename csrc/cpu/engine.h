// The kernels, for any vector type: forward, grad_input (both are correlations) and grad_weight.
//
// Include inside the target pragma of an instruction set, after every other header, so that nothing outside it is
// compiled for that set. See scratch.h for the layouts.
//
// What bounds them. A live weight costs, for each vector of output, one fused multiply-add whose operand comes from L1:
// both happen once a cycle on Zen 4 (an Intel core with two FMA ports does two of each). What is paid beside it, per
// vector of output: moving it in and out of registers once for each block of input channels, and converting it between
// tensor and scratch once. Blocks of input channels are as large as the caches allow, so that both stay small.
//
// Measured on two Zen 4 cores (bench/results, the 3x3 layers, batch 128), in GFLOP/s of live products: 148 to 155 at 50 %
// sparsity, 90 to 122 at 90 %, 34 to 85 at 98 %, where dense PyTorch sustains 215 to 255 of all products. So the bound is
// met to two thirds at 50 % and to half at 90 %; beyond, accumulators and conversions are the larger part, and on 64
// channels of 32 x 32 memory is.

template <class V>
class Engine {
  using T = typename V::Element;
  static constexpr int W = V::width;

 public:
  static void correlate(const Correlation& correlation, const SparseRows& matrix, const Blocking& blocking,
                        const T* in, const T* values, const T* bias, T* out, const Parallel& parallel) {
    const Scratch scratch(correlation, blocking);
    const std::vector<int32_t> offsets = scratch.column_offsets();
    if (blocking.unlisted) {
      const Unlisted<T> entries(matrix, offsets, values, parallel);
      return correlate_with(correlation, matrix, blocking, scratch, entries, in, bias, out, parallel);
    }
    const Entries<T> entries(
        matrix, offsets, blocking.channel_block * correlation.taps(), correlation.taps(), blocking.by_tap,
        [&](int32_t e) {
          if (matrix.order == nullptr) return values[e];
          const int32_t place = matrix.order[e];
          if (place < 0 || place >= matrix.nnz())
            throw std::runtime_error("order: expected places among the values");
          return values[place];
        },
        parallel);
    correlate_with(correlation, matrix, blocking, scratch, entries, in, bias, out, parallel);
  }

  static void grad_weight(const Correlation& correlation, const SparseRows& matrix, const Blocking& blocking,
                          const T* in, const T* grad_out, T* grad_values, const Parallel& parallel) {
    const Scratch scratch(correlation, blocking);
    const std::vector<int32_t> offsets = scratch.column_offsets();
    if (blocking.unlisted) {
      const Unlisted<int32_t> entries(matrix, offsets, nullptr, parallel);
      return grad_weight_with(correlation, matrix, blocking, scratch, entries, in, grad_out, grad_values, parallel);
    }
    const Entries<int32_t> entries(
        matrix, offsets, blocking.channel_block * correlation.taps(), correlation.taps(), blocking.by_tap,
        [&](int32_t e) { return e; }, parallel);
    grad_weight_with(correlation, matrix, blocking, scratch, entries, in, grad_out, grad_values, parallel);
  }

 private:
  // Of grad_weight, as many as fit a cache: the more parts, the more threads, but each part sums every value.
  static constexpr int64_t kPartialSums = int64_t{1} << 20;
  static constexpr int64_t kStreamFrom = int64_t{16} << 20;

  static int64_t taps_of(const Correlation& c, const Blocking& blocking) { return blocking.by_tap ? c.taps() : 1; }

  template <class Listed>
  static void correlate_with(const Correlation& c, const SparseRows& matrix, const Blocking& blocking,
                             const Scratch& scratch, const Listed& entries, const T* in, const T* bias, T* out,
                             const Parallel& parallel) {
    const int64_t taps = taps_of(c, blocking);
    const int64_t blocks = ceil_div(c.in.channels, blocking.channel_block);
    const int64_t chunks = ceil_div(c.out.channels, blocking.channel_chunk);
    const int64_t batches = ceil_div(c.in.count, blocking.images());
    const bool stream = c.out.count * c.out.image_step() * static_cast<int64_t>(sizeof(T)) >= kStreamFrom;

    parallel(batches * scratch.strips() * chunks, [&](int64_t begin, int64_t end) {
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
          in_scratch = in + first_image * c.in.image_step();
          out_scratch = out + first_image * c.out.image_step() + first_channel * c.out.channel_step();
        } else if (strip != placed) {
          in_placement = scratch.in(strip);
          out_placement = scratch.out(strip);
          placed = strip;
        }
        for (int64_t block = 0; block < blocks; ++block) {
          const int64_t first = block * blocking.channel_block;
          if (!in_place)
            load(c.in, in, first_image, first, std::min(blocking.channel_block, c.in.channels - first), blocking,
                 in_placement, const_cast<T*>(in_scratch));
          for (const Tile& tile : scratch.tiles())
            for (int64_t phase = 0; phase < c.phases(); ++phase) {
              const int64_t first_row = phase * c.out.channels + first_channel;
              const Rows<Listed> rows = {entries,
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
                                    taps,
                                    tile.clips.data()};
              accumulate(blocking.groups, blocking.tile_rows, tile.columns, rows);
            }
        }
        if (!in_place)
          store(c.out, out, first_image, first_channel, channels, blocking, out_placement, out_scratch, stream);
      }
    });
  }

  template <class Listed>
  static void grad_weight_with(const Correlation& c, const SparseRows& matrix, const Blocking& blocking,
                               const Scratch& scratch, const Listed& entries, const T* in, const T* grad_out,
                               T* grad_values, const Parallel& parallel) {
    const int64_t taps = taps_of(c, blocking);
    const int64_t blocks = ceil_div(c.in.channels, blocking.channel_block);
    const int64_t chunks = ceil_div(c.out.channels, blocking.channel_chunk);
    const int64_t tasks = ceil_div(c.in.count, blocking.images()) * scratch.strips();
    // The sums are grouped by the shapes alone, never by the number of threads: the same bits with any.
    const int64_t nnz = matrix.nnz();
    const int64_t parts = std::min(tasks, std::clamp<int64_t>(kPartialSums / std::max<int64_t>(nnz, 1), 4, 64));
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
            std::fill(sums + entries.starts(block, row)[0], sums + entries.starts(block, row)[taps], T(0));
        for (int64_t task = part * tasks / parts; task < (part + 1) * tasks / parts; ++task) {
          const int64_t strip = task % scratch.strips();
          const int64_t first_image = task / scratch.strips() * blocking.images();
          if (in_place) {
            in_scratch = in + first_image * c.in.image_step();
            out_scratch = grad_out + first_image * c.out.image_step() + first_channel * c.out.channel_step();
          } else {
            if (strip != placed) {
              in_placement = scratch.in(strip);
              out_placement = scratch.out(strip);
              placed = strip;
            }
            load(c.out, grad_out, first_image, first_channel, channels, blocking, out_placement,
                 const_cast<T*>(out_scratch));
          }
          for (int64_t block = 0; block < blocks; ++block) {
            const int64_t first = block * blocking.channel_block;
            if (!in_place)
              load(c.in, in, first_image, first, std::min(blocking.channel_block, c.in.channels - first), blocking,
                   in_placement, const_cast<T*>(in_scratch));
            for (const Tile& tile : scratch.tiles()) {
              const Products<Listed> rows = {entries,
                                             first_channel,
                                             entries.starts(block, first_channel),
                                             entries.row_step(),
                                        channels,
                                        in_scratch + tile.in,
                                        scratch.in_row_step(),
                                        out_scratch + tile.out,
                                        scratch.out_row_step(),
                                        sums,
                                        taps,
                                        tile.clips.data()};
              multiply(blocking.groups, blocking.tile_rows, tile.columns, rows);
            }
          }
        }
      }
    });
    parallel(nnz, [&](int64_t begin, int64_t end) {
      for (int64_t e = begin; e < end; ++e) {
        T sum = partial[e];
        for (int64_t part = 1; part < parts; ++part) sum += partial[part * nnz + e];
        const int32_t place = entries.value(e);
        // Positions beyond the output have a gradient of 0, but 0 x Inf is NaN: what is not finite is done again.
        grad_values[place] = scratch.ragged() && !std::isfinite(sum) ? exact(c, matrix, in, grad_out, place) : sum;
      }
    });
  }

  static int64_t ceil_div(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

  /// The gradient of one value, position by position.
  static T exact(const Correlation& c, const SparseRows& matrix, const T* in, const T* grad_out, int32_t place) {
    const int64_t row = std::upper_bound(matrix.row_offsets, matrix.row_offsets + matrix.rows + 1, place) -
                        matrix.row_offsets - 1;
    const int64_t column = row / matrix.rows_per_group * matrix.columns_per_group + matrix.columns[place];
    const auto& shift = c.shifts[column % c.taps()];
    const T* const x = in + column / c.taps() * c.in.channel_step();
    const T* const gradient = grad_out + row * c.out.channel_step();
    T sum = 0;
    for (int64_t n = 0; n < c.in.count; ++n)
      for (int64_t j = 0; j < c.out.height; ++j)
        for (int64_t i = 0; i < c.out.width; ++i) {
          const int64_t y = j * c.in_stride[0] + shift[0], z = i * c.in_stride[1] + shift[1];
          if (y >= 0 && y < c.in.height && z >= 0 && z < c.in.width)
            sum += x[n * c.in.image_step() + (y * c.in.width + z) * c.in.pixel_step()] *
                   gradient[n * c.out.image_step() + (j * c.out.width + i) * c.out.pixel_step()];
        }
    return sum;
  }

  // ---- tensor <-> scratch

  static void load(const Images& images, const T* tensor, int64_t first_image, int64_t first_channel,
                   int64_t channels, const Blocking& blocking, const Placement& place, T* scratch) {
    const T* from = tensor + first_image * images.image_step() + first_channel * images.channel_step();
    const int64_t count = std::min(blocking.images(), images.count - first_image);
    if (blocking.lanes_are_pixels)
      load_pixels(images, from, channels, place, scratch);
    else if (images.channels_last)
      load_channels_last(images, from, count, channels, blocking.groups, place, scratch);
    else
      load_contiguous(images, from, count, channels, blocking.groups, place, scratch);
  }

  static void store(const Images& images, T* tensor, int64_t first_image, int64_t first_channel, int64_t channels,
                    const Blocking& blocking, const Placement& place, const T* scratch, bool stream) {
    T* to = tensor + first_image * images.image_step() + first_channel * images.channel_step();
    const int64_t count = std::min(blocking.images(), images.count - first_image);
    if (blocking.lanes_are_pixels)
      store_pixels(images, to, channels, place, scratch);
    else if (images.channels_last)
      store_channels_last(images, to, count, channels, blocking.groups, place, scratch, stream);
    else
      store_contiguous(images, to, count, channels, blocking.groups, place, scratch, stream);
  }

  static void zero_padding(const Placement& place, int64_t groups, T* plane) {
    for (const int32_t at : place.padding)
      for (int64_t g = 0; g < groups; ++g) V::zero().store(plane + at + g * W);
  }

  /// W pixels of W images at a time.
  static void load_contiguous(const Images& images, const T* from, int64_t count, int64_t channels, int64_t groups,
                              const Placement& place, T* scratch) {
    const int64_t pixels = static_cast<int64_t>(place.position.size());
    for (int64_t channel = 0; channel < channels; ++channel) {
      T* const plane = scratch + channel * place.channel_step;
      zero_padding(place, groups, plane);
      for (int64_t g = 0; g < groups; ++g) {
        const T* const source = from + g * W * images.image_step() + channel * images.pixels() + place.first_pixel;
        const int here = static_cast<int>(std::clamp<int64_t>(count - g * W, 0, W));
        for (int64_t p = 0; p < pixels; p += W) {
          V rows[W];
          const int run = static_cast<int>(std::min<int64_t>(W, pixels - p));
          load_rows(source + p, images.image_step(), here, run, rows);
          V::transpose(rows);
          for (int k = 0; k < run; ++k)
            if (place.position[p + k] >= 0) rows[k].store(plane + place.position[p + k] + g * W);
        }
      }
    }
  }

  /// W channels of W images at a time.
  static void load_channels_last(const Images& images, const T* from, int64_t count, int64_t channels,
                                 int64_t groups, const Placement& place, T* scratch) {
    const int64_t pixels = static_cast<int64_t>(place.position.size());
    for (int64_t channel = 0; channel < channels; ++channel)
      zero_padding(place, groups, scratch + channel * place.channel_step);
    for (int64_t g = 0; g < groups; ++g) {
      const int here = static_cast<int>(std::clamp<int64_t>(count - g * W, 0, W));
      for (int64_t p = 0; p < pixels; ++p) {
        if (place.position[p] < 0) continue;
        const T* const source =
            from + g * W * images.image_step() + (place.first_pixel + p) * images.channels;
        for (int64_t channel = 0; channel < channels; channel += W) {
          V rows[W];
          const int run = static_cast<int>(std::min<int64_t>(W, channels - channel));
          load_rows(source + channel, images.image_step(), here, run, rows);
          V::transpose(rows);
          T* const to = scratch + channel * place.channel_step + place.position[p] + g * W;
          for (int k = 0; k < run; ++k) rows[k].store(to + k * place.channel_step);
        }
      }
    }
  }

  /// `run` elements of each of `count` images; zero where there are fewer than W of either.
  static void load_rows(const T* from, int64_t image_step, int count, int run, V (&rows)[W]) {
    if (count == W && run == W) {
      for (int k = 0; k < W; ++k) rows[k] = V::load(from + k * image_step);
    } else {
      for (int k = 0; k < W; ++k) rows[k] = k < count ? V::load(from + k * image_step, run) : V::zero();
    }
  }

  static void store_contiguous(const Images& images, T* to, int64_t count, int64_t channels, int64_t groups,
                               const Placement& place, const T* scratch, bool stream) {
    const int64_t pixels = static_cast<int64_t>(place.position.size());
    for (int64_t channel = 0; channel < channels; ++channel) {
      const T* const plane = scratch + channel * place.channel_step;
      for (int64_t g = 0; g < groups; ++g) {
        T* const target = to + g * W * images.image_step() + channel * images.pixels() + place.first_pixel;
        const int here = static_cast<int>(std::clamp<int64_t>(count - g * W, 0, W));
        for (int64_t p = 0; p < pixels; p += W) {
          V rows[W];
          const int run = static_cast<int>(std::min<int64_t>(W, pixels - p));
          for (int k = 0; k < run; ++k) rows[k] = V::load(plane + place.position[p + k] + g * W);
          for (int k = run; k < W; ++k) rows[k] = V::zero();
          V::transpose(rows);
          store_rows(rows, target + p, images.image_step(), here, run, stream);
        }
      }
    }
  }

  static void store_channels_last(const Images& images, T* to, int64_t count, int64_t channels, int64_t groups,
                                  const Placement& place, const T* scratch, bool stream) {
    const int64_t pixels = static_cast<int64_t>(place.position.size());
    for (int64_t g = 0; g < groups; ++g) {
      const int here = static_cast<int>(std::clamp<int64_t>(count - g * W, 0, W));
      for (int64_t p = 0; p < pixels; ++p) {
        T* const target = to + g * W * images.image_step() + (place.first_pixel + p) * images.channels;
        for (int64_t channel = 0; channel < channels; channel += W) {
          V rows[W];
          const int run = static_cast<int>(std::min<int64_t>(W, channels - channel));
          const T* const source = scratch + channel * place.channel_step + place.position[p] + g * W;
          for (int k = 0; k < run; ++k) rows[k] = V::load(source + k * place.channel_step);
          for (int k = run; k < W; ++k) rows[k] = V::zero();
          V::transpose(rows);
          store_rows(rows, target + channel, images.image_step(), here, run, stream);
        }
      }
    }
  }

  static void store_rows(const V (&rows)[W], T* to, int64_t image_step, int count, int run, bool stream) {
    constexpr uintptr_t line = W * sizeof(T);
    if (run == W && stream && reinterpret_cast<uintptr_t>(to) % line == 0 && image_step * sizeof(T) % line == 0) {
      for (int k = 0; k < count; ++k) rows[k].stream(to + k * image_step);
    } else if (run == W) {
      for (int k = 0; k < count; ++k) rows[k].store(to + k * image_step);
    } else {
      for (int k = 0; k < count; ++k) rows[k].store(to + k * image_step, run);
    }
  }

  static void load_pixels(const Images& images, const T* from, int64_t channels, const Placement& place,
                          T* scratch) {
    for (int64_t channel = 0; channel < channels; ++channel) {
      const T* const source = from + channel * images.pixels();
      T* const plane = scratch + channel * place.channel_step;
      for (const Run& gap : place.gaps) std::fill_n(plane + gap.scratch, gap.count, T(0));
      for (const Run& run : place.runs) {
        const T* const s = source + run.tensor;
        T* const d = plane + run.scratch;
        if (run.tensor_step == 1) {
          int64_t k = 0;
          for (; k + W <= run.count; k += W) V::load(s + k).store(d + k);
          if (k < run.count) V::load(s + k, static_cast<int>(run.count - k)).store(d + k, static_cast<int>(run.count - k));
        } else {
          for (int64_t k = 0; k < run.count; ++k) d[k] = s[k * run.tensor_step];
        }
      }
    }
  }

  static void store_pixels(const Images& images, T* to, int64_t channels, const Placement& place,
                           const T* scratch) {
    for (int64_t channel = 0; channel < channels; ++channel) {
      T* const target = to + channel * images.pixels();
      const T* const plane = scratch + channel * place.channel_step;
      for (const Run& run : place.runs) {
        T* const d = target + run.tensor;
        const T* const s = plane + run.scratch;
        if (run.tensor_step == 1) {
          int64_t k = 0;
          for (; k + W <= run.count; k += W) V::load(s + k).store(d + k);
          if (k < run.count) V::load(s + k, static_cast<int>(run.count - k)).store(d + k, static_cast<int>(run.count - k));
        } else {
          for (int64_t k = 0; k < run.count; ++k) d[k * run.tensor_step] = s[k];
        }
      }
    }
  }

  // ---- the kernels proper

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
    int64_t taps;          // entries of a row are sorted by this many taps: 1 if not at all
    const Clip* clips;     // of each tap
  };

  template <int R, int Q, class Listed>
  static bool begin(const Rows<Listed>& rows, int64_t row, bool empty, V (&sum)[R][Q]) {
    if (empty && !rows.first) return false;
    if (rows.first) {
      const V bias = V::broadcast(rows.bias == nullptr ? T(0) : rows.bias[row]);
      for (int r = 0; r < R; ++r)
        for (int q = 0; q < Q; ++q) sum[r][q] = bias;
    } else {
      const T* const out = rows.out + row * rows.out_row_step;
      for (int r = 0; r < R; ++r)
        for (int q = 0; q < Q; ++q) sum[r][q] = V::load(out + (r * Q + q) * W);
    }
    return true;
  }

  template <int R, int Q, class Listed>
  static void finish(const Rows<Listed>& rows, int64_t row, const V (&sum)[R][Q]) {
    T* const out = rows.out + row * rows.out_row_step;
    for (int r = 0; r < R; ++r)
      for (int q = 0; q < Q; ++q) sum[r][q].store(out + (r * Q + q) * W);
  }

  /// Adds the products of entries to the positions [R0, R1) x [Q0, Q1) of a tile.
  template <int R, int Q, int R0, int R1, int Q0, int Q1, class Listed>
  static void add(const Rows<Listed>& rows, const Listed& entries, int64_t e, int64_t last, V (&sum)[R][Q]) {
    if constexpr (R == 1 && Q1 - Q0 < 4) {
      // Too few sums to hide their latency: four entries at a time, each into sums of its own.
      V more[3][Q];
      for (auto& sums : more)
        for (int q = Q0; q < Q1; ++q) sums[q] = V::zero();
      for (; e + 4 <= last; e += 4)
        for (int k = 0; k < 4; ++k) {
          const V weight = V::broadcast(entries.value(e + k));
          for (int q = Q0; q < Q1; ++q) {
            V& s = k == 0 ? sum[0][q] : more[k - 1][q];
            s = s.plus_product(weight, V::load(rows.in + entries.offset(e + k) + q * W));
          }
        }
      for (int q = Q0; q < Q1; ++q) sum[0][q] = (sum[0][q] + more[0][q]) + (more[1][q] + more[2][q]);
    }
    for (; e != last; ++e) {
      const V weight = V::broadcast(entries.value(e));
      const T* const in = rows.in + entries.offset(e);
      for (int r = R0; r < R1; ++r)
        for (int q = Q0; q < Q1; ++q)
          sum[r][q] = sum[r][q].plus_product(weight, V::load(in + r * rows.in_row_step + q * W));
    }
  }

  /// As accumulate_tile, but without the products that are zero because their operands lie in the padding. A position is
  /// G vectors wide.
  template <int R, int Q, int G, class Listed>
  static void accumulate_clipped(const Rows<Listed>& rows) {
    for (int64_t row = 0; row < rows.count; ++row) {
      const int32_t* const starts = rows.starts + row * rows.row_step;
      V sum[R][Q];
      if (!begin(rows, row, starts[0] == starts[rows.taps], sum)) continue;
      for (int64_t tap = 0; tap < rows.taps; ++tap) {
        const int64_t e = starts[tap], last = starts[tap + 1];
        switch (static_cast<int>(rows.clips[tap])) {
          case 0: add<R, Q, 0, R, 0, Q>(rows, rows.entries, e, last, sum); break;
          case 1: add<R, Q, 0, R, G, Q>(rows, rows.entries, e, last, sum); break;
          case 2: add<R, Q, 0, R, 0, Q - G>(rows, rows.entries, e, last, sum); break;
          case 3: add<R, Q, 1, R, 0, Q>(rows, rows.entries, e, last, sum); break;
          case 4: add<R, Q, 1, R, G, Q>(rows, rows.entries, e, last, sum); break;
          case 5: add<R, Q, 1, R, 0, Q - G>(rows, rows.entries, e, last, sum); break;
          case 6: add<R, Q, 0, R - 1, 0, Q>(rows, rows.entries, e, last, sum); break;
          case 7: add<R, Q, 0, R - 1, G, Q>(rows, rows.entries, e, last, sum); break;
          case 8: add<R, Q, 0, R - 1, 0, Q - G>(rows, rows.entries, e, last, sum); break;
          default: break;  // everything lies in the padding
        }
      }
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

  template <class Listed>
  static void accumulate(int64_t groups, int tile_rows, int tile_columns, const Rows<Listed>& rows) {
    if (rows.taps > 1) {
      if constexpr (V::registers >= 32)
        return groups == 1 ? accumulate_clipped<4, 4, 1>(rows) : accumulate_clipped<2, 8, 4>(rows);
      else
        return groups == 1 ? accumulate_clipped<2, 4, 1>(rows) : accumulate_clipped<2, 4, 2>(rows);
    }
    if constexpr (V::registers >= 32) {
      if (tile_rows == 4 && tile_columns == 4) return accumulate_tile<4, 4>(rows);
      if (tile_rows == 2 && tile_columns == 8) return accumulate_tile<2, 8>(rows);
      if (tile_columns == 16) return accumulate_tile<1, 16>(rows);
    } else {
      if (tile_rows == 2 && tile_columns == 4) return accumulate_tile<2, 4>(rows);
    }
    switch (tile_columns) {
      case 8: return accumulate_tile<1, 8>(rows);
      case 4: return accumulate_tile<1, 4>(rows);
      case 2: return accumulate_tile<1, 2>(rows);
      default: return accumulate_tile<1, 1>(rows);
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
    int64_t taps;
    const Clip* clips;
  };

  template <int R, int Q, class Listed>
  static void load_gradient(const Products<Listed>& rows, int64_t row, V (&gradient)[R][Q]) {
    const T* const out = rows.out + row * rows.out_row_step;
    for (int r = 0; r < R; ++r)
      for (int q = 0; q < Q; ++q) gradient[r][q] = V::load(out + (r * Q + q) * W);
  }

  /// The product over the positions [R0, R1) x [Q0, Q1) of a tile, by lane. Four sums hide their latency.
  template <int R, int Q, int R0, int R1, int Q0, int Q1>
  LTH_SPARSE_INLINE static V dot(const V (&gradient)[R][Q], const T* in, int64_t row_step) {
    V sum[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
    for (int r = R0; r < R1; ++r)
      for (int q = Q0; q < Q1; ++q) {
        const int k = ((r - R0) * (Q1 - Q0) + q - Q0) % 4;
        sum[k] = sum[k].plus_product(gradient[r][q], V::load(in + r * row_step + q * W));
      }
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
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
      const auto product = [&](int64_t k) __attribute__((always_inline)) {
        return dot<R, Q, 0, R, 0, Q>(gradient, rows.in + entries.offset(k), rows.in_row_step);
      };
      for (; e + 4 <= last; e += 4) {
        const V sum[4] = {product(e), product(e + 1), product(e + 2), product(e + 3)};
        V::add_sums(sum, rows.sums + e);
      }
      if (const int64_t left = last - e; left > 0) {
        const V sum[4] = {product(e), left > 1 ? product(e + 1) : V::zero(),
                          left > 2 ? product(e + 2) : V::zero(), V::zero()};
        add_fewer_sums(sum, rows.sums + e, left);
      }
    }
  }

  /// As multiply_tile, but without the products that are zero because their operands lie in the padding.
  template <int R, int Q, int G, class Listed>
  static void multiply_clipped(const Products<Listed>& rows) {
    for (int64_t row = 0; row < rows.count; ++row) {
      const int32_t* const starts = rows.starts + row * rows.row_step;
      if (starts[0] == starts[rows.taps]) continue;
      V gradient[R][Q];
      load_gradient(rows, row, gradient);
      V sum[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
      int filled = 0;
      T* to = rows.sums + starts[0];
      for (int64_t tap = 0; tap < rows.taps; ++tap) {
        const auto each = [&](const auto& product) {
          for (int64_t e = starts[tap]; e < starts[tap + 1]; ++e) {
            sum[filled] = product(rows.in + rows.entries.offset(e));
            if (++filled == 4) {
              V::add_sums(sum, to);
              to += 4;
              filled = 0;
            }
          }
        };
        const int64_t step = rows.in_row_step;
        switch (static_cast<int>(rows.clips[tap])) {
          case 0: each([&](const T* in) __attribute__((always_inline)) { return dot<R, Q, 0, R, 0, Q>(gradient, in, step); }); break;
          case 1: each([&](const T* in) __attribute__((always_inline)) { return dot<R, Q, 0, R, G, Q>(gradient, in, step); }); break;
          case 2: each([&](const T* in) __attribute__((always_inline)) { return dot<R, Q, 0, R, 0, Q - G>(gradient, in, step); }); break;
          case 3: each([&](const T* in) __attribute__((always_inline)) { return dot<R, Q, 1, R, 0, Q>(gradient, in, step); }); break;
          case 4: each([&](const T* in) __attribute__((always_inline)) { return dot<R, Q, 1, R, G, Q>(gradient, in, step); }); break;
          case 5: each([&](const T* in) __attribute__((always_inline)) { return dot<R, Q, 1, R, 0, Q - G>(gradient, in, step); }); break;
          case 6: each([&](const T* in) __attribute__((always_inline)) { return dot<R, Q, 0, R - 1, 0, Q>(gradient, in, step); }); break;
          case 7: each([&](const T* in) __attribute__((always_inline)) { return dot<R, Q, 0, R - 1, G, Q>(gradient, in, step); }); break;
          case 8: each([&](const T* in) __attribute__((always_inline)) { return dot<R, Q, 0, R - 1, 0, Q - G>(gradient, in, step); }); break;
          default: each([&](const T*) __attribute__((always_inline)) { return V::zero(); });  // everything lies in the padding
        }
      }
      if (filled > 0) add_fewer_sums(sum, to, filled);
    }
  }

  template <class Listed>
  static void multiply(int64_t groups, int tile_rows, int tile_columns, const Products<Listed>& rows) {
    if (rows.taps > 1) {
      if constexpr (V::registers >= 32)
        return groups == 1 ? multiply_clipped<4, 4, 1>(rows) : multiply_clipped<2, 8, 4>(rows);
      else
        return groups == 1 ? multiply_clipped<2, 4, 1>(rows) : multiply_clipped<2, 4, 2>(rows);
    }
    if constexpr (V::registers >= 32) {
      if (tile_rows == 4 && tile_columns == 4) return multiply_tile<4, 4>(rows);
      if (tile_rows == 2 && tile_columns == 8) return multiply_tile<2, 8>(rows);
      if (tile_columns == 16) return multiply_tile<1, 16>(rows);
    } else {
      if (tile_rows == 2 && tile_columns == 4) return multiply_tile<2, 4>(rows);
    }
    switch (tile_columns) {
      case 8: return multiply_tile<1, 8>(rows);
      case 4: return multiply_tile<1, 4>(rows);
      case 2: return multiply_tile<1, 2>(rows);
      default: return multiply_tile<1, 1>(rows);
    }
  }
};

template <class V>
const Kernels<typename V::Element>* kernels_of() {
  static const Kernels<typename V::Element> kernels = {&Engine<V>::correlate, &Engine<V>::grad_weight};
  return &kernels;
}
