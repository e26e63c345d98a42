// BatchNorm (+ residual) (+ clamp) (+ max-pool) where the channels of a pixel lie together, for any vector type.
//
// Include like engine.h. Two passes over x: sums of its channels, then what follows from them. The second begins where the
// first ended, with what the caches still hold, in parts that are read upwards: the prefetcher does not follow downwards (1.2
// to 1.9 times slower).
//
// What the loops read is passed by value: through a reference it would be read again after every store of a vector, which may
// have changed it for all that the compiler knows.

template <class V>
class BatchNormRows : RowParts<V> {
 public:
  static void forward(const BatchNormForward& a, const Parallel& parallel) {
    if (a.norm.of_batch) statistics(a, parallel);
    const PerChannel<float> data(3, a.images.channels);
    const Constants constants = constants_of(a.norm, a.images.channels, data);
    if (a.taken != nullptr) normalise_and_pool(a, constants, parallel);
    else if (a.residual != nullptr) normalise<true>(a, constants, parallel);
    else normalise<false>(a, constants, parallel);
  }

  static void backward(const BatchNormBackward& a, const Parallel& parallel) {
    const int64_t channels = a.images.channels;
    const PerChannel<float> data(3, channels), of_terms(3, channels);
    const Constants constants = constants_of(a.norm, channels, data);
    const Terms terms{of_terms[0], of_terms[1], of_terms[2], a.norm.of_batch};
    if (a.taken != nullptr) {
      gradient_sums_of_pool(a, constants, terms, parallel);
      differentiate_pool(a, constants, terms, parallel);
    } else if (a.out != nullptr) {
      gradient_sums<true>(a, constants, terms, parallel);
      differentiate<true>(a, constants, terms, parallel);
    } else {
      gradient_sums<false>(a, constants, terms, parallel);
      differentiate<false>(a, constants, terms, parallel);
    }
  }

 private:
  using typename RowParts<V>::Parts;
  using RowParts<V>::kBlockBytes, RowParts<V>::sum, RowParts<V>::back_over, RowParts<V>::each_vectors;
  template <typename T>
  using PerChannel = typename RowParts<V>::template PerChannel<T>;

  struct Constants {
    const float *means, *scales, *biases;
    LTH_SPARSE_INLINE V mean(int64_t c) const { return V::load(means + c); }
    LTH_SPARSE_INLINE V z(V x, int64_t c) const {
      return V::load(biases + c).plus_product(x - mean(c), V::load(scales + c));
    }
  };

  static Constants constants_of(const BatchNorm& norm, int64_t channels, const PerChannel<float>& data) {
    for (int64_t c = 0; c < channels; ++c) {
      const Affine of = affine(norm, c);
      data[0][c] = of.mean, data[1][c] = of.scale, data[2][c] = of.bias;
    }
    return {data[0], data[1], data[2]};
  }

  struct Terms {
    float *of_gradient, *of_x, *constant;
    bool of_batch;
    void set(int64_t c, const GradientTerms& terms) const {
      of_gradient[c] = terms.of_gradient, of_x[c] = terms.of_x, constant[c] = terms.constant;
    }
    /// In evaluation mode x has no part in it, not even where it is infinite.
    LTH_SPARSE_INLINE V grad_x(V dz, V x, V mean, int64_t c) const {
      const V rest = of_batch ? V::load(constant + c).plus_product(x - mean, V::load(of_x + c)) : V::zero();
      return rest.plus_product(dz, V::load(of_gradient + c));
    }
  };

  static void statistics(const BatchNormForward& a, const Parallel& parallel) {
    const int64_t channels = a.images.channels, rows = a.images.count * a.images.pixels();
    const int64_t block = std::max<int64_t>(32, kBlockBytes / (channels * int64_t{sizeof(float)}) / 4 * 4);
    sum(
        channels, Parts(rows, channels), parallel,
        [&](int64_t begin, int64_t end, double* first, double* second) {
          for (int64_t row = begin; row < end; row += block)
            add_statistics(a.x + row * channels, channels, std::min(block, end - row), first, second);
        },
        [&](int64_t c, ChannelSums sums) { finish_statistics(a, c, sums); });
  }

