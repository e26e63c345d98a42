// Between tensors and the panels of 1 x 1 convolutions (panels.h), for any vector type.
//
// Include like engine.h, before it and after convert.h. Contiguous tensors are copied row by row, and where the stride is 2
// every other pixel of a row is; channels_last ones are transposed in registers, W channels of W pixels, which need not be
// neighbours. Pixels that no position sees are not read, and written as 0. A tensor's elements E may be of another type than
// those of the vectors (element.h).

template <class V>
class PanelTransfer {
  using T = typename V::Element;
  static constexpr int W = V::width;

 public:
  template <class E>
  static void load(const Images& images, const E* tensor, int64_t first_channel, int64_t channels, const Placement& place,
                   T* scratch) {
    const E* const from = tensor + first_channel * images.channel_step();
    if (images.channels_last)
      load_channels_last(images, from, channels, place, scratch);
    else
      load_contiguous(images, from, channels, place, scratch);
  }

  template <class E>
  static void store(const Images& images, E* tensor, int64_t first_channel, int64_t channels, const Placement& place,
                    const T* scratch, bool stream) {
    E* const to = tensor + first_channel * images.channel_step();
    if (images.channels_last)
      store_channels_last(images, to, channels, place, scratch, stream);
    else
      store_contiguous(images, to, channels, place, scratch);
  }

 private:
  /// Channels ahead of which strided rows are fetched: the processor does not know that half of them are left out, and waited
  /// for each. 1.5 times as fast (256 channels of 56 x 56), with 1 to 8 alike.
  static constexpr int64_t kAhead = 2;

  /// Where a row's first pixel lies in the first channel.
  static int64_t begin(const Images& images, const Placement& place, const PanelRow& row) {
    return row.image * images.image_step() +
           (row.row * place.stride[0] * images.width + row.column * place.stride[1]) * images.pixel_step();
  }
  /// The pixels from a row's first one to the next positions below and to the right, or to the image's edges.
  static int64_t height(const Images& images, const Placement& place, const PanelRow& row) {
    return std::min(place.stride[0], images.height - row.row * place.stride[0]);
  }
  static int64_t width(const Images& images, const Placement& place, const PanelRow& row) {
    return std::min(row.count * place.stride[1], images.width - row.column * place.stride[1]);
  }

  template <class E>
  static void load_contiguous(const Images& images, const E* tensor, int64_t channels, const Placement& place, T* scratch) {
    const int64_t step = place.stride[1], end = place.end();
    for (int64_t channel = 0; channel < channels; ++channel) {
      T* const plane = scratch + channel * place.channel_step;
      for (const PanelRow& row : place.rows) {
        const E* const from = tensor + begin(images, place, row) + channel * images.pixels();
        if (step > 1 && channel + kAhead < channels) prefetch(from + kAhead * images.pixels(), (row.count - 1) * step + 1);
        if (step == 1)
          convert<V>(from, row.count, plane + row.at);
        else if (step == 2)
          copy_every_other(from, row.count, plane + row.at);
        else
          for (int64_t k = 0; k < row.count; ++k) plane[row.at + k] = from[k * step];
      }
      std::fill(plane + end, plane + ceil_div(end, W) * W, T(0));
    }
  }

  template <class E>
  static void store_contiguous(const Images& images, E* tensor, int64_t channels, const Placement& place, const T* scratch) {
    for (int64_t channel = 0; channel < channels; ++channel)
      for (const PanelRow& row : place.rows) {
        const T* const from = scratch + channel * place.channel_step + row.at;
        E* const to = tensor + begin(images, place, row) + channel * images.pixels();
        const int64_t columns = width(images, place, row);
        if (place.stride[1] == 1)
          convert<V>(from, row.count, to);
        else if (place.stride[1] == 2)
          spread_by_two(from, columns, to);
        else
          for (int64_t k = 0; k < columns; ++k) to[k] = k % place.stride[1] == 0 ? E(from[k / place.stride[1]]) : E();
        for (int64_t k = 1; k < height(images, place, row); ++k) std::fill_n(to + k * images.width, columns, E());
      }
  }

  template <class E>
  static void prefetch(const E* from, int64_t count) {
    constexpr int64_t kLine = 64 / sizeof(E);
    for (int64_t k = 0; k < count; k += kLine) __builtin_prefetch(from + k);
    __builtin_prefetch(from + count - 1);
  }

