// Depthwise convolutions where each channel is a plane, for any vector type.
//
// Include like ../engine.h, after window.h. A vector is that many neighbours of a row of outputs. Four rows of them are computed
// at a time, so that a vector of pixels is loaded once for all rows that see it. grad_input of stride 2 computes two rows and
// even and odd columns from the same vectors of grad_out.
//
// grad_weight has a vector of sums for each tap. They are added up in float64 after `kSummed` vectors of each.
//
// Nothing is copied into a padded plane first: that took 1.6 times the time at 14 x 14, likely because loads that are not aligned
// meet two stores each that have not reached L1 yet.

template <class V, int K, int S>
class DepthwisePlanes {
  static constexpr int W = V::width;
  static constexpr int G = (K + 1) / 2;  // pixels of grad_out along a side, for two gradients of its input, with stride 2

 public:
  /// `weights`: [channel][tap].
  static void correlate(const DepthwisePass& pass, const Parallel& parallel) {
    pass.relu ? correlate_as<true>(pass, parallel) : correlate_as<false>(pass, parallel);
  }

  /// grad_input of stride 2: pass.x is grad_out, pass.y the gradient of the input. `weights`: [channel][tap].
  static void correlate_transposed(const DepthwisePass& pass, const Parallel& parallel) {
    pass.padding[1] % 2 == 0 ? transposed_as<0>(pass, parallel) : transposed_as<1>(pass, parallel);
  }

  /// sums: [channel][tap], of x times grad_out.
  static void grad_weight(const DepthwisePass& pass, const float* grad_out, float* sums, const Parallel& parallel) {
    const Windows<V, K, S> windows(pass.in.width, pass.padding[1], pass.out.width, false);
    const int64_t vectors = pass.out.height * ceil_div(pass.out.width, W);
    // Neighbouring channels of an image, for memory is read page by page.
    const int64_t each = std::clamp<int64_t>(kTask / pass.out.pixels(), 1, kMostChannels);
    parallel(ceil_div(pass.out.channels, each), [&](int64_t begin, int64_t end) {
      const float* const zeros = row_of_zeros(pass.in.width);
      for (int64_t task = begin; task < end; ++task) {
        const int64_t first = task * each, count = std::min(pass.out.channels - first, each);
        Sums of_channels[kMostChannels];
        int64_t summed = 0;
        for (int64_t image = 0; image < pass.out.count; ++image) {
          for (int64_t c = 0; c < count; ++c) {
            const int64_t plane = image * pass.out.channels + first + c;
            add_plane(pass, windows, pass.x + plane * pass.in.pixels(), grad_out + plane * pass.out.pixels(), zeros, of_channels[c].lanes);
          }
          summed += vectors;
          if (summed < kSummed && image + 1 < pass.out.count) continue;
          summed = 0;
          for (int64_t c = 0; c < count; ++c) of_channels[c].add_up();
        }
        for (int64_t c = 0; c < count; ++c)
          for (int tap = 0; tap < K * K; ++tap) sums[(first + c) * K * K + tap] = static_cast<float>(of_channels[c].totals[tap]);
      }
    });
  }

 private:
  static constexpr int kRows = 4;
  static constexpr int64_t kTask = 4096;  // outputs
  static constexpr int kMostChannels = 16;
  static constexpr int64_t kSummed = 512;

  static const float* row_of_zeros(int64_t width) {
    static thread_local Arena arena;
    float* const zeros = arena.take<float>(width);
    std::fill_n(zeros, width, 0.0f);
    return zeros;
  }

  struct Taps {
    LTH_SPARSE_INLINE explicit Taps(const float* weights) {
      for (int tap = 0; tap < K * K; ++tap) of[tap / K][tap % K] = V::broadcast(weights[tap]);
    }
    V of[K][K];
  };

  struct Sums {
    static constexpr int kPadded = (K * K + 3) / 4 * 4;

    Sums() {
      for (V& of_tap : lanes) of_tap = V::zero();
    }
    void add_up() {
      float added[kPadded] = {};
      for (int tap = 0; tap < kPadded; tap += 4) {
        const V four[4] = {lanes[tap], lanes[tap + 1], lanes[tap + 2], lanes[tap + 3]};
        V::add_sums(four, added + tap);
      }
      for (int tap = 0; tap < K * K; ++tap) totals[tap] += added[tap];
      for (V& of_tap : lanes) of_tap = V::zero();
    }

    V lanes[kPadded];
    double totals[K * K] = {};
  };

