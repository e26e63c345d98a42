// BatchNorm (+ residual) (+ clamp) (+ max-pool) where each channel is a plane, for any vector type.
//
// Include like engine.h. A task has a few channels of all images, for which it makes the sums, and then what follows from
// them, going back over the images with what the caches still hold.

template <class V>
class BatchNormPlanes {
 public:
  static void forward(const BatchNormForward& a, const Parallel& parallel) {
    each_task(a.images, parallel, [&](int64_t begin, int64_t end) {
      if (a.norm.of_batch) statistics(a, begin, end);
      if (a.taken != nullptr) normalise_and_pool(a, begin, end);
      else if (a.residual != nullptr) normalise<true>(a, begin, end);
      else normalise<false>(a, begin, end);
    });
  }

  static void backward(const BatchNormBackward& a, const Parallel& parallel) {
    each_task(a.images, parallel, [&](int64_t begin, int64_t end) {
      if (a.taken != nullptr) differentiate<Kind::kPool>(a, begin, end);
      else if (a.out != nullptr) differentiate<Kind::kResidual>(a, begin, end);
      else differentiate<Kind::kPlain>(a, begin, end);
    });
  }

 private:
  enum class Kind { kPlain, kResidual, kPool };
  static constexpr int64_t kTasks = 16;
  static constexpr int64_t kBlock = 1024;  // elements whose sums are float32, in whole planes

  struct Vectors {
    explicit Vectors(const Affine& of)
        : mean(V::broadcast(of.mean)), scale(V::broadcast(of.scale)), bias(V::broadcast(of.bias)) {}
    V mean, scale, bias;
    LTH_SPARSE_INLINE V z(V x) const { return bias.plus_product(x - mean, scale); }
  };

