// The products at one point: small matrix multiplications, all operands in the caches. They take three quarters of the time
// and run at what the multipliers sustain.
//
// Include like ../engine.h.

/// R x Q accumulators: R numbers broadcast, times Q vectors.
template <class V>
class Products {
  using T = typename V::Element;
  static constexpr int W = V::width;
  static constexpr bool kManyRegisters = V::registers == 32;

 public:
  /// Vectors of output channels that a panel of transformed weights has.
  static constexpr int panel = 2;

  /// out[tile][Q vectors] = or += the sum over `groups` x W channels of patches[channel][tile] * weights[channel][Q vectors].
  template <int Q>
  LTH_SPARSE_INLINE static void of_tiles(int64_t tiles, int64_t groups, const T* patches, int64_t group_step, const T* weights,
                                         T* out, bool add) {
    constexpr int most = kManyRegisters ? (Q == 2 ? 14 : 16) : (Q == 2 ? 6 : 8);
    const int64_t pieces = (tiles + most - 1) / most;
    for (int64_t piece = 0; piece < pieces; ++piece) {
      const int64_t from = tiles * piece / pieces, to = tiles * (piece + 1) / pieces;
      of_rows<Q, most>(static_cast<int>(to - from), groups, patches + from * W, group_step, weights, out + from * Q * W, add);
    }
  }

  /// sums[k vector][channel][W] = or += the sum over tiles of patches[tile][channel] * gradients[tile][k vector], for
  /// `channels`, W at least, and `vectors` of k. Steps are from one W channels to the next.
  static void of_channels(int64_t tiles, int64_t channels, int64_t vectors, const T* patches, int64_t patch_step,
                          const T* gradients, int64_t gradient_step, T* sums, int64_t sum_step, bool add) {
    constexpr int64_t kTiles = 128;
    for (int64_t tile = 0; tile < tiles; tile += kTiles) {
      const int64_t count = std::min(kTiles, tiles - tile);
      const Sums all{count, channels, patches + tile * W, patch_step, gradients + tile * W, gradient_step, sums, sum_step,
                     add || tile > 0};
      int64_t vector = 0;
      if constexpr (!kManyRegisters)
        for (; vectors - vector >= 3 && vectors - vector != 4; vector += 3) of_vectors<4, 3>(all, vector);
      for (; vectors - vector >= 2; vector += 2) of_vectors<kManyRegisters ? 8 : 4, 2>(all, vector);
      for (; vector < vectors; ++vector) of_vectors<kManyRegisters ? 16 : 8, 1>(all, vector);
    }
  }

 private:
  struct Sums {
    int64_t tiles, channels;
    const T* patches;
    int64_t patch_step;
    const T* gradients;
    int64_t gradient_step;
    T* sums;
    int64_t sum_step;
    bool add;
  };

  template <int Q, int R>
  LTH_SPARSE_INLINE static void of_rows(int rows, int64_t groups, const T* patches, int64_t group_step, const T* weights, T* out,
                                        bool add) {
    if constexpr (R > 0) {
      if (rows == R) return multiply<R, Q>(groups, patches, group_step, weights, out, add);
      of_rows<Q, R - 1>(rows, groups, patches, group_step, weights, out, add);
    }
  }

  template <int R, int Q>
  static void multiply(int64_t groups, const T* patches, int64_t group_step, const T* weights, T* out, bool add) {
    V sums[R][Q];
    LTH_SPARSE_UNROLL
    for (int r = 0; r < R; ++r)
      LTH_SPARSE_UNROLL
      for (int q = 0; q < Q; ++q) sums[r][q] = V::zero();
    for (int64_t group = 0; group < groups; ++group, patches += group_step) {
      for (int c = 0; c < W; ++c) {
        V weight[Q];
        LTH_SPARSE_UNROLL
        for (int q = 0; q < Q; ++q) weight[q] = V::load(weights + q * W);
        weights += Q * W;
        LTH_SPARSE_UNROLL
        for (int r = 0; r < R; ++r) {
          const V patch = V::broadcast(patches[r * W + c]);
          LTH_SPARSE_UNROLL
          for (int q = 0; q < Q; ++q) sums[r][q] = sums[r][q].plus_product(patch, weight[q]);
        }
      }
    }
    LTH_SPARSE_UNROLL
    for (int r = 0; r < R; ++r)
      LTH_SPARSE_UNROLL
      for (int q = 0; q < Q; ++q) {
        T* const to = out + (r * Q + q) * W;
        (add ? V::load(to) + sums[r][q] : sums[r][q]).store(to);
      }
  }

  template <int R, int Q>
  LTH_SPARSE_INLINE static void of_vectors(const Sums& all, int64_t vector) {
    for (int64_t c = 0; c < all.channels; c += R)
      multiply_tiles<R, Q>(all.tiles, all.patches + c / W * all.patch_step + c % W, all.gradients + vector * all.gradient_step,
                           all.gradient_step, all.sums + vector * all.sum_step + c * W, all.sum_step, all.add);
  }

  template <int R, int Q>
  static void multiply_tiles(int64_t tiles, const T* patches, const T* gradients, int64_t gradient_step, T* out, int64_t step,
                             bool add) {
    V sums[R][Q];
    LTH_SPARSE_UNROLL
    for (int r = 0; r < R; ++r)
      LTH_SPARSE_UNROLL
      for (int q = 0; q < Q; ++q) sums[r][q] = V::zero();
    for (int64_t t = 0; t < tiles; ++t) {
      V gradient[Q];
      LTH_SPARSE_UNROLL
      for (int q = 0; q < Q; ++q) gradient[q] = V::load(gradients + q * gradient_step + t * W);
      LTH_SPARSE_UNROLL
      for (int r = 0; r < R; ++r) {
        const V patch = V::broadcast(patches[t * W + r]);
        LTH_SPARSE_UNROLL
        for (int q = 0; q < Q; ++q) sums[r][q] = sums[r][q].plus_product(patch, gradient[q]);
      }
    }
    LTH_SPARSE_UNROLL
    for (int q = 0; q < Q; ++q)
      LTH_SPARSE_UNROLL
      for (int r = 0; r < R; ++r) {
        T* const to = out + q * step + r * W;
        (add ? V::load(to) + sums[r][q] : sums[r][q]).store(to);
      }
  }
};