  /// body(x, channel, y, a row of zeros) for each plane.
  template <class Body>
  static void each_plane(const DepthwisePass& pass, const Parallel& parallel, const Body& body) {
    const int64_t planes = pass.out.count * pass.out.channels, each = std::max<int64_t>(1, kTask / pass.out.pixels());
    parallel(ceil_div(planes, each), [&](int64_t begin, int64_t end) {
      const float* const zeros = row_of_zeros(pass.in.width);
      for (int64_t plane = begin * each; plane < std::min(planes, end * each); ++plane)
        body(pass.x + plane * pass.in.pixels(), plane % pass.out.channels, pass.y + plane * pass.out.pixels(), zeros);
      stream_fence();
    });
  }

  template <bool Relu>
  static void correlate_as(const DepthwisePass& pass, const Parallel& parallel) {
    const Windows<V, K, S> windows(pass.in.width, pass.padding[1], pass.out.width, true);
    const bool streamed = worth_streaming<V>(pass.y, pass.out.width, pass.out.count * pass.out.image_step());
    each_plane(pass, parallel, [&](const float* x, int64_t channel, float* y, const float* zeros) {
      const Taps taps(pass.weights + channel * K * K);
      const V bias = V::broadcast(pass.bias == nullptr ? 0.0f : pass.bias[channel]);
      const int64_t rows = pass.out.height, width = pass.out.width;
      // The last four may have been computed in part: the same bits again.
      for (int64_t next = 0; next < rows; next += kRows) {
        const int64_t row = std::min(next, std::max<int64_t>(0, rows - kRows));
        const int count = static_cast<int>(std::min<int64_t>(kRows, rows));
        const Rows<seen(kRows)> pixels(x, pass.in.height, pass.in.width, row * S - pass.padding[0], zeros);
        for (const auto& window : windows) {
          float* const to = y + row * width + window.at;
          window.inside ? correlate_rows<Relu, true>(pixels, window, taps, bias, to, width, count, streamed)
                        : correlate_rows<Relu, false>(pixels, window, taps, bias, to, width, count, streamed);
        }
      }
    });
  }

  /// Rows of a plane of pixels, from `first` on. Those that do not exist are a row of zeros.
  template <int Count>
  struct Rows {
    Rows(const float* plane, int64_t height, int64_t width, int64_t first, const float* zeros) {
      for (int g = 0; g < Count; ++g) {
        const bool exists = first + g >= 0 && first + g < height;
        at[g] = exists ? plane + (first + g) * width : zeros;
      }
    }
    const float* at[Count];
  };

  static constexpr int seen(int outputs) { return (outputs - 1) * S + K; }