  static void add_statistics(const float* x, int64_t channels, int64_t rows, double* first, double* second) {
    each_vectors(channels, [&](int64_t c, auto lanes, auto vectors) LTH_SPARSE_INLINE_LAMBDA {
      constexpr int kVectors = decltype(vectors)::value;
      const float* const from = x + c;
      V sums[kVectors], means[kVectors], squares[kVectors], rests[kVectors];
      for (int k = 0; k < kVectors; ++k) sums[k] = squares[k] = rests[k] = V::zero();
      for (int64_t row = 0; row < rows; ++row)
        for (int k = 0; k < kVectors; ++k) sums[k] = sums[k] + load<V>(from + row * channels + k * V::width, lanes);
      float of[4][kVectors * V::width];
      for (int k = 0; k < kVectors; ++k) sums[k].store(of[0] + k * V::width);
      for (int k = 0; k < kVectors * V::width; ++k) of[1][k] = of[0][k] / static_cast<float>(rows);
      for (int k = 0; k < kVectors; ++k) means[k] = V::load(of[1] + k * V::width);
      for (int64_t row = 0; row < rows; ++row)
        for (int k = 0; k < kVectors; ++k) {
          const V difference = load<V>(from + row * channels + k * V::width, lanes) - means[k];
          squares[k] = squares[k].plus_product(difference, difference);
          rests[k] = rests[k] + difference;
        }
      for (int k = 0; k < kVectors; ++k) squares[k].store(of[2] + k * V::width), rests[k].store(of[3] + k * V::width);
      for (int k = 0; k < (kVectors - 1) * V::width + lanes; ++k) {
        // What rounding took from the sum, the differences from its mean still have.
        const double sum = static_cast<double>(rows) * of[1][k] + of[3][k];
        first[c + k] += sum;
        second[c + k] += sum_of_squares(sum, of[1][k], of[2][k], static_cast<double>(rows));
      }
    });
  }

  template <bool Residual>
  static void normalise(const BatchNormForward& a, const Constants& constants, const Parallel& parallel) {
    const Clamping<V> clamping(a.clamp);
    const int64_t channels = a.images.channels, rows = a.images.count * a.images.pixels();
    const bool streamed = worth_streaming<V>(a.out, channels, rows * channels);
    back_over(Parts(rows, channels), parallel, [&](int64_t begin, int64_t end) {
      normalise_rows<Residual>(channels, begin, end, a.x, a.residual, constants, clamping, a.out, streamed);
    });
  }

  template <bool Residual>
  static void normalise_rows(int64_t channels, int64_t begin, int64_t end, const float* x, const float* residual,
                             Constants constants, const Clamping<V> clamping, float* out, bool streamed) {
    for (int64_t row = begin; row < end; ++row)
      each_vector<V>(channels, [&](int64_t c, auto lanes) LTH_SPARSE_INLINE_LAMBDA {
        const int64_t at = row * channels + c;
        V z = constants.z(load<V>(x + at, lanes), c);
        if constexpr (Residual) z = z + load<V>(residual + at, lanes);
        store(out + at, clamping.of(z), lanes, streamed);
      });
  }

  /// Pairs of rows of pixels of an image; of an odd number the last is one row.
  static int64_t row_pairs(const Images& images) { return images.height - images.height / 2; }

  static void normalise_and_pool(const BatchNormForward& a, const Constants& constants, const Parallel& parallel) {
    const Images& images = a.images;
    const int64_t row = images.width * images.channels, out_row = images.width / 2 * images.channels;
    const int64_t rows = images.height / 2;
    const bool streamed = worth_streaming<V>(a.out, images.channels, images.count * rows * out_row);
    back_over(Parts(images.count * rows, 2 * row), parallel, [&](int64_t begin, int64_t end) {
      const Constants k = constants;
      for (int64_t pair = begin; pair < end; ++pair)
        Pooling<V>::forward_rows(images.width, images.channels,
                                 a.x + (pair / rows * images.height + pair % rows * 2) * row, a.out + pair * out_row,
                                 a.taken + pair * out_row,
                                 [=](V x, int64_t c) LTH_SPARSE_INLINE_LAMBDA { return k.z(x, c); }, streamed);
    });
  }

