// Depthwise convolutions where each channel is a plane, for any vector type.
//
// Include like ../engine.h, after padded_plane.h. A band of a plane is copied into L1 with its padding around it; then no pixel
// is a special case, and a vector is that many neighbours of a row of outputs. Four rows of them are computed at a time, for
// which a vector of the copy is loaded once. With stride 2 the copy has even and odd columns apart; grad_input then computes
// both columns and both rows of a pair from the same vectors of grad_out.
//
// grad_weight has a vector of sums for each tap. They are added up in float64 after `kSummed` vectors of each.

template <class V, int K, int S>
class DepthwisePlanes {
  static constexpr int W = V::width;
  static constexpr int G = (K + 1) / 2;  // pixels of grad_out along a side, for two gradients of its input, with stride 2

 public:
  /// `weights`: [channel][tap].
  static void correlate(const DepthwisePass& pass, const Parallel& parallel) {
    const PaddedPlane<V, S> shape(pass.in.width, pass.padding[1], pass.out.width, K);
    const int64_t band = std::max<int64_t>(kRows, (kBandBytes / shape.row_bytes() - K) / S / kRows * kRows);
    const bool streamed = worth_streaming<V>(pass.y, pass.out.width, pass.out.count * pass.out.image_step());
    each_plane(pass, shape, (std::min(band, pass.out.height) - 1) * S + K, parallel, [&](int64_t plane, int64_t channel, float* copy) {
      const float* const x = pass.x + plane * pass.in.pixels();
      float* const y = pass.y + plane * pass.out.pixels();
      for (int64_t row = 0; row < pass.out.height; row += band) {
        const int64_t rows = std::min(band, pass.out.height - row);
        shape.copy_rows(x, pass.in.height, row * S - pass.padding[0], (rows - 1) * S + K, copy);
        pass.relu ? correlate_band<true>(pass, shape, copy, channel, rows, y + row * pass.out.width, streamed)
                  : correlate_band<false>(pass, shape, copy, channel, rows, y + row * pass.out.width, streamed);
      }
    });
  }

  /// grad_input of stride 2: pass.x is grad_out, pass.y the gradient of the input. `weights`: [channel][tap].
  static void correlate_transposed(const DepthwisePass& pass, const Parallel& parallel) {
    const int64_t padding = pass.padding[1];
    const PaddedPlane<V, 1> shape(pass.in.width, G - 1 - (padding + 1) / 2, ceil_div(pass.out.width, 2), G);
    // Rows 2 t - padding and the one after it see grad_out up to t.
    const int64_t first = -(pass.padding[0] % 2), pairs = ceil_div(pass.out.height - first, 2);
    const int64_t band = std::max<int64_t>(1, kBandBytes / shape.row_bytes() - G);
    const bool streamed = worth_streaming<V>(pass.y, pass.out.width, pass.out.count * pass.out.image_step());
    each_plane(pass, shape, std::min(band, pairs) + G - 1, parallel, [&](int64_t plane, int64_t channel, float* copy) {
      const float* const x = pass.x + plane * pass.in.pixels();
      float* const y = pass.y + plane * pass.out.pixels();
      for (int64_t pair = 0; pair < pairs; pair += band) {
        const int64_t count = std::min(band, pairs - pair);
        shape.copy_rows(x, pass.in.height, pair + pass.padding[0] / 2 - (G - 1), count + G - 1, copy);
        padding % 2 == 0 ? transposed_band<0>(pass, shape, copy, channel, first + 2 * pair, count, y, streamed)
                         : transposed_band<1>(pass, shape, copy, channel, first + 2 * pair, count, y, streamed);
      }
    });
  }

