// Between tensors and scratch: what a task reads and writes, for any vector type.
//
// Include like engine.h, before it and after convert.h. Vectors of images are made by transposing in registers: W pixels
// (contiguous tensors) or W channels (channels_last ones) of W images at a time. So are vectors of pixels of channels_last
// tensors: W channels of W pixels. Where a tensor is too large for the caches to hold it until its next reader comes, whole
// lines are streamed past them. A tensor's elements E may be of another type than those of the vectors (element.h).

template <class V>
class Transfer {
  using T = typename V::Element;
  static constexpr int W = V::width;

 public:
  template <class E>
  static void load(const Images& images, const E* tensor, int64_t first_image, int64_t first_channel,
                   int64_t channels, const Blocking& blocking, const Placement& place, T* scratch) {
    const E* from = tensor + first_image * images.image_step() + first_channel * images.channel_step();
    const int64_t count = std::min(blocking.images(), images.count - first_image);
    if (blocking.lanes_are_pixels && images.channels_last)
      load_pixels_of_channels_last(images, from, channels, place, scratch);
    else if (blocking.lanes_are_pixels)
      load_pixels(images, from, channels, place, scratch);
    else if (images.channels_last)
      load_channels_last(images, from, count, channels, blocking.groups, place, scratch);
    else
      load_contiguous(images, from, count, channels, blocking.groups, place, scratch);
  }

  template <class E>
  static void store(const Images& images, E* tensor, int64_t first_image, int64_t first_channel, int64_t channels,
                    const Blocking& blocking, const Placement& place, const T* scratch, bool stream) {
    E* to = tensor + first_image * images.image_step() + first_channel * images.channel_step();
    const int64_t count = std::min(blocking.images(), images.count - first_image);
    if (blocking.lanes_are_pixels && images.channels_last)
      store_pixels_of_channels_last(images, to, channels, place, scratch);
    else if (blocking.lanes_are_pixels)
      store_pixels(images, to, channels, place, scratch);
    else if (images.channels_last)
      store_channels_last(images, to, count, channels, blocking.groups, place, scratch, stream);
    else
      store_contiguous(images, to, count, channels, blocking.groups, place, scratch, stream);
  }

  /// `run` elements of each of `count` images. Vectors that become shorter are no whole lines to stream.
  template <class E>
  static void store_rows(const V (&rows)[W], E* to, int64_t image_step, int count, int run, bool stream) {
    if constexpr (sizeof(E) == sizeof(T)) {
      constexpr uintptr_t line = W * sizeof(T);
      if (run == W && stream && reinterpret_cast<uintptr_t>(to) % line == 0 && image_step * sizeof(T) % line == 0) {
        for (int k = 0; k < count; ++k) rows[k].stream(to + k * image_step);
        return;
      }
    }
    if (run == W) {
      for (int k = 0; k < count; ++k) rows[k].store(to + k * image_step);
    } else {
      for (int k = 0; k < count; ++k) rows[k].store(to + k * image_step, run);
    }
  }

 private:
  /// Of planes from here to a page the next channel's pixels are asked for, which the processor does not foresee: 128 channels of
  /// 16 x 16 at 98 %, 9 % of a pass, at 90 % 3 %. Smaller planes gained nothing; of larger ones it put out of L1 what is used next.
  /// Where channels lie together, the next pixel's of half a kilobyte and more: of 128 channels at 98 % an eighth of a pass. Of
  /// images of one pixel, those of the next W images: 1 x 1, 256 to 64 channels of 56 x 56, an eighth too.
  static constexpr int64_t kKilobyte = 1024;

  static void zero_padding(const Placement& place, int64_t groups, T* plane) {
    for (const int32_t at : place.padding)
      for (int64_t g = 0; g < groups; ++g) V::zero().store(plane + at + g * W);
  }

