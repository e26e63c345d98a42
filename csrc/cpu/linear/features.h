// A batch between its rows and vectors of them: W features of all rows at a time, transposed in registers.
//
// Include inside the target of an instruction set (../target.h), after every other header. Q vectors of W rows hold a group of them.

template <class V, int Q>
class Features {
  using T = typename V::Element;
  static constexpr int W = V::width;

 public:
  /// x [batch, features].
  Features(const T* x, int64_t batch, int64_t features) : x_(x), batch_(batch), features_(features), call_(next_call()) {}

  int64_t groups() const { return ceil_div(batch_, Q * W); }
  /// Rows of a group.
  int64_t rows(int64_t group) const { return std::min<int64_t>(Q * W, batch_ - group * Q * W); }

  /// A group as [features][Q * W], lanes beyond the batch 0, for the thread that asks. Each makes its own, when the group is not the
  /// last that it made: to fetch what another core has made takes as long.
  const T* in_lanes(int64_t group) const {
    static thread_local Arena arena;
    static thread_local uint64_t made_in = 0;
    static thread_local int64_t made = 0;
    T* const lanes = arena.take<T>(features_ * Q * W);
    if (made_in == call_ && made == group) return lanes;
    made_in = call_;
    made = group;
    const T* const x = x_ + group * Q * W * features_;
    for (int64_t first = 0; first < features_; first += W)
      load(x + first, rows(group), features_, features_ - first, lanes + first * Q * W);
    return lanes;
  }

  /// The next W features of `left`, or fewer, of rows that lie `step` apart. Returns how many.
  static int load(const T* from, int64_t rows, int64_t step, int64_t left, T* lanes) {
    const int count = static_cast<int>(std::min<int64_t>(W, left));
    for (int q = 0; q < Q; ++q) {
      V loaded[W];
      for (int k = 0; k < W; ++k) {
        const T* const row = from + (q * W + k) * step;
        loaded[k] = q * W + k >= rows ? V::zero() : count == W ? V::load(row) : V::load(row, count);
      }
      V::transpose(loaded);
      for (int k = 0; k < count; ++k) loaded[k].store(lanes + (k * Q + q) * W);
    }
    return count;
  }

  /// The way back, for `count` features.
  static void store(const T* lanes, int64_t rows, int64_t step, int count, T* to) {
    for (int q = 0; q < Q; ++q) {
      V stored[W];
      for (int k = 0; k < W; ++k) stored[k] = k < count ? V::load(lanes + (k * Q + q) * W) : V::zero();
      V::transpose(stored);
      for (int k = 0; k < W && q * W + k < rows; ++k) {
        T* const row = to + (q * W + k) * step;
        if (count == W) stored[k].store(row);
        else stored[k].store(row, count);
      }
    }
  }

 private:
  static uint64_t next_call() {
    static std::atomic<uint64_t> calls{0};
    return ++calls;
  }

  const T* const x_;
  const int64_t batch_, features_;
  const uint64_t call_;
};
