// ReLU and a 2x2 max-pool of stride 2, for any vector type, of pixels whose channels lie together or of single planes. An odd
// last row or column is in no window.
//
// Include like engine.h. PyTorch's choice among equals: the first of the greatest, and the last NaN.

template <class V>
class Pooling {
 public:
  /// Of a pair of rows of pixels, channels together. input(vector of x, its channel) is what the ReLU is applied to.
  template <class Input>
  static void forward_rows(int64_t width, int64_t channels, const float* rows, float* out, uint8_t* taken,
                           const Input input, bool streamed) {
    const int64_t below = width * channels;
    for (int64_t window = 0; window < width / 2; ++window)
      each_vector<V>(channels, [&](int64_t c, auto lanes) LTH_SPARSE_INLINE_LAMBDA {
        const float* const x = rows + 2 * window * channels + c;
        const V first = input(load<V>(x, lanes), c), second = input(load<V>(x + channels, lanes), c);
        const V third = input(load<V>(x + below, lanes), c), fourth = input(load<V>(x + below + channels, lanes), c);
        V place;
        const V best = largest(first, second, third, fourth, place);
        store(out + window * channels + c, best, lanes, streamed);
        store_bytes(taken + window * channels + c, place, lanes);
      });
  }

  /// output(dz, offset of its pixel from `rows`, channel, lanes) for each vector of a row or, if `paired`, of two; dz is the
  /// gradient that arrives there.
  template <class Output>
  static void backward_rows(int64_t width, int64_t channels, bool paired, const float* grad_out, const uint8_t* taken,
                            const Output output) {
    const int64_t windows = paired ? width / 2 : 0;
    for (int64_t row = 0; row < 1 + paired; ++row) {
      for (int64_t window = 0; window < windows; ++window)
        for (int64_t column = 0; column < 2; ++column)
          each_vector<V>(channels, [&](int64_t c, auto lanes) LTH_SPARSE_INLINE_LAMBDA {
            const int64_t from = window * channels + c;
            const V place = V::broadcast(static_cast<float>(2 * row + column));
            const V dz = load<V>(grad_out + from, lanes).where_equal(load_bytes<V>(taken + from, lanes), place);
            output(dz, (row * width + 2 * window + column) * channels, c, lanes);
          });
      for (int64_t pixel = 2 * windows; pixel < width; ++pixel)
        each_vector<V>(channels, [&](int64_t c, auto lanes) LTH_SPARSE_INLINE_LAMBDA {
          output(V::zero(), (row * width + pixel) * channels, c, lanes);
        });
    }
  }

  /// Of a plane of one channel.
  template <class Input>
  static void forward_plane(int64_t height, int64_t width, const float* plane, float* out, uint8_t* taken,
                            const Input input) {
    const int64_t windows = width / 2;
    for (int64_t row = 0; row < height / 2; ++row)
      each_vector<V>(windows, [&](int64_t window, auto lanes) LTH_SPARSE_INLINE_LAMBDA {
        V first, second, third, fourth, place;
        load_pairs(plane + 2 * row * width + 2 * window, lanes, first, second);
        load_pairs(plane + (2 * row + 1) * width + 2 * window, lanes, third, fourth);
        const V best = largest(input(first), input(second), input(third), input(fourth), place);
        store(out + row * windows + window, best, lanes, false);
        store_bytes(taken + row * windows + window, place, lanes);
      });
  }

  /// output(dz, offset from the plane's start, lanes) for each vector of the plane.
  template <class Output>
  static void backward_plane(int64_t height, int64_t width, const float* grad_out, const uint8_t* taken, const Output output) {
    const int64_t windows = width / 2;
    for (int64_t row = 0; row < height / 2 * 2; ++row) {
      const V left = V::broadcast(static_cast<float>(row % 2 * 2)), right = V::broadcast(static_cast<float>(row % 2 * 2 + 1));
      each_vector<V>(windows, [&](int64_t window, auto lanes) LTH_SPARSE_INLINE_LAMBDA {
        const int64_t from = row / 2 * windows + window, at = row * width + 2 * window;
        const V dy = load<V>(grad_out + from, lanes), place = load_bytes<V>(taken + from, lanes);
        V low, high;
        V::interleave(dy.where_equal(place, left), dy.where_equal(place, right), low, high);
        if constexpr (std::is_same_v<decltype(lanes), Whole<V>>) {
          output(low, at, lanes);
          output(high, at + V::width, lanes);
        } else {
          output(low, at, std::min(2 * lanes, V::width));
          if (2 * lanes > V::width) output(high, at + V::width, 2 * lanes - V::width);
        }
      });
      if (width % 2) output(V::zero(), row * width + width - 1, 1);
    }
    if (height % 2)
      each_vector<V>(width, [&](int64_t column, auto lanes) LTH_SPARSE_INLINE_LAMBDA {
        output(V::zero(), (height - 1) * width + column, lanes);
      });
  }

