// Depthwise convolutions where the channels of a pixel lie together, for any vector type.
//
// Include like ../engine.h, after ../each_vector.h. A block of 2 x 2 outputs is computed for all channels at once, so that
// memory is read and written in the order in which it lies. The block sees a grid of pixels, each loaded once and multiplied
// into every output that it belongs to:
//
//     forward, and grad_input of stride 1 (whose weights are turned by half)     stride + K pixels along a side
//     grad_input of stride 2                                                     (K + 1) / 2 pixels of grad_out
//
// Pixels outside the image are a row of zeros that is kept for them: every block takes the same way. grad_weight sees the
// same grid, and adds to a table [tap][channel] of its part of the pixels. The parts are a matter of the sizes alone, and
// their tables are added in their order: no bit depends on the number of threads.

template <class V, int K, int S, bool Transposed>
class DepthwiseRows {
  static constexpr int W = V::width;
  static constexpr int G = Transposed ? (K + 1) / 2 : S + K;  // pixels along a side of the grid

 public:
  /// `weights`: [tap][channels of whole vectors].
  static void correlate(const DepthwisePass& pass, const Parallel& parallel) {
    const Axis rows = axis(pass, 0);
    const int64_t channels = pass.out.channels;
    const bool streamed = worth_streaming<V>(pass.y, channels, pass.out.count * pass.out.image_step());
    const int64_t each = std::max<int64_t>(1, kTask / (2 * pass.out.width * channels)), blocks = pass.out.count * rows.blocks;
    parallel(ceil_div(blocks, each), [&](int64_t begin, int64_t end) {
      const float* const zeros = row_of_zeros(channels);
      for (int64_t block = begin * each; block < std::min(blocks, end * each); ++block) {
        const int64_t image = block / rows.blocks;
        correlate_row(pass, pass.x + image * pass.in.image_step(), block % rows.blocks, zeros,
                      pass.y + image * pass.out.image_step(), streamed);
      }
      stream_fence();
    });
  }

  /// The same for the only image of a pass.
  static void correlate_image(const DepthwisePass& pass) {
    const float* const zeros = row_of_zeros(pass.out.channels);
    for (int64_t row = 0; row < axis(pass, 0).blocks; ++row) correlate_row(pass, pass.x, row, zeros, pass.y, false);
  }

  /// Adds to the sums, [tap][channels of whole vectors], what the only image of a pass adds.
  static void add_image(const DepthwisePass& pass, const float* grad_out, float* sums) {
    const float* const zeros = row_of_zeros(pass.out.channels);
    for (int64_t row = 0; row < pass.out.height; row += 2) add_row(pass, grad_out, 0, row, zeros, sums);
  }

  /// sums: [tap][channels of whole vectors], of x times grad_out.
  static void grad_weight(const DepthwisePass& pass, const float* grad_out, float* sums, const Parallel& parallel) {
    static_assert(!Transposed);
    const Axis rows = axis(pass, 0);
    const int64_t channels = pass.out.channels, steps = pass.tap_step, table = K * K * steps;
    const int64_t blocks = pass.out.count * rows.blocks;
    const int64_t parts = std::min({kMostParts, blocks, 1 + pass.out.count * pass.out.pixels() / kPixelsOfAPart});
    static thread_local Arena shared;
    float* const tables = shared.take<float>(parts * table);
    parallel(parts, [&](int64_t begin, int64_t end) {
      const float* const zeros = row_of_zeros(channels);
      for (int64_t part = begin; part < end; ++part) {
        float* const own = tables + part * table;
        std::fill_n(own, table, 0.0f);
        for (int64_t block = part * blocks / parts; block < (part + 1) * blocks / parts; ++block)
          add_row(pass, grad_out, block / rows.blocks, 2 * (block % rows.blocks), zeros, own);
      }
    });
    parallel(ceil_div(channels, W), [&](int64_t begin, int64_t end) {
      for (int64_t tap = 0; tap < K * K; ++tap)
        for (int64_t at = tap * steps + begin * W; at < tap * steps + end * W; ++at) {
          double sum = 0;
          for (int64_t part = 0; part < parts; ++part) sum += tables[part * table + at];
          sums[at] = static_cast<float>(sum);
        }
    });
  }