  /// What follows the last element that is copied is not read: it may lie behind the tensor.
  template <class E>
  static void copy_every_other(const E* from, int64_t count, T* to) {
    V even, odd;
    int64_t k = 0;
    for (; k + W < count; k += W) {
      V::deinterleave(V::load(from + 2 * k), V::load(from + 2 * k + W), even, odd);
      even.store(to + k);
    }
    const int read = static_cast<int>(2 * (count - k) - 1);
    const V first = V::load(from + 2 * k, std::min(read, W));
    V::deinterleave(first, read > W ? V::load(from + 2 * k + W, read - W) : V::zero(), even, odd);
    store(even, to + k, static_cast<int>(count - k), false);
  }

  /// `count` elements: the next one of `from`, and 0, in turn.
  template <class E>
  static void spread_by_two(const T* from, int64_t count, E* to) {
    V a, b;
    int64_t k = 0;
    for (; k + 2 * W <= count; k += 2 * W) {
      V::interleave(V::load(from + k / 2), V::zero(), a, b);
      a.store(to + k);
      b.store(to + k + W);
    }
    if (const int left = static_cast<int>(count - k); left > 0) {
      V::interleave(V::load(from + k / 2, (left + 1) / 2), V::zero(), a, b);
      store(a, to + k, std::min(left, W), false);
      if (left > W) b.store(to + k + W, left - W);
    }
  }

  /// Where each position of a panel lies.
  static std::vector<int64_t> places(const Images& images, const Placement& place) {
    std::vector<int64_t> result;
    for (const PanelRow& row : place.rows)
      for (int64_t k = 0; k < row.count; ++k)
        result.push_back(begin(images, place, row) + k * place.stride[1] * images.channels);
    return result;
  }

  template <class E>
  static void load_channels_last(const Images& images, const E* tensor, int64_t channels, const Placement& place, T* scratch) {
    const std::vector<int64_t> at = places(images, place);
    const int64_t end = place.end();
    for (int64_t p = 0; p < end; p += W) {
      const int pixels = static_cast<int>(std::min<int64_t>(W, end - p));
      for (int64_t channel = 0; channel < channels; channel += W) {
        const int here = static_cast<int>(std::min<int64_t>(W, channels - channel));
        V rows[W];
        for (int k = 0; k < W; ++k) rows[k] = k < pixels ? V::load(tensor + at[p + k] + channel, here) : V::zero();
        V::transpose(rows);
        T* const to = scratch + channel * place.channel_step + p;
        for (int k = 0; k < here; ++k) rows[k].store(to + k * place.channel_step);
      }
    }
  }

  template <class E>
  static void store_channels_last(const Images& images, E* tensor, int64_t channels, const Placement& place, const T* scratch,
                                  bool stream) {
    const std::vector<int64_t> at = places(images, place);
    const int64_t end = place.end();
    for (int64_t p = 0; p < end; p += W) {
      const int pixels = static_cast<int>(std::min<int64_t>(W, end - p));
      for (int64_t channel = 0; channel < channels; channel += W) {
        const int here = static_cast<int>(std::min<int64_t>(W, channels - channel));
        const T* const from = scratch + channel * place.channel_step + p;
        V rows[W];
        for (int k = 0; k < W; ++k) rows[k] = k < here ? V::load(from + k * place.channel_step) : V::zero();
        V::transpose(rows);
        for (int k = 0; k < pixels; ++k) store(rows[k], tensor + at[p + k] + channel, here, stream);
      }
    }
    for (const PanelRow& row : place.rows)
      clear_between(images, tensor + begin(images, place, row), channels, place, row, stream);
  }

  template <class E>
  static void clear_between(const Images& images, E* first, int64_t channels, const Placement& place, const PanelRow& row,
                            bool stream) {
    for (int64_t y = 0; y < height(images, place, row); ++y)
      for (int64_t x = 0; x < width(images, place, row); ++x) {
        if (y == 0 && x % place.stride[1] == 0) continue;
        E* const pixel = first + (y * images.width + x) * images.channels;
        for (int64_t channel = 0; channel < channels; channel += W)
          store(V::zero(), pixel + channel, static_cast<int>(std::min<int64_t>(W, channels - channel)), stream);
      }
  }

  /// Not masked where it need not be: with whole rows of 28 so, grad_input of stride 2 took a quarter more.
  template <class E>
  static void store(V vector, E* to, int count, bool stream) {
    if (count < W) return vector.store(to, count);
    if constexpr (sizeof(E) == sizeof(T))
      if (stream && reinterpret_cast<uintptr_t>(to) % (W * sizeof(T)) == 0) return vector.stream(to);
    vector.store(to);
  }
};
