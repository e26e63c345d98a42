// Rows of a plane in scratch, with zeros around them, for any vector type.
//
// Include like ../engine.h, after ../each_vector.h. `S`, the stride: with 2 the even columns of a row come first, then its odd
// ones, so that what neighbouring outputs see are neighbours.

template <class V, int S>
class PaddedPlane {
  static constexpr int W = V::width;

 public:
  /// For `outputs` of a row, whose kernels are `kernel` wide. `padding`: columns before the first; negative where the first
  /// ones are left out.
  PaddedPlane(int64_t width, int64_t padding, int64_t outputs, int64_t kernel)
      : width_(width), padding_(padding), before_(std::max<int64_t>(0, padding)) {
    // Whole vectors are written, and whole vectors of outputs read.
    const int64_t written = ceil_div(width + 2 * W, S), read = ceil_div(outputs, W) * W + kernel;
    step_ = ceil_div(before_ + std::max(written, read), W) * W;
  }

  int64_t row_step() const { return S * step_; }
  int64_t row_bytes() const { return row_step() * static_cast<int64_t>(sizeof(float)); }

  /// Where the outputs of a row find their pixel of the kernel's column.
  LTH_SPARSE_INLINE int64_t column(int64_t of_kernel) const { return of_kernel % S * step_ + of_kernel / S; }

  /// Scratch for so many rows, all zeros.
  float* take(Arena& arena, int64_t rows) const {
    float* const scratch = arena.take<float>(rows * row_step());
    std::fill_n(scratch, rows * row_step(), 0.0f);
    return scratch;
  }

  /// Rows [first, first + count) of a plane of so many rows, which need not all exist.
  void copy_rows(const float* plane, int64_t height, int64_t first, int64_t count, float* scratch) const {
    for (int64_t row = first; row < first + count; ++row, scratch += row_step()) {
      if (row < 0 || row >= height) std::fill_n(scratch, row_step(), 0.0f);
      else copy_row(plane + row * width_, scratch);
    }
  }

 private:
  LTH_SPARSE_INLINE void copy_row(const float* from, float* to) const {
    if constexpr (S == 1) {
      const int64_t skipped = before_ - padding_;
      each_vector<V>(width_ - skipped, [&](int64_t at, auto lanes) LTH_SPARSE_INLINE_LAMBDA {
        load<V>(from + skipped + at, lanes).store(to + before_ + at);
      });
    } else {
      // Column 0 is an odd one where the padding is odd.
      float* const evens = to + (padding_ % 2) * step_ + padding_ / 2;
      float* const odds = to + (1 - padding_ % 2) * step_ + (padding_ + 1) / 2;
      int64_t at = 0;
      for (; at < width_; at += 2 * W) {
        const int64_t left = width_ - at;
        V even, odd;
        if (left >= 2 * W) V::deinterleave(V::load(from + at), V::load(from + at + W), even, odd);
        else V::deinterleave(V::load(from + at, static_cast<int>(std::min<int64_t>(W, left))),
                             left > W ? V::load(from + at + W, static_cast<int>(left - W)) : V::zero(), even, odd);
        even.store(evens + at / 2);
        odd.store(odds + at / 2);
      }
    }
  }

  int64_t width_, padding_, before_, step_;
};