  /// sums: [channel][tap], of x times grad_out.
  static void grad_weight(const DepthwisePass& pass, const float* grad_out, float* sums, const Parallel& parallel) {
    const PaddedPlane<V, S> shape(pass.in.width, pass.padding[1], pass.out.width, K);
    const int64_t band = std::max<int64_t>(kRows, (kBandBytes / shape.row_bytes() - K) / S / kRows * kRows);
    const int64_t copied = (std::min(band, pass.out.height) - 1) * S + K;
    const int64_t vectors = pass.out.height * ceil_div(pass.out.width, W);
    // Neighbouring channels of an image, for memory is read page by page.
    const int64_t each = std::clamp<int64_t>(kTask / pass.out.pixels(), 1, kMostChannels);
    parallel(ceil_div(pass.out.channels, each), [&](int64_t begin, int64_t end) {
      static thread_local Arena arena;
      float* const copy = shape.take(arena, copied);
      for (int64_t task = begin; task < end; ++task) {
        const int64_t first = task * each, last = std::min(pass.out.channels, first + each);
        V lanes[kMostChannels][K * K];
        double totals[kMostChannels][K * K] = {};
        for (auto& of_channel : lanes)
          for (V& of_tap : of_channel) of_tap = V::zero();
        int64_t summed = 0;
        for (int64_t image = 0; image < pass.out.count; ++image) {
          for (int64_t c = first; c < last; ++c) {
            const int64_t plane = image * pass.out.channels + c;
            for (int64_t row = 0; row < pass.out.height; row += band) {
              const int64_t rows = std::min(band, pass.out.height - row);
              shape.copy_rows(pass.x + plane * pass.in.pixels(), pass.in.height, row * S - pass.padding[0], (rows - 1) * S + K, copy);
              add_band(shape, copy, grad_out + plane * pass.out.pixels() + row * pass.out.width, rows, pass.out.width,
                       lanes[c - first]);
            }
          }
          summed += vectors;
          if (summed < kSummed && image + 1 < pass.out.count) continue;
          summed = 0;
          for (int64_t c = 0; c < last - first; ++c)
            for (int tap = 0; tap < K * K; ++tap) {
              totals[c][tap] += sum_of_lanes(lanes[c][tap]);
              lanes[c][tap] = V::zero();
            }
        }
        for (int64_t c = first; c < last; ++c)
          for (int tap = 0; tap < K * K; ++tap) sums[c * K * K + tap] = static_cast<float>(totals[c - first][tap]);
      }
    });
  }

 private:
  static constexpr int kRows = 4;
  static constexpr int64_t kBandBytes = 16 << 10;
  static constexpr int64_t kTask = 4096;  // outputs
  static constexpr int kMostChannels = 16;
  static constexpr int64_t kSummed = 512;

  /// body(plane, channel, room for the copy of so many rows) for each plane.
  template <class Shape, class Body>
  static void each_plane(const DepthwisePass& pass, const Shape& shape, int64_t copied, const Parallel& parallel,
                         const Body& body) {
    const int64_t planes = pass.out.count * pass.out.channels, each = std::max<int64_t>(1, kTask / pass.out.pixels());
    parallel(ceil_div(planes, each), [&](int64_t begin, int64_t end) {
      static thread_local Arena arena;
      float* const copy = shape.take(arena, copied);
      for (int64_t plane = begin * each; plane < std::min(planes, end * each); ++plane)
        body(plane, plane % pass.out.channels, copy);
      stream_fence();
    });
  }

  template <bool Relu>
  static void correlate_band(const DepthwisePass& pass, const PaddedPlane<V, S>& shape, const float* copy, int64_t channel,
                             int64_t rows, float* y, bool streamed) {
    const Taps taps(pass.weights + channel * K * K);
    const V bias = V::broadcast(pass.bias == nullptr ? 0.0f : pass.bias[channel]);
    const int64_t width = pass.out.width;
    int64_t row = 0;
    // The last four may have been computed in part: the same bits again.
    if (rows >= kRows)
      for (; row < rows; row += kRows) {
        const int64_t at = std::min(row, rows - kRows);
        correlate_rows<kRows, Relu>(shape, copy + at * S * shape.row_step(), taps, bias, width, y + at * width, streamed);
      }
    for (; row < rows; ++row)
      correlate_rows<1, Relu>(shape, copy + row * S * shape.row_step(), taps, bias, width, y + row * width, streamed);
  }

  struct Taps {
    LTH_SPARSE_INLINE explicit Taps(const float* weights) {
      for (int tap = 0; tap < K * K; ++tap) of[tap / K][tap % K] = V::broadcast(weights[tap]);
    }
    V of[K][K];
  };

  template <int Rows, bool Relu>
  LTH_SPARSE_INLINE static void correlate_rows(const PaddedPlane<V, S> shape, const float* copy, const Taps& taps, V bias,
                                               int64_t width, float* y, bool streamed) {
    each_vector<V>(width, [&](int64_t at, auto lanes) LTH_SPARSE_INLINE_LAMBDA {
      V sums[Rows];
      LTH_SPARSE_UNROLL
      for (int r = 0; r < Rows; ++r) sums[r] = bias;
      LTH_SPARSE_UNROLL
      for (int g = 0; g < (Rows - 1) * S + K; ++g) {
        LTH_SPARSE_UNROLL
        for (int j = 0; j < K; ++j) {
          const V x = V::load(copy + g * shape.row_step() + shape.column(j) + at);
          LTH_SPARSE_UNROLL
          for (int r = 0; r < Rows; ++r)
            if (g - r * S >= 0 && g - r * S < K) sums[r] = sums[r].plus_product(x, taps.of[g - r * S][j]);
        }
      }
      LTH_SPARSE_UNROLL
      for (int r = 0; r < Rows; ++r) store(y + r * width + at, Relu ? sums[r].rectified() : sums[r], lanes, streamed);
    });
  }

