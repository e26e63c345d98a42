// ReLU's gradient and the sums of it over each channel, which are the gradient of a bias before it, for any vector type.
//
// Include like engine.h. Each tensor is moved once, where masking and summing one after the other read the gradient again: two
// reads and a write bound it.

template <class V>
class Rectification : RowParts<V> {
 public:
  /// grad_x: grad_out where `out`, what ReLU gave, is above 0 or NaN; else 0. sums: [channels], of grad_x.
  static void backward(const Images& images, const float* out, const float* grad_out, float* grad_x, float* sums,
                       const Parallel& parallel) {
    const int64_t run = images.channels_last ? images.channels : images.pixels();
    const bool streamed = worth_streaming<V>(grad_x, run, images.count * images.image_step());
    const V least = V::zero(), none = V::broadcast(std::numeric_limits<float>::quiet_NaN());
    each_sum(images, sums, parallel, [=](int64_t at, auto lanes) LTH_SPARSE_INLINE_LAMBDA {
      const V passing = load<V>(grad_out + at, lanes).where_between(load<V>(out + at, lanes), least, none);
      store(grad_x + at, passing, lanes, streamed);
      return passing;
    });
  }

  /// sums: [channels], of what a pool after ReLU passes on. `images` are the pool's outputs, whose windows `taken` describes.
  static void sums_of_pooled(const Images& images, const float* grad_out, const uint8_t* taken, float* sums,
                             const Parallel& parallel) {
    const V below = V::broadcast(-1), nothing = V::broadcast(4);
    each_sum(images, sums, parallel, [=](int64_t at, auto lanes) LTH_SPARSE_INLINE_LAMBDA {
      return load<V>(grad_out + at, lanes).where_between(load_bytes<V>(taken + at, lanes), below, nothing);
    });
  }

 private:
  using typename RowParts<V>::Parts;
  using RowParts<V>::kBlockBytes, RowParts<V>::sum, RowParts<V>::each_vectors;
  static constexpr int64_t kPlanesOfATask = 4;
  static constexpr int64_t kRun = 4096;  // elements of a plane whose sum is float32

  /// Adds up gradient(offset, lanes) of all elements, channel by channel.
  template <class Gradient>
  static void each_sum(const Images& images, float* sums, const Parallel& parallel, const Gradient& gradient) {
    if (images.channels_last) of_rows(images, sums, parallel, gradient);
    else of_planes(images, sums, parallel, gradient);
  }

  template <class Gradient>
  static void of_rows(const Images& images, float* sums, const Parallel& parallel, const Gradient gradient) {
    const int64_t channels = images.channels, rows = images.count * images.pixels();
    const int64_t block = std::max<int64_t>(32, kBlockBytes / (channels * int64_t{sizeof(float)}));
    sum(
        channels, Parts(rows, channels), parallel,
        [&](int64_t begin, int64_t end, double* first, double*) {
          for (int64_t row = begin; row < end; row += block)
            add_rows(channels, row, std::min(end, row + block), first, gradient);
          stream_fence();
        },
        [&](int64_t c, ChannelSums all) { sums[c] = static_cast<float>(all.first); });
  }

  template <class Gradient>
  static void add_rows(int64_t channels, int64_t begin, int64_t end, double* sums, const Gradient gradient) {
    each_vectors(channels, [&](int64_t c, auto lanes, auto vectors) LTH_SPARSE_INLINE_LAMBDA {
      constexpr int kVectors = decltype(vectors)::value;
      V added[kVectors];
      for (int k = 0; k < kVectors; ++k) added[k] = V::zero();
      for (int64_t row = begin; row < end; ++row)
        for (int k = 0; k < kVectors; ++k) added[k] = added[k] + gradient(row * channels + c + k * V::width, lanes);
      float of[kVectors * V::width];
      for (int k = 0; k < kVectors; ++k) added[k].store(of + k * V::width);
      for (int k = 0; k < (kVectors - 1) * V::width + lanes; ++k) sums[c + k] += of[k];
    });
  }

  template <class Gradient>
  static void of_planes(const Images& images, float* sums, const Parallel& parallel, const Gradient gradient) {
    const int64_t pixels = images.pixels();
    parallel(ceil_div(images.channels, kPlanesOfATask), [&](int64_t begin, int64_t end) {
      const int64_t first = begin * kPlanesOfATask, last = std::min(images.channels, end * kPlanesOfATask);
      std::vector<double> all(last - first);
      for (int64_t image = 0; image < images.count; ++image)
        for (int64_t c = first; c < last; ++c)
          all[c - first] += sum_of_plane(image * images.image_step() + c * pixels, pixels, gradient);
      for (int64_t c = first; c < last; ++c) sums[c] = static_cast<float>(all[c - first]);
      stream_fence();
    });
  }

  template <class Gradient>
  LTH_SPARSE_INLINE static double sum_of_plane(int64_t plane, int64_t pixels, const Gradient& gradient) {
    double all = 0;
    for (int64_t run = 0; run < pixels; run += kRun) {
      V added = V::zero();
      each_vector<V>(std::min(kRun, pixels - run), [&](int64_t at, auto lanes) LTH_SPARSE_INLINE_LAMBDA {
        added = added + gradient(plane + run + at, lanes);
      });
      all += sum_of_lanes(added);
    }
    return all;
  }
};
