// What neighbouring outputs see of a row of pixels, for any vector type.
//
// Include like ../engine.h. A window is for a vector of outputs and `Columns` places of a kernel: it gives for each place the
// vector of pixels that the outputs find there, neighbours (`S` == 1) or every other one. What lies beside the row is 0.

template <class V, int Columns, int S>
class Window {
  static constexpr int W = V::width;
  static constexpr int kPairs = (Columns + 1) / 2;
  static constexpr int kLoads = S == 1 ? Columns : 2 * kPairs;

 public:
  int64_t at;   // the first output
  int lanes;    // that are outputs
  bool inside;  // nothing lies beside the row, and all lanes are outputs

  /// Of rows of `width` pixels, with `padding` zeros before them.
  Window(int64_t width, int64_t padding, int64_t first_output, int64_t outputs)
      : at(first_output), lanes(static_cast<int>(std::min<int64_t>(W, outputs - at))), first_(at * S - padding) {
    constexpr int64_t kSeen = S == 1 ? W + Columns - 1 : 2 * (W + kPairs - 1);
    inside = lanes == W && first_ >= 0 && first_ + kSeen <= width;
    for (int k = 0; k < kLoads; ++k) {
      const int64_t begin = first_ + place(k), limit = S == 1 ? lanes : 2 * lanes - k % 2 * W;
      masks_[k] = V::between(-begin, std::min(width - begin, limit));
    }
  }

  template <bool Inside>
  LTH_SPARSE_INLINE void load(const float* row, V (&pixels)[Columns]) const {
    const float* const from = in_a_register(row + first_);
    V loaded[kLoads];
    LTH_SPARSE_UNROLL
    for (int k = 0; k < kLoads; ++k)
      loaded[k] = Inside ? V::load(from + place(k)) : V::load_where(from + place(k), masks_[k]);
    if constexpr (S == 1) {
      LTH_SPARSE_UNROLL
      for (int j = 0; j < Columns; ++j) pixels[j] = loaded[j];
    } else {
      LTH_SPARSE_UNROLL
      for (int pair = 0; pair < kPairs; ++pair) {
        V odd;
        V::deinterleave(loaded[2 * pair], loaded[2 * pair + 1], pixels[2 * pair], odd);
        if (2 * pair + 1 < Columns) pixels[2 * pair + 1] = odd;
      }
    }
  }

 private:
  /// Where the vector begins, from the first pixel on.
  static constexpr int place(int k) { return S == 1 ? k : 2 * (k / 2) + k % 2 * W; }

  int64_t first_;
  typename V::Mask masks_[kLoads];
};

/// The windows of a row of outputs, which are as many in every row.
template <class V, int Columns, int S>
class Windows {
  using Of = Window<V, Columns, S>;

 public:
  /// `overlap`: the last one begins early enough to be a whole vector, where a row is so wide.
  Windows(int64_t width, int64_t padding, int64_t outputs, bool overlap)
      : count_(ceil_div(outputs, V::width)), windows_(arena_.take<Of>(count_)) {
    for (int64_t k = 0; k < count_; ++k) {
      const int64_t at = overlap ? std::max<int64_t>(0, std::min(k * V::width, outputs - V::width)) : k * V::width;
      new (windows_ + k) Of(width, padding, at, outputs);
    }
  }

  const Of* begin() const { return windows_; }
  const Of* end() const { return windows_ + count_; }

 private:
  Arena arena_;
  int64_t count_;
  Of* windows_;
};
