// Pixels between a tensor and scratch [row][column][W channels]: transposed in registers where a tensor is contiguous, as they
// lie where it is channels_last.
//
// Include like ../engine.h, after ../transfer.h.

template <class V>
class Staging {
  using T = typename V::Element;
  static constexpr int W = V::width;

 public:
  /// Rows [first_row, first_row + rows) of `channels` channels, W at most. `from`: the first of them in the image; `row_step`:
  /// elements from a row of scratch to the next. Missing channels are zero. `next`: how far from there what is loaded next
  /// lies, to be fetched meanwhile: sixteen planes at once are more streams than the processor follows by itself.
  static void load(const Images& images, const T* from, int channels, int64_t first_row, int64_t rows, T* scratch,
                   int64_t row_step, int64_t next) {
    from += first_row * images.width * images.pixel_step();
    if (images.channels_last) {
      for (int64_t row = 0; row < rows; ++row, scratch += row_step)
        for (int64_t x = 0; x < images.width; ++x, from += images.channels) {
          const V pixel = channels == W ? V::load(from) : V::load(from, channels);
          pixel.store(scratch + x * W);
        }
      return;
    }
    const int64_t pixels = rows * images.width, step = images.pixels();
    Walk<T> walk{scratch, row_step, images.width};
    for (int64_t p = 0; p < pixels; p += W) {
      V lanes[W];
      const int run = static_cast<int>(std::min<int64_t>(W, pixels - p));
      if (channels == W && run == W) {
        LTH_SPARSE_UNROLL
        for (int k = 0; k < W; ++k) {
          lanes[k] = V::load(from + k * step + p);
          __builtin_prefetch(from + k * step + p + next);
        }
      } else {
        for (int k = 0; k < W; ++k) lanes[k] = k < channels ? V::load(from + k * step + p, run) : V::zero();
      }
      V::transpose(lanes);
      if (walk.within_row()) {
        T* const to = walk.take_vector();
        LTH_SPARSE_UNROLL
        for (int k = 0; k < W; ++k) lanes[k].store(to + k * W);
      } else {
        for (int k = 0; k < run; ++k) lanes[k].store(walk.take_pixel());
      }
    }
  }

  /// The way back. `stream`: past the caches where whole lines are written.
  static void store(const Images& images, T* to, int channels, int64_t first_row, int64_t rows, const T* scratch,
                    int64_t row_step, bool stream) {
    to += first_row * images.width * images.pixel_step();
    if (images.channels_last) {
      const bool lines = stream && channels == W && reinterpret_cast<uintptr_t>(to) % (W * sizeof(T)) == 0 &&
                         images.channels % W == 0;
      for (int64_t row = 0; row < rows; ++row, scratch += row_step)
        for (int64_t x = 0; x < images.width; ++x, to += images.channels) {
          const V pixel = V::load(scratch + x * W);
          if (lines)
            pixel.stream(to);
          else if (channels == W)
            pixel.store(to);
          else
            pixel.store(to, channels);
        }
      return;
    }
    const int64_t pixels = rows * images.width;
    Walk<const T> walk{scratch, row_step, images.width};
    for (int64_t p = 0; p < pixels; p += W) {
      V lanes[W];
      const int run = static_cast<int>(std::min<int64_t>(W, pixels - p));
      if (walk.within_row()) {
        const T* const from = walk.take_vector();
        LTH_SPARSE_UNROLL
        for (int k = 0; k < W; ++k) lanes[k] = V::load(from + k * W);
      } else {
        for (int k = 0; k < run; ++k) lanes[k] = V::load(walk.take_pixel());
        for (int k = run; k < W; ++k) lanes[k] = V::zero();
      }
      V::transpose(lanes);
      Transfer<V>::store_rows(lanes, to + p, images.pixels(), channels, run, stream);
    }
  }

 private:
  /// Through the pixels of scratch, row by row.
  template <class Pointer>
  struct Walk {
    Pointer* row;
    int64_t row_step, width;
    int64_t x = 0;

    bool within_row() const { return x + W <= width; }
    Pointer* take_vector() {
      Pointer* const at = row + x * W;
      x += W;
      if (x == width) next_row();
      return at;
    }
    Pointer* take_pixel() {
      Pointer* const at = row + x * W;
      if (++x == width) next_row();
      return at;
    }
    void next_row() {
      x = 0;
      row += row_step;
    }
  };
};