  /// Pairs of rows from `row` on, which may be -1. Odd: whether the padding of columns is. An even column then sees the kernel's
  /// odd places.
  template <int Odd>
  static void transposed_band(const DepthwisePass& pass, const PaddedPlane<V, 1> shape, const float* copy, int64_t channel,
                              int64_t row, int64_t pairs, float* y, bool streamed) {
    const Taps taps(pass.weights + channel * K * K);
    const int64_t width = pass.out.width;
    for (int64_t pair = 0; pair < pairs; ++pair, row += 2, copy += shape.row_step())
      for (int64_t at = 0; 2 * at < width; at += W) {
        V sums[2][2] = {{V::zero(), V::zero()}, {V::zero(), V::zero()}};
        LTH_SPARSE_UNROLL
        for (int g = 0; g < G; ++g) {
          LTH_SPARSE_UNROLL
          for (int h = 0; h < G; ++h) {
            const V x = V::load(copy + g * shape.row_step() + shape.column(h) + at);
            LTH_SPARSE_UNROLL
            for (int a = 0; a < 2; ++a) {
              LTH_SPARSE_UNROLL
              for (int b = 0; b < 2; ++b) {
                const int i = a + 2 * (G - 1 - g), j = Odd ? (b == 0 ? 1 + 2 * (G - 2 - h) : 2 * (G - 1 - h)) : b + 2 * (G - 1 - h);
                if (i < K && j >= 0 && j < K) sums[a][b] = sums[a][b].plus_product(x, taps.of[i][j]);
              }
            }
          }
        }
        LTH_SPARSE_UNROLL
        for (int a = 0; a < 2; ++a) {
          if (row + a < 0 || row + a >= pass.out.height) continue;
          V first, second;
          V::interleave(sums[a][0], sums[a][1], first, second);
          float* const to = y + (row + a) * width + 2 * at;
          const int64_t left = width - 2 * at;
          if (left >= 2 * W) {
            store(to, first, Whole<V>(), streamed);
            store(to + W, second, Whole<V>(), streamed);
          } else {
            first.store(to, static_cast<int>(std::min<int64_t>(W, left)));
            if (left > W) second.store(to + W, static_cast<int>(left - W));
          }
        }
      }
  }

  static void add_band(const PaddedPlane<V, S>& shape, const float* copy, const float* gradients, int64_t rows, int64_t width,
                       V (&sums)[K * K]) {
    int64_t row = 0;
    for (; row + kRows <= rows; row += kRows) add_rows<kRows>(shape, copy + row * S * shape.row_step(), gradients + row * width, width, sums);
    if (row + 2 <= rows) {
      add_rows<2>(shape, copy + row * S * shape.row_step(), gradients + row * width, width, sums);
      row += 2;
    }
    if (row < rows) add_rows<1>(shape, copy + row * S * shape.row_step(), gradients + row * width, width, sums);
  }

  template <int Rows>
  static void add_rows(const PaddedPlane<V, S> shape, const float* copy, const float* gradients, int64_t width, V (&to)[K * K]) {
    V sums[K * K];
    LTH_SPARSE_UNROLL
    for (int tap = 0; tap < K * K; ++tap) sums[tap] = to[tap];
    each_vector<V>(width, [&](int64_t at, auto lanes) LTH_SPARSE_INLINE_LAMBDA {
      V gradient[Rows];
      LTH_SPARSE_UNROLL
      for (int r = 0; r < Rows; ++r) gradient[r] = load<V>(gradients + r * width + at, lanes);
      LTH_SPARSE_UNROLL
      for (int g = 0; g < (Rows - 1) * S + K; ++g) {
        LTH_SPARSE_UNROLL
        for (int j = 0; j < K; ++j) {
          // What no output of the row sees must not be multiplied as 0, for it may be infinite.
          const V x = load<V>(copy + g * shape.row_step() + shape.column(j) + at, lanes);
          LTH_SPARSE_UNROLL
          for (int r = 0; r < Rows; ++r)
            if (g - r * S >= 0 && g - r * S < K) sums[(g - r * S) * K + j] = sums[(g - r * S) * K + j].plus_product(x, gradient[r]);
        }
      }
    });
    LTH_SPARSE_UNROLL
    for (int tap = 0; tap < K * K; ++tap) to[tap] = sums[tap];
  }
};