  template <bool Residual>
  static void gradient_sums(const BatchNormBackward& a, const Constants& constants, const Terms& terms, const Parallel& parallel) {
    const int64_t channels = a.images.channels, rows = a.images.count * a.images.pixels();
    const int64_t block = std::max<int64_t>(32, kBlockBytes / (channels * int64_t{sizeof(float)}));
    sum(
        channels, Parts(rows, channels), parallel,
        [&](int64_t begin, int64_t end, double* first, double* second) {
          for (int64_t row = begin; row < end; row += block)
            add_gradients<Residual>(a, constants, row, std::min(end, row + block), first, second);
        },
        [&](int64_t c, ChannelSums sums) { terms.set(c, finish_gradients(a, c, sums)); });
  }

  template <bool Residual>
  static void add_gradients(const BatchNormBackward a, const Constants constants, int64_t begin, int64_t end,
                            double* first, double* second) {
    const int64_t channels = a.images.channels;
    const Clamping<V> clamping(a.clamp);
    each_vectors(channels, [&](int64_t first_channel, auto lanes, auto vectors) LTH_SPARSE_INLINE_LAMBDA {
      constexpr int kVectors = decltype(vectors)::value;
      V sums[kVectors], products[kVectors];
      for (int k = 0; k < kVectors; ++k) sums[k] = products[k] = V::zero();
      for (int64_t row = begin; row < end; ++row)
        for (int k = 0; k < kVectors; ++k) {
          const int64_t c = first_channel + k * V::width, at = row * channels + c;
          const V x = load<V>(a.x + at, lanes);
          const V dz = passing<Residual>(a, constants, clamping, x, at, c, lanes);
          if constexpr (Residual) store(a.grad_residual + at, dz, lanes, false);
          sums[k] = sums[k] + dz;
          products[k] = products[k].plus_product(dz, x - constants.mean(c));
        }
      float of[2][kVectors * V::width];
      for (int k = 0; k < kVectors; ++k) sums[k].store(of[0] + k * V::width), products[k].store(of[1] + k * V::width);
      for (int k = 0; k < (kVectors - 1) * V::width + lanes; ++k)
        first[first_channel + k] += of[0][k], second[first_channel + k] += of[1][k];
    });
  }

  /// The gradient that passes the clamp.
  template <bool Residual, class Lanes>
  LTH_SPARSE_INLINE static V passing(const BatchNormBackward& a, const Constants& constants, const Clamping<V>& clamping, V x,
                                     int64_t at, int64_t c, Lanes lanes) {
    V z;
    if constexpr (Residual) z = load<V>(a.out + at, lanes);
    else z = constants.z(x, c);
    return clamping.passing(load<V>(a.grad_out + at, lanes), z);
  }

  template <bool Residual>
  static void differentiate(const BatchNormBackward& a, const Constants& constants, const Terms& terms,
                            const Parallel& parallel) {
    const int64_t channels = a.images.channels, rows = a.images.count * a.images.pixels();
    const bool streamed = worth_streaming<V>(a.grad_x, channels, rows * channels);
    back_over(Parts(rows, channels), parallel, [&](int64_t begin, int64_t end) {
      differentiate_rows<Residual>(a, constants, terms, begin, end, streamed);
    });
  }

  template <bool Residual>
  static void differentiate_rows(const BatchNormBackward a, const Constants constants, const Terms terms, int64_t begin,
                                 int64_t end, bool streamed) {
    const int64_t channels = a.images.channels;
    const Clamping<V> clamping(a.clamp);
    for (int64_t row = begin; row < end; ++row)
      each_vector<V>(channels, [&](int64_t c, auto lanes) LTH_SPARSE_INLINE_LAMBDA {
        const int64_t at = row * channels + c;
        const V x = load<V>(a.x + at, lanes);
        V dz;
        if constexpr (Residual) dz = load<V>(a.grad_residual + at, lanes);
        else dz = passing<false>(a, constants, clamping, x, at, c, lanes);
        store(a.grad_x + at, terms.grad_x(dz, x, constants.mean(c), c), lanes, streamed);
      });
  }

