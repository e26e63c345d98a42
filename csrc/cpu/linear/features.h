// A batch between its rows and vectors of them: two cache lines of all rows at a time, transposed in registers. Rows mostly lie a
// power of two apart, where L1 and L2 hold few of their lines at once, so what is there is read or written whole: with a vector at
// a time grad_input of 128 rows of 4096 to 256 took 1.2 times as long.
//
// Include inside the target of an instruction set (../target.h), after every other header. Q vectors of W rows hold a group of them.

/// Of elements E, which stay what they are in the lanes of a group.
template <class V, int Q, class E>
class Features {
  using T = typename V::Element;
  static constexpr int W = V::width;

 public:
  /// Features that are loaded or stored at a time.
  static constexpr int kBlock = std::max<int>(W, 128 / sizeof(E)), kVectors = kBlock / W;

  /// x [batch, features].
  Features(const E* x, int64_t batch, int64_t features) : x_(x), batch_(batch), features_(features), call_(next_call()) {}

  int64_t groups() const { return ceil_div(batch_, Q * W); }
  /// Rows of a group.
  int64_t rows(int64_t group) const { return std::min<int64_t>(Q * W, batch_ - group * Q * W); }

  /// A group as [features][Q * W], lanes beyond the batch 0, for the thread that asks. Each makes its own, when the group is not the
  /// last that it made: to fetch what another core has made takes as long.
  const E* in_lanes(int64_t group) const {
    static thread_local Arena arena;
    static thread_local uint64_t made_in = 0;
    static thread_local int64_t made = 0;
    E* const lanes = arena.take<E>(features_ * Q * W);
    if (made_in == call_ && made == group) return lanes;
    made_in = call_;
    made = group;
    const E* const x = x_ + group * Q * W * features_;
    for (int64_t first = 0; first < features_; first += kBlock)
      load(x + first, rows(group), features_, features_ - first, lanes + first * Q * W);
    return lanes;
  }

  /// The next kBlock features of `left`, or fewer, of rows that lie `step` apart. Returns how many.
  template <class To>
  static int load(const E* from, int64_t rows, int64_t step, int64_t left, To* lanes) {
    const int count = static_cast<int>(std::min<int64_t>(kBlock, left));
    for (int q = 0; q < Q; ++q) {
      V loaded[kVectors][W];
      for (int k = 0; k < W; ++k) {
        const E* const row = from + (q * W + k) * step;
        for (int v = 0; v < kVectors; ++v) {
          const int loads = q * W + k < rows ? count - v * W : 0;
          loaded[v][k] = loads <= 0 ? V::zero() : loads >= W ? V::load(row + v * W) : V::load(row + v * W, loads);
        }
      }
      for (int v = 0; v * W < count; ++v) {
        V::transpose(loaded[v]);
        for (int k = 0; k < std::min(W, count - v * W); ++k) loaded[v][k].store(lanes + ((v * W + k) * Q + q) * W);
      }
    }
    return count;
  }

  /// The way back, for `count` features, kBlock at most.
  static void store(const T* lanes, int64_t rows, int64_t step, int count, E* to) {
    for (int q = 0; q < Q; ++q) {
      V stored[kVectors][W];
      for (int v = 0; v * W < count; ++v) {
        for (int k = 0; k < W; ++k)
          stored[v][k] = v * W + k < count ? V::load(lanes + ((v * W + k) * Q + q) * W) : V::zero();
        V::transpose(stored[v]);
      }
      for (int k = 0; k < W && q * W + k < rows; ++k) {
        E* const row = to + (q * W + k) * step;
        for (int v = 0; v * W < count; ++v) {
          if (count - v * W >= W) stored[v][k].store(row + v * W);
          else stored[v][k].store(row + v * W, count - v * W);
        }
      }
    }
  }

 private:
  static uint64_t next_call() {
    static std::atomic<uint64_t> calls{0};
    return ++calls;
  }

  const E* const x_;
  const int64_t batch_, features_;
  const uint64_t call_;
};