 private:
  static constexpr int64_t kTask = 8192;  // outputs
  static constexpr int64_t kMostParts = 64;
  static constexpr int64_t kPixelsOfAPart = 64;

  /// Where blocks begin along a dimension, among outputs and in the grid.
  struct Axis {
    int64_t blocks, first_out, first_in;
    int64_t out_at(int64_t block) const { return first_out + 2 * block; }
    int64_t in_at(int64_t block) const { return first_in + (Transposed ? 1 : 2 * S) * block; }
  };

  static Axis axis(const DepthwisePass& pass, int dimension) {
    const int64_t size = dimension == 0 ? pass.out.height : pass.out.width, padding = pass.padding[dimension];
    if constexpr (!Transposed) return {ceil_div(size, 2), 0, -padding};
    // Outputs 2 t - padding and the one after it see grad_out up to t.
    const int64_t first = -(padding % 2);
    return {ceil_div(size - first, 2), first, padding / 2 - (G - 1)};
  }

  /// The kernel's place along a dimension by which a pixel of the grid belongs to an output; outside [0, K) if it does not.
  static constexpr int place(int output, int at) { return Transposed ? output + 2 * (G - 1 - at) : at - output * S; }
  static constexpr bool within(int place) { return place >= 0 && place < K; }

  template <class Element>
  LTH_SPARSE_INLINE static Element* pixel(const Images& images, Element* image, int64_t row, int64_t column) {
    const bool inside = row >= 0 && row < images.height && column >= 0 && column < images.width;
    return inside ? image + (row * images.width + column) * images.channels : nullptr;
  }

  static const float* row_of_zeros(int64_t channels) {
    static thread_local Arena arena;
    float* const zeros = arena.take<float>(channels);
    std::fill_n(zeros, channels, 0.0f);
    return zeros;
  }

  template <int Size>
  struct GridOf {
    LTH_SPARSE_INLINE GridOf(const Images& images, const float* image, int64_t row, int64_t column, const float* zeros) {
      if (row >= 0 && column >= 0 && row + Size <= images.height && column + Size <= images.width) {
        const float* const first = image + (row * images.width + column) * images.channels;
        for (int g = 0; g < Size; ++g)
          for (int h = 0; h < Size; ++h) pixels[g][h] = first + (g * images.width + h) * images.channels;
        return;
      }
      for (int g = 0; g < Size; ++g)
        for (int h = 0; h < Size; ++h) {
          const float* const inside = pixel(images, image, row + g, column + h);
          pixels[g][h] = inside == nullptr ? zeros : inside;
        }
    }
    const float* pixels[Size][Size];
  };
  using Grid = GridOf<G>;

  /// Two rows of outputs.
  static void correlate_row(const DepthwisePass& pass, const float* x, int64_t block, const float* zeros, float* y, bool streamed) {
    const Axis rows = axis(pass, 0), columns = axis(pass, 1);
    for (int64_t column = 0; column < columns.blocks; ++column) {
      const Grid grid(pass.in, x, rows.in_at(block), columns.in_at(column), zeros);
      float* outputs[2][2];
      for (int a = 0; a < 2; ++a)
        for (int b = 0; b < 2; ++b) outputs[a][b] = pixel(pass.out, y, rows.out_at(block) + a, columns.out_at(column) + b);
      pass.relu ? correlate_block<true>(grid, pass.weights, pass.tap_step, pass.bias, pass.out.channels, outputs, streamed)
                : correlate_block<false>(grid, pass.weights, pass.tap_step, pass.bias, pass.out.channels, outputs, streamed);
    }
  }