  /// The elements of even and of odd number among 2 * lanes.
  template <class Lanes>
  LTH_SPARSE_INLINE static void load_pairs(const float* from, Lanes lanes, V& even, V& odd) {
    if constexpr (std::is_same_v<Lanes, Whole<V>>) {
      V::deinterleave(V::load(from), V::load(from + V::width), even, odd);
    } else {
      const int rest = 2 * lanes - V::width;
      V::deinterleave(V::load(from, std::min(2 * lanes, V::width)), rest > 0 ? V::load(from + V::width, rest) : V::zero(),
                      even, odd);
    }
  }

  static void forward(const Images& images, const float* x, float* out, uint8_t* taken, const Parallel& parallel) {
    const int64_t rows = images.height / 2, windows = rows * (images.width / 2);
    if (images.channels_last) {
      const int64_t row = images.width * images.channels, out_row = images.width / 2 * images.channels;
      const bool streamed = worth_streaming<V>(out, images.channels, images.count * rows * out_row);
      return parallel(images.count * rows, [&](int64_t begin, int64_t end) {
        for (int64_t k = begin; k < end; ++k)
          forward_rows(images.width, images.channels, x + (k / rows * images.height + k % rows * 2) * row, out + k * out_row, taken + k * out_row,
                       [](V z, int64_t) LTH_SPARSE_INLINE_LAMBDA { return z; }, streamed);
        stream_fence();
      });
    }
    parallel(images.count * images.channels, [&](int64_t begin, int64_t end) {
      for (int64_t plane = begin; plane < end; ++plane)
        forward_plane(images.height, images.width, x + plane * images.pixels(), out + plane * windows, taken + plane * windows,
                      [](V z) LTH_SPARSE_INLINE_LAMBDA { return z; });
    });
  }

  static void backward(const Images& images, const float* grad_out, const uint8_t* taken, float* grad_x,
                       const Parallel& parallel) {
    const int64_t rows = images.height / 2, windows = rows * (images.width / 2);
    const int64_t all = images.count * images.image_step();
    if (images.channels_last) {
      const bool streamed = worth_streaming<V>(grad_x, images.channels, all);
      const int64_t units = images.height - rows;
      return parallel(images.count * units, [&](int64_t begin, int64_t end) {
        for (int64_t k = begin; k < end; ++k) {
          const int64_t image = k / units, unit = k % units;
          float* const to = grad_x + (image * images.height + 2 * unit) * images.width * images.channels;
          const int64_t from = (image * rows + unit) * (images.width / 2) * images.channels;
          backward_rows(images.width, images.channels, unit < rows, grad_out + from, taken + from,
                        [=](V dz, int64_t pixel, int64_t c, auto lanes) LTH_SPARSE_INLINE_LAMBDA {
                          store(to + pixel + c, dz, lanes, streamed);
                        });
        }
        stream_fence();
      });
    }
    const bool streamed = worth_streaming<V>(grad_x, images.width / 2, all);
    parallel(images.count * images.channels, [&](int64_t begin, int64_t end) {
      for (int64_t plane = begin; plane < end; ++plane) {
        float* const to = grad_x + plane * images.pixels();
        backward_plane(images.height, images.width, grad_out + plane * windows, taken + plane * windows,
                       [=](V dz, int64_t at, auto lanes) LTH_SPARSE_INLINE_LAMBDA { store(to + at, dz, lanes, streamed); });
      }
      stream_fence();
    });
  }

 private:
  /// Of what ReLU lets pass; `place` is which of the four it was, or 4.
  LTH_SPARSE_INLINE static V largest(V first, V second, V third, V fourth, V& place) {
    V best = first;
    place = V::zero();
    V::keep_larger(best, place, second, V::broadcast(1));
    V::keep_larger(best, place, third, V::broadcast(2));
    V::keep_larger(best, place, fourth, V::broadcast(3));
    place = place.where_passes(best, V::broadcast(4));
    return best.rectified();
  }
};
