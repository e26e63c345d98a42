// Depthwise convolutions of planes whose rows fill half of a vector at most, for any vector type.
//
// Include like ../engine.h, after rows.h. The planes of some channels of an image are transposed in registers into scratch in
// which a pixel's channels lie together, as many as L1 holds, and computed there as rows.h computes an image.

template <class V, int K, int S>
class DepthwiseSmallPlanes {
  static constexpr int W = V::width;

 public:
  static bool worth_it(const Images& in, const Images& out) { return std::min(in.width, out.width) <= W / 2; }

  /// `weights`: [tap][channels of whole vectors]. `Transposed`: as for `DepthwiseRows`.
  template <bool Transposed>
  static void correlate(const DepthwisePass& pass, const Parallel& parallel) {
    const int64_t most = kScratchBytes / (W * sizeof(float) * (pass.in.pixels() + pass.out.pixels()));
    const int64_t each = W * std::clamp<int64_t>(most, 1, kMostVectors), blocks = ceil_div(pass.out.channels, each);
    parallel(pass.out.count * blocks, [&](int64_t begin, int64_t end) {
      static thread_local Arena arena;
      float* const in = arena.take<float>(each * (pass.in.pixels() + pass.out.pixels()));
      float* const out = in + each * pass.in.pixels();
      for (int64_t task = begin; task < end; ++task) {
        const int64_t image = task / blocks, first = task % blocks * each, channels = std::min(each, pass.out.channels - first);
        load(pass.x + image * pass.in.image_step() + first * pass.in.pixels(), channels, pass.in.pixels(), in);
        DepthwisePass part = part_of(pass, channels, in);
        part.weights += first;
        if (part.bias != nullptr) part.bias += first;
        part.y = out;
        DepthwiseRows<V, K, S, Transposed>::correlate_image(part);
        store(out, channels, pass.out.pixels(), pass.y + image * pass.out.image_step() + first * pass.out.pixels());
      }
    });
  }

  /// sums: [tap][channels of whole vectors], of x times grad_out. A task has some channels of all images.
  static void grad_weight(const DepthwisePass& pass, const float* grad_out, float* sums, const Parallel& parallel) {
    const int64_t each = W * std::clamp<int64_t>(pass.out.channels / (W * kTasks), 1, kMostVectors / 2);
    const int64_t together = std::max<int64_t>(1, kSummed / pass.out.pixels());
    parallel(ceil_div(pass.out.channels, each), [&](int64_t begin, int64_t end) {
      static thread_local Arena arena;
      float* const own = arena.take<float>(each * (K * K + pass.in.pixels() + pass.out.pixels()));
      float *const in = own + K * K * each, *const out = in + each * pass.in.pixels();
      for (int64_t task = begin; task < end; ++task) {
        const int64_t first = task * each, channels = std::min(each, pass.out.channels - first);
        DepthwisePass part = part_of(pass, channels, in);
        part.tap_step = each;
        double totals[K * K][W * kMostVectors / 2] = {};
        std::fill_n(own, K * K * each, 0.0f);
        for (int64_t image = 0; image < pass.out.count; ++image) {
          load(pass.x + image * pass.in.image_step() + first * pass.in.pixels(), channels, pass.in.pixels(), in);
          load(grad_out + image * pass.out.image_step() + first * pass.out.pixels(), channels, pass.out.pixels(), out);
          DepthwiseRows<V, K, S, false>::add_image(part, out, own);
          if ((image + 1) % together != 0 && image + 1 < pass.out.count) continue;
          for (int64_t tap = 0; tap < K * K; ++tap)
            for (int64_t c = 0; c < channels; ++c) totals[tap][c] += own[tap * each + c];
          std::fill_n(own, K * K * each, 0.0f);
        }
        for (int64_t tap = 0; tap < K * K; ++tap)
          for (int64_t c = 0; c < channels; ++c) sums[tap * pass.tap_step + first + c] = static_cast<float>(totals[tap][c]);
      }
    });
  }

 private:
  static constexpr int64_t kScratchBytes = 32 << 10;
  static constexpr int kMostVectors = 8;
  static constexpr int64_t kTasks = 8;
  static constexpr int64_t kSummed = 1024;  // pixels

  static DepthwisePass part_of(const DepthwisePass& pass, int64_t channels, const float* x) {
    DepthwisePass part = pass;
    part.in = {1, channels, pass.in.height, pass.in.width, true};
    part.out = {1, channels, pass.out.height, pass.out.width, true};
    part.x = x;
    return part;
  }

  /// rows [pixel][channel] of planes [channel][pixel].
  static void load(const float* planes, int64_t channels, int64_t pixels, float* rows) {
    for (int64_t c = 0; c < channels; c += W) {
      const int lanes = static_cast<int>(std::min<int64_t>(W, channels - c));
      for (int64_t p = 0; p < pixels; p += W) {
        const int run = static_cast<int>(std::min<int64_t>(W, pixels - p));
        const float* const from = planes + c * pixels + p;
        V square[W];
        for (int k = 0; k < W; ++k) square[k] = k < lanes ? V::load(from + k * pixels, run) : V::zero();
        V::transpose(square);
        for (int k = 0; k < run; ++k) square[k].store(rows + (p + k) * channels + c, lanes);
      }
    }
  }

  /// The way back.
  static void store(const float* rows, int64_t channels, int64_t pixels, float* planes) {
    for (int64_t c = 0; c < channels; c += W) {
      const int lanes = static_cast<int>(std::min<int64_t>(W, channels - c));
      for (int64_t p = 0; p < pixels; p += W) {
        const int run = static_cast<int>(std::min<int64_t>(W, pixels - p));
        float* const to = planes + c * pixels + p;
        V square[W];
        for (int k = 0; k < W; ++k) square[k] = k < run ? V::load(rows + (p + k) * channels + c, lanes) : V::zero();
        V::transpose(square);
        for (int k = 0; k < lanes; ++k) square[k].store(to + k * pixels, run);
      }
    }
  }
};