  /// W pixels of W images at a time.
  template <class E>
  static void load_contiguous(const Images& images, const E* from, int64_t count, int64_t channels, int64_t groups,
                              const Placement& place, T* scratch) {
    const int64_t pixels = static_cast<int64_t>(place.position.size());
    const int64_t bytes = images.pixels() * static_cast<int64_t>(sizeof(E));
    const bool fetched = bytes >= kKilobyte && bytes < 4 * kKilobyte;
    for (int64_t channel = 0; channel < channels; ++channel) {
      T* const plane = scratch + channel * place.channel_step;
      zero_padding(place, groups, plane);
      for (int64_t g = 0; g < groups; ++g) {
        const E* const source = from + g * W * images.image_step() + channel * images.pixels() + place.first_pixel;
        const int here = static_cast<int>(std::clamp<int64_t>(count - g * W, 0, W));
        for (int64_t p = 0; p < pixels; p += W) {
          V rows[W];
          const int run = static_cast<int>(std::min<int64_t>(W, pixels - p));
          load_rows(source + p, images.image_step(), here, run, rows);
          if (fetched)
            for (int k = 0; k < here; ++k) __builtin_prefetch(source + p + images.pixels() + k * images.image_step());
          V::transpose(rows);
          for (int k = 0; k < run; ++k)
            if (place.position[p + k] >= 0) rows[k].store(plane + place.position[p + k] + g * W);
        }
      }
    }
  }

  /// W channels of W images at a time.
  template <class E>
  static void load_channels_last(const Images& images, const E* from, int64_t count, int64_t channels,
                                 int64_t groups, const Placement& place, T* scratch) {
    const int64_t pixels = static_cast<int64_t>(place.position.size());
    const bool fetched = images.channels * static_cast<int64_t>(sizeof(E)) >= kKilobyte / 2;
    const int64_t next = images.channels * (images.pixels() == 1 ? W : 1);
    for (int64_t channel = 0; channel < channels; ++channel)
      zero_padding(place, groups, scratch + channel * place.channel_step);
    for (int64_t g = 0; g < groups; ++g) {
      const int here = static_cast<int>(std::clamp<int64_t>(count - g * W, 0, W));
      for (int64_t p = 0; p < pixels; ++p) {
        if (place.position[p] < 0) continue;
        const E* const source =
            from + g * W * images.image_step() + (place.first_pixel + p) * images.channels;
        for (int64_t channel = 0; channel < channels; channel += W) {
          V rows[W];
          const int run = static_cast<int>(std::min<int64_t>(W, channels - channel));
          load_rows(source + channel, images.image_step(), here, run, rows);
          if (fetched)
            for (int k = 0; k < here; ++k) __builtin_prefetch(source + channel + next + k * images.image_step());
          V::transpose(rows);
          T* const to = scratch + channel * place.channel_step + place.position[p] + g * W;
          for (int k = 0; k < run; ++k) rows[k].store(to + k * place.channel_step);
        }
      }
    }
  }

  /// `run` elements of each of `count` images; zero where there are fewer than W of either.
  template <class E>
  static void load_rows(const E* from, int64_t image_step, int count, int run, V (&rows)[W]) {
    if (count == W && run == W) {
      for (int k = 0; k < W; ++k) rows[k] = V::load(from + k * image_step);
    } else {
      for (int k = 0; k < W; ++k) rows[k] = k < count ? V::load(from + k * image_step, run) : V::zero();
    }
  }

  template <class E>
  static void store_contiguous(const Images& images, E* to, int64_t count, int64_t channels, int64_t groups,
                               const Placement& place, const T* scratch, bool stream) {
    const int64_t pixels = static_cast<int64_t>(place.position.size());
    for (int64_t channel = 0; channel < channels; ++channel) {
      const T* const plane = scratch + channel * place.channel_step;
      for (int64_t g = 0; g < groups; ++g) {
        E* const target = to + g * W * images.image_step() + channel * images.pixels() + place.first_pixel;
        const int here = static_cast<int>(std::clamp<int64_t>(count - g * W, 0, W));
        for (int64_t p = 0; p < pixels; p += W) {
          V rows[W];
          const int run = static_cast<int>(std::min<int64_t>(W, pixels - p));
          for (int k = 0; k < run; ++k) rows[k] = V::load(plane + place.position[p + k] + g * W);
          for (int k = run; k < W; ++k) rows[k] = V::zero();
          V::transpose(rows);
          store_rows(rows, target + p, images.image_step(), here, run, stream);
        }
      }
    }
  }