  template <class Body>
  static void each_task(const Images& images, const Parallel& parallel, const Body& body) {
    const int64_t each = ceil_div(images.channels, kTasks);
    parallel(ceil_div(images.channels, each), [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) body(k * each, std::min(images.channels, (k + 1) * each));
      stream_fence();
    });
  }

  /// body(offset of the plane, channel) for each plane of these channels, the last image first.
  template <class Body>
  static void each_plane(const Images& images, int64_t begin, int64_t end, const Body& body) {
    for (int64_t image = images.count - 1; image >= 0; --image)
      for (int64_t c = begin; c < end; ++c) body(image * images.image_step() + c * images.pixels(), c);
  }

  static void statistics(const BatchNormForward& a, int64_t begin, int64_t end) {
    const Images& images = a.images;
    const int64_t pixels = images.pixels(), block = std::max<int64_t>(1, kBlock / pixels);
    std::vector<ChannelSums> sums(end - begin);
    for (int64_t image = 0; image < images.count; image += block) {
      const int64_t count = std::min(block, images.count - image);
      for (int64_t c = begin; c < end; ++c)
        add_statistics(a.x + image * images.image_step() + c * pixels, images.image_step(), count, pixels, sums[c - begin]);
    }
    for (int64_t c = begin; c < end; ++c) finish_statistics(a, c, sums[c - begin]);
  }

  static void add_statistics(const float* x, int64_t step, int64_t count, int64_t pixels, ChannelSums& sums) {
    V added[4] = {V::zero(), V::zero(), V::zero(), V::zero()}, squares[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
    for (int64_t image = 0; image < count; ++image)
      each_of_four(pixels, [&](int64_t at, int k, auto lanes) LTH_SPARSE_INLINE_LAMBDA {
        added[k] = added[k] + load<V>(x + image * step + at, lanes);
      });
    const double n = static_cast<double>(count * pixels), sum = sum_of_lanes((added[0] + added[1]) + (added[2] + added[3]));
    const float rounded = static_cast<float>(sum / n);
    const V mean = V::broadcast(rounded);
    for (int64_t image = 0; image < count; ++image)
      each_of_four(pixels, [&](int64_t at, int k, auto lanes) LTH_SPARSE_INLINE_LAMBDA {
        const V difference = about(load<V>(x + image * step + at, lanes), mean, lanes);
        squares[k] = squares[k].plus_product(difference, difference);
      });
    const double about_mean = sum_of_lanes((squares[0] + squares[1]) + (squares[2] + squares[3]));
    sums.first += sum;
    sums.second += sum_of_squares(sum, rounded, about_mean, n);
  }

  /// 0 in lanes that hold no pixel.
  LTH_SPARSE_INLINE static V about(V x, V mean, Whole<V>) { return x - mean; }
  LTH_SPARSE_INLINE static V about(V x, V mean, int lanes) { return (x - mean).first_lanes(lanes); }

  /// body(offset, k, lanes) for each vector; k goes round, so that no sum waits for the one before.
  template <class Body>
  LTH_SPARSE_INLINE static void each_of_four(int64_t count, const Body& body) {
    int64_t at = 0;
    for (; at + 4 * V::width <= count; at += 4 * V::width) {
      body(at, 0, Whole<V>());
      body(at + V::width, 1, Whole<V>());
      body(at + 2 * V::width, 2, Whole<V>());
      body(at + 3 * V::width, 3, Whole<V>());
    }
    each_vector<V>(count - at, [&](int64_t offset, auto lanes) LTH_SPARSE_INLINE_LAMBDA { body(at + offset, 0, lanes); });
  }

  template <bool Residual>
  static void normalise(const BatchNormForward a, int64_t begin, int64_t end) {
    const Images& images = a.images;
    const bool streamed = worth_streaming<V>(a.out, images.pixels(), images.count * images.image_step());
    const Clamping<V> clamping(a.clamp);
    each_plane(images, begin, end, [&](int64_t plane, int64_t c) {
      const Vectors constants(affine(a.norm, c));
      each_vector<V>(images.pixels(), [&](int64_t at, auto lanes) LTH_SPARSE_INLINE_LAMBDA {
        V z = constants.z(load<V>(a.x + plane + at, lanes));
        if constexpr (Residual) z = z + load<V>(a.residual + plane + at, lanes);
        store(a.out + plane + at, clamping.of(z), lanes, streamed);
      });
    });
  }

  static int64_t windows(const Images& images) { return (images.height / 2) * (images.width / 2); }

  static void normalise_and_pool(const BatchNormForward a, int64_t begin, int64_t end) {
    const Images& images = a.images;
    each_plane(images, begin, end, [&](int64_t plane, int64_t c) {
      const Vectors constants(affine(a.norm, c));
      const int64_t to = plane / images.pixels() * windows(images);
      Pooling<V>::forward_plane(images.height, images.width, a.x + plane, a.out + to, a.taken + to,
                                [&](V x) LTH_SPARSE_INLINE_LAMBDA { return constants.z(x); });
    });
  }

  /// body(dz, x, offset, lanes) for each vector of a plane; dz is the gradient that passes the clamp.
  template <Kind kind, class Body>
  LTH_SPARSE_INLINE static void each_gradient(const BatchNormBackward& a, const Vectors& constants, int64_t plane,
                                              const Body& body) {
    const Images& images = a.images;
    if constexpr (kind == Kind::kPool) {
      const int64_t from = plane / images.pixels() * windows(images);
      Pooling<V>::backward_plane(images.height, images.width, a.grad_out + from, a.taken + from,
                                 [&](V dz, int64_t at, auto lanes) LTH_SPARSE_INLINE_LAMBDA {
                                   body(dz, load<V>(a.x + plane + at, lanes), plane + at, lanes);
                                 });
    } else {
      const Clamping<V> clamping(a.clamp);
      each_vector<V>(images.pixels(), [&](int64_t at, auto lanes) LTH_SPARSE_INLINE_LAMBDA {
        const V x = load<V>(a.x + plane + at, lanes), dy = load<V>(a.grad_out + plane + at, lanes);
        V z;
        if constexpr (kind == Kind::kResidual) z = load<V>(a.out + plane + at, lanes);
        else z = constants.z(x);
        body(clamping.passing(dy, z), x, plane + at, lanes);
      });
    }
  }

  template <Kind kind>
  static void differentiate(const BatchNormBackward a, int64_t begin, int64_t end) {
    const Images& images = a.images;
    std::vector<ChannelSums> sums(end - begin);
    const int64_t block = std::max<int64_t>(1, kBlock / images.pixels());
    for (int64_t image = 0; image < images.count; image += block)
      for (int64_t c = begin; c < end; ++c)
        add_gradients<kind>(a, c, image, std::min(images.count, image + block), sums[c - begin]);
    std::vector<GradientTerms> terms(end - begin);
    for (int64_t c = begin; c < end; ++c) terms[c - begin] = finish_gradients(a, c, sums[c - begin]);

    const int64_t run = kind == Kind::kPool ? images.width / 2 : images.pixels();
    const bool streamed = worth_streaming<V>(a.grad_x, run, images.count * images.image_step());
    const bool of_batch = a.norm.of_batch;
    each_plane(images, begin, end, [&](int64_t plane, int64_t c) {
      const Vectors constants(affine(a.norm, c));
      const GradientTerms& of = terms[c - begin];
      const V of_gradient = V::broadcast(of.of_gradient), of_x = V::broadcast(of.of_x), constant = V::broadcast(of.constant);
      // In evaluation mode x has no part in it, not even where it is infinite.
      each_gradient<kind>(a, constants, plane, [&](V dz, V x, int64_t at, auto lanes) LTH_SPARSE_INLINE_LAMBDA {
        const V rest = of_batch ? constant.plus_product(x - constants.mean, of_x) : V::zero();
        store(a.grad_x + at, rest.plus_product(dz, of_gradient), lanes, streamed);
      });
    });
  }

  /// And the residual's gradient, where there is one.
  template <Kind kind>
  static void add_gradients(const BatchNormBackward a, int64_t c, int64_t begin, int64_t end, ChannelSums& sums) {
    const Images& images = a.images;
    const Vectors constants(affine(a.norm, c));
    V summed = V::zero(), product = V::zero();
    for (int64_t image = begin; image < end; ++image)
      each_gradient<kind>(a, constants, image * images.image_step() + c * images.pixels(),
                          [&](V dz, V x, int64_t at, auto lanes) LTH_SPARSE_INLINE_LAMBDA {
                            if constexpr (kind == Kind::kResidual) store(a.grad_residual + at, dz, lanes, false);
                            summed = summed + dz;
                            product = product.plus_product(dz, x - constants.mean);
                          });
    sums.first += sum_of_lanes(summed);
    sums.second += sum_of_lanes(product);
  }
};