  template <bool Relu, bool Inside>
  LTH_SPARSE_INLINE static void correlate_rows(const Rows<seen(kRows)>& rows, const Window<V, K, S> window, const Taps& taps,
                                               V bias, float* to, int64_t step, int count, bool streamed) {
    V sums[kRows];
    LTH_SPARSE_UNROLL
    for (int r = 0; r < kRows; ++r) sums[r] = bias;
    constexpr int kSeen = seen(kRows);
    LTH_SPARSE_UNROLL
    for (int g = 0; g < kSeen; ++g) {
      V pixels[K];
      window.template load<Inside>(rows.at[g], pixels);
      LTH_SPARSE_UNROLL
      for (int j = 0; j < K; ++j) {
        LTH_SPARSE_UNROLL
        for (int r = 0; r < kRows; ++r)
          if (g - r * S >= 0 && g - r * S < K) sums[r] = sums[r].plus_product(pixels[j], taps.of[g - r * S][j]);
      }
    }
    LTH_SPARSE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      if (r >= count) break;
      const V result = Relu ? sums[r].rectified() : sums[r];
      if (Inside || window.lanes == W) store(to + r * step, result, Whole<V>(), streamed);
      else result.store(to + r * step, window.lanes);
    }
  }

  /// Odd: whether the padding of columns is. An even column then sees the kernel's odd places.
  template <int Odd>
  static void transposed_as(const DepthwisePass& pass, const Parallel& parallel) {
    const int64_t width = pass.out.width, height = pass.out.height;
    const Windows<V, G, 1> windows(pass.in.width, G - 1 - (pass.padding[1] + 1) / 2, ceil_div(width, 2), false);
    const bool streamed = worth_streaming<V>(pass.y, width, pass.out.count * pass.out.image_step());
    each_plane(pass, parallel, [&](const float* x, int64_t channel, float* y, const float* zeros) {
      const Taps taps(pass.weights + channel * K * K);
      // Rows 2 t - padding and the one after it see grad_out up to t.
      int64_t first = pass.padding[0] / 2 - (G - 1);
      for (int64_t row = -(pass.padding[0] % 2); row < height; row += 2, ++first) {
        const Rows<G> pixels(x, pass.in.height, pass.in.width, first, zeros);
        for (const auto& window : windows) {
          V sums[2][2];
          window.inside ? transposed_rows<Odd, true>(pixels, window, taps, sums)
                        : transposed_rows<Odd, false>(pixels, window, taps, sums);
          for (int a = 0; a < 2; ++a)
            if (row + a >= 0 && row + a < height)
              store_pairs(sums[a][0], sums[a][1], y + (row + a) * width + 2 * window.at, width - 2 * window.at, streamed);
        }
      }
    });
  }

  template <int Odd, bool Inside>
  LTH_SPARSE_INLINE static void transposed_rows(const Rows<G>& rows, const Window<V, G, 1> window, const Taps& taps, V (&sums)[2][2]) {
    for (auto& of_row : sums)
      for (V& of_columns : of_row) of_columns = V::zero();
    LTH_SPARSE_UNROLL
    for (int g = 0; g < G; ++g) {
      V pixels[G];
      window.template load<Inside>(rows.at[g], pixels);
      LTH_SPARSE_UNROLL
      for (int h = 0; h < G; ++h) {
        LTH_SPARSE_UNROLL
        for (int a = 0; a < 2; ++a) {
          LTH_SPARSE_UNROLL
          for (int b = 0; b < 2; ++b) {
            const int i = a + 2 * (G - 1 - g), j = b != Odd ? 1 + 2 * (G - 1 - Odd - h) : 2 * (G - 1 - h);
            if (i < K && j >= 0 && j < K) sums[a][b] = sums[a][b].plus_product(pixels[h], taps.of[i][j]);
          }
        }
      }
    }
  }

  /// The first `count` of even and odd columns, in turn.
  LTH_SPARSE_INLINE static void store_pairs(V evens, V odds, float* to, int64_t count, bool streamed) {
    V first, second;
    V::interleave(evens, odds, first, second);
    if (count >= W) store(to, first, Whole<V>(), streamed);
    else first.store(to, static_cast<int>(count));
    if (count >= 2 * W) store(to + W, second, Whole<V>(), streamed);
    else if (count > W) second.store(to + W, static_cast<int>(count - W));
  }

  static void add_plane(const DepthwisePass& pass, const Windows<V, K, S>& windows, const float* x, const float* gradients,
                        const float* zeros, V* sums) {
    const int64_t rows = pass.out.height;
    int64_t row = 0;
    const auto add = [&](auto count) LTH_SPARSE_INLINE_LAMBDA {
      const Rows<seen(count)> pixels(x, pass.in.height, pass.in.width, row * S - pass.padding[0], zeros);
      add_rows<count>(pixels, windows, gradients + row * pass.out.width, pass.out.width, sums);
      row += count;
    };
    while (row + kRows <= rows) add(std::integral_constant<int, kRows>());
    if (row + 2 <= rows) add(std::integral_constant<int, 2>());
    if (row < rows) add(std::integral_constant<int, 1>());
  }

  template <int Count>
  static void add_rows(const Rows<seen(Count)>& pixels, const Windows<V, K, S>& windows, const float* gradients, int64_t step,
                       V* to) {
    V sums[K][K];
    LTH_SPARSE_UNROLL
    for (int tap = 0; tap < K * K; ++tap) sums[tap / K][tap % K] = to[tap];
    for (const auto& window : windows)
      window.inside ? add_vectors<Count, true>(pixels, window, gradients + window.at, step, sums)
                    : add_vectors<Count, false>(pixels, window, gradients + window.at, step, sums);
    LTH_SPARSE_UNROLL
    for (int tap = 0; tap < K * K; ++tap) to[tap] = sums[tap / K][tap % K];
  }

  /// What is no output is not multiplied as 0, for its pixel may be infinite: the window leaves it out.
  template <int Count, bool Inside>
  LTH_SPARSE_INLINE static void add_vectors(const Rows<seen(Count)>& rows, const Window<V, K, S> window, const float* gradients,
                                            int64_t step, V (&sums)[K][K]) {
    V of_rows[Count];
    LTH_SPARSE_UNROLL
    for (int r = 0; r < Count; ++r)
      of_rows[r] = Inside ? V::load(gradients + r * step) : V::load(gradients + r * step, window.lanes);
    constexpr int kSeen = seen(Count);
    LTH_SPARSE_UNROLL
    for (int g = 0; g < kSeen; ++g) {
      V pixels[K];
      window.template load<Inside>(rows.at[g], pixels);
      LTH_SPARSE_UNROLL
      for (int j = 0; j < K; ++j) {
        LTH_SPARSE_UNROLL
        for (int r = 0; r < Count; ++r)
          if (g - r * S >= 0 && g - r * S < K) sums[g - r * S][j] = sums[g - r * S][j].plus_product(pixels[j], of_rows[r]);
      }
    }
  }
};