  static void gradient_sums_of_pool(const BatchNormBackward& a, const Constants& constants, const Terms& terms,
                                    const Parallel& parallel) {
    const Images& images = a.images;
    const int64_t channels = images.channels, row = images.width * channels, rows = images.height / 2;
    const int64_t block = std::max<int64_t>(1, kBlockBytes / (2 * row * int64_t{sizeof(float)}));
    sum(
        channels, Parts(images.count * rows, 2 * row), parallel,
        [&](int64_t begin, int64_t end, double* first, double* second) {
          for (int64_t k = begin; k < end; k += block)
            add_gradients_of_pool(a, constants, k, std::min(end, k + block), first, second);
        },
        [&](int64_t c, ChannelSums sums) { terms.set(c, finish_gradients(a, c, sums)); });
  }

  static void add_gradients_of_pool(const BatchNormBackward a, const Constants constants, int64_t begin, int64_t end,
                                    double* first, double* second) {
    const Images& images = a.images;
    const int64_t channels = images.channels, row = images.width * channels, rows = images.height / 2;
    const int64_t windows = images.width / 2;
    const PerChannel<float> block(2, channels);
    float *const sums = block[0], *const products = block[1];
    for (int64_t k = begin; k < end; ++k)
      for (int64_t window = 0; window < windows; ++window)
        each_vector<V>(channels, [&](int64_t c, auto lanes) LTH_SPARSE_INLINE_LAMBDA {
          const int64_t from = (k * windows + window) * channels + c;
          const float* const x = a.x + (k / rows * images.height + k % rows * 2) * row + 2 * window * channels + c;
          const V dy = load<V>(a.grad_out + from, lanes), place = load_bytes<V>(a.taken + from, lanes);
          const V mean = constants.mean(c);
          V summed = V::load(sums + c), product = V::load(products + c);
          const int64_t taps[4] = {0, channels, row, row + channels};
          for (int tap = 0; tap < 4; ++tap) {
            const V dz = dy.where_equal(place, V::broadcast(static_cast<float>(tap)));
            summed = summed + dz;
            product = product.plus_product(dz, load<V>(x + taps[tap], lanes) - mean);
          }
          summed.store(sums + c);
          product.store(products + c);
        });
    for (int64_t c = 0; c < channels; ++c) first[c] += sums[c], second[c] += products[c];
  }

  static void differentiate_pool(const BatchNormBackward& a, const Constants& constants, const Terms& terms,
                                 const Parallel& parallel) {
    const Images& images = a.images;
    const int64_t channels = images.channels, row = images.width * channels, out_row = images.width / 2 * channels;
    const int64_t rows = images.height / 2, pairs = row_pairs(images);
    const bool streamed = worth_streaming<V>(a.grad_x, channels, images.count * images.image_step());
    back_over(Parts(images.count * pairs, 2 * row), parallel, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        const int64_t image = k / pairs, pair = k % pairs, at = (image * images.height + 2 * pair) * row;
        const int64_t from = (image * rows + pair) * out_row;
        differentiate_pair(a.x + at, pair < rows, images.width, channels, a.grad_out + from, a.taken + from, constants, terms,
                           a.grad_x + at, streamed);
      }
    });
  }

  static void differentiate_pair(const float* x, bool paired, int64_t width, int64_t channels, const float* grad_out,
                                 const uint8_t* taken, Constants constants, Terms terms, float* grad_x, bool streamed) {
    Pooling<V>::backward_rows(width, channels, paired, grad_out, taken,
                              [=](V dz, int64_t pixel, int64_t c, auto lanes) LTH_SPARSE_INLINE_LAMBDA {
                                const V value = load<V>(x + pixel + c, lanes);
                                store(grad_x + pixel + c, terms.grad_x(dz, value, constants.mean(c), c), lanes, streamed);
                              });
  }
};