  template <bool Relu>
  static void correlate_block(const Grid& grid, const float* weights, int64_t steps, const float* bias, int64_t channels,
                              float* const (&outputs)[2][2], bool streamed) {
    each_vector<V>(channels, [&](int64_t c, auto lanes) LTH_SPARSE_INLINE_LAMBDA {
      const V start = bias == nullptr ? V::zero() : load<V>(bias + c, lanes);
      V sums[2][2] = {{start, start}, {start, start}};
      LTH_SPARSE_UNROLL
      for (int g = 0; g < G; ++g) {
        LTH_SPARSE_UNROLL
        for (int h = 0; h < G; ++h) {
          const V x = load<V>(grid.pixels[g][h] + c, lanes);
          LTH_SPARSE_UNROLL
          for (int a = 0; a < 2; ++a) {
            LTH_SPARSE_UNROLL
            for (int b = 0; b < 2; ++b)
              if (within(place(a, g)) && within(place(b, h)))
                sums[a][b] = sums[a][b].plus_product(x, V::load(weights + (place(a, g) * K + place(b, h)) * steps + c));
          }
        }
      }
      LTH_SPARSE_UNROLL
      for (int a = 0; a < 2; ++a) {
        LTH_SPARSE_UNROLL
        for (int b = 0; b < 2; ++b)
          if (outputs[a][b] != nullptr) store(outputs[a][b] + c, Relu ? sums[a][b].rectified() : sums[a][b], lanes, streamed);
      }
    });
  }

  /// Adds the products of two rows of outputs, or of the last one.
  static void add_row(const DepthwisePass& pass, const float* grad_out, int64_t image, int64_t row, const float* zeros,
                      float* sums) {
    const float* const x = pass.x + image * pass.in.image_step();
    const float* const gradients = grad_out + image * pass.out.image_step();
    const int64_t height = std::min<int64_t>(2, pass.out.height - row), width = pass.out.width;
    int64_t column = 0;
    if (height == 2)
      for (; column + 2 <= width; column += 2) add_block<2>(pass, x, gradients, row, column, zeros, sums, pass.tap_step);
    for (; column < width; ++column)
      for (int64_t r = row; r < row + height; ++r) add_block<1>(pass, x, gradients, r, column, zeros, sums, pass.tap_step);
  }

  /// `Side` x `Side` outputs: what does not exist must not be multiplied as 0, for x may be infinite.
  template <int Side>
  static void add_block(const DepthwisePass& pass, const float* x, const float* gradients, int64_t row, int64_t column,
                        const float* zeros, float* sums, int64_t steps) {
    constexpr int Size = (Side - 1) * S + K;
    const GridOf<Size> grid(pass.in, x, row * S - pass.padding[0], column * S - pass.padding[1], zeros);
    const float* gradient[Side][Side];
    for (int a = 0; a < Side; ++a)
      for (int b = 0; b < Side; ++b) gradient[a][b] = pixel(pass.out, gradients, row + a, column + b);
    each_vector<V>(pass.out.channels, [&](int64_t c, auto lanes) LTH_SPARSE_INLINE_LAMBDA {
      V of_outputs[Side][Side], of_taps[K][K];
      LTH_SPARSE_UNROLL
      for (int a = 0; a < Side; ++a) {
        LTH_SPARSE_UNROLL
        for (int b = 0; b < Side; ++b) of_outputs[a][b] = load<V>(gradient[a][b] + c, lanes);
      }
      LTH_SPARSE_UNROLL
      for (int i = 0; i < K; ++i) {
        LTH_SPARSE_UNROLL
        for (int j = 0; j < K; ++j) of_taps[i][j] = V::load(sums + (i * K + j) * steps + c);
      }
      LTH_SPARSE_UNROLL
      for (int g = 0; g < Size; ++g) {
        LTH_SPARSE_UNROLL
        for (int h = 0; h < Size; ++h) {
          const V pixels = load<V>(grid.pixels[g][h] + c, lanes);
          LTH_SPARSE_UNROLL
          for (int a = 0; a < Side; ++a) {
            LTH_SPARSE_UNROLL
            for (int b = 0; b < Side; ++b)
              if (within(place(a, g)) && within(place(b, h)))
                of_taps[place(a, g)][place(b, h)] = of_taps[place(a, g)][place(b, h)].plus_product(pixels, of_outputs[a][b]);
          }
        }
      }
      LTH_SPARSE_UNROLL
      for (int i = 0; i < K; ++i) {
        LTH_SPARSE_UNROLL
        for (int j = 0; j < K; ++j) of_taps[i][j].store(sums + (i * K + j) * steps + c);
      }
    });
  }
};