  template <class E>
  static void store_channels_last(const Images& images, E* to, int64_t count, int64_t channels, int64_t groups,
                                  const Placement& place, const T* scratch, bool stream) {
    const int64_t pixels = static_cast<int64_t>(place.position.size());
    for (int64_t g = 0; g < groups; ++g) {
      const int here = static_cast<int>(std::clamp<int64_t>(count - g * W, 0, W));
      for (int64_t p = 0; p < pixels; ++p) {
        E* const target = to + g * W * images.image_step() + (place.first_pixel + p) * images.channels;
        for (int64_t channel = 0; channel < channels; channel += W) {
          V rows[W];
          const int run = static_cast<int>(std::min<int64_t>(W, channels - channel));
          const T* const source = scratch + channel * place.channel_step + place.position[p] + g * W;
          for (int k = 0; k < run; ++k) rows[k] = V::load(source + k * place.channel_step);
          for (int k = run; k < W; ++k) rows[k] = V::zero();
          V::transpose(rows);
          store_rows(rows, target + channel, images.image_step(), here, run, stream);
        }
      }
    }
  }

  static void zero_gaps(const Placement& place, T* plane) {
    for (const Run& gap : place.gaps) std::fill_n(plane + gap.scratch, gap.count, T(0));
  }

  /// W channels of W pixels at a time: a vector of channels becomes one of pixels.
  template <class E>
  static void load_pixels_of_channels_last(const Images& images, const E* from, int64_t channels,
                                           const Placement& place, T* scratch) {
    for (int64_t channel = 0; channel < channels; ++channel) zero_gaps(place, scratch + channel * place.channel_step);
    for (const Run& run : place.runs)
      for (int64_t p = 0; p < run.count; p += W) {
        const int pixels = static_cast<int>(std::min<int64_t>(W, run.count - p));
        const E* const source = from + (run.tensor + p * run.tensor_step) * images.channels;
        for (int64_t channel = 0; channel < channels; channel += W) {
          V rows[W];
          const int here = static_cast<int>(std::min<int64_t>(W, channels - channel));
          load_rows(source + channel, run.tensor_step * images.channels, pixels, here, rows);
          V::transpose(rows);
          T* const to = scratch + channel * place.channel_step + run.scratch + p;
          store_rows(rows, to, place.channel_step, here, pixels, false);
        }
      }
  }

  template <class E>
  static void store_pixels_of_channels_last(const Images& images, E* to, int64_t channels, const Placement& place,
                                            const T* scratch) {
    for (const Run& run : place.runs)
      for (int64_t p = 0; p < run.count; p += W) {
        const int pixels = static_cast<int>(std::min<int64_t>(W, run.count - p));
        E* const target = to + (run.tensor + p * run.tensor_step) * images.channels;
        for (int64_t channel = 0; channel < channels; channel += W) {
          V rows[W];
          const int here = static_cast<int>(std::min<int64_t>(W, channels - channel));
          load_rows(scratch + channel * place.channel_step + run.scratch + p, place.channel_step, here, pixels, rows);
          V::transpose(rows);
          store_rows(rows, target + channel, run.tensor_step * images.channels, pixels, here, false);
        }
      }
  }

  template <class E>
  static void load_pixels(const Images& images, const E* from, int64_t channels, const Placement& place,
                          T* scratch) {
    for (int64_t channel = 0; channel < channels; ++channel) {
      const E* const source = from + channel * images.pixels();
      T* const plane = scratch + channel * place.channel_step;
      zero_gaps(place, plane);
      for (const Run& run : place.runs) {
        const E* const s = source + run.tensor;
        T* const d = plane + run.scratch;
        if (run.tensor_step == 1)
          convert<V>(s, run.count, d);
        else
          for (int64_t k = 0; k < run.count; ++k) d[k] = s[k * run.tensor_step];
      }
    }
  }

  template <class E>
  static void store_pixels(const Images& images, E* to, int64_t channels, const Placement& place,
                           const T* scratch) {
    for (int64_t channel = 0; channel < channels; ++channel) {
      E* const target = to + channel * images.pixels();
      const T* const plane = scratch + channel * place.channel_step;
      for (const Run& run : place.runs) {
        E* const d = target + run.tensor;
        const T* const s = plane + run.scratch;
        if (run.tensor_step == 1)
          convert<V>(s, run.count, d);
        else
          for (int64_t k = 0; k < run.count; ++k) d[k * run.tensor_step] = E(s[k]);
      }
    }
  }
};
