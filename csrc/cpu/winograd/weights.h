// Between live weights and the transformed weights of W output and W input channels at a time.
//
// Include like ../engine.h, after transforms.h.

/// Through the rows of up to W output channels, from W input channels to the next.
template <class V>
class WeightRows {
  static constexpr int W = V::width;
  static constexpr int kTaps = 9;

 public:
  /// Starts at `first_channel`.
  WeightRows(const SparseRows& rows, int64_t first_row, int64_t first_channel)
      : columns_(rows.columns), count_(std::min<int64_t>(W, rows.rows - first_row)) {
    damaged_ = !rows.offsets_ascend(first_row, first_row + count_);
    if (damaged_) count_ = 0;
    const int64_t row_size = rows.columns_per_group;
    for (int64_t k = 0; k < count_; ++k) {
      const int32_t begin = rows.row_offsets[first_row + k], end = rows.row_offsets[first_row + k + 1];
      damaged_ |= begin < end && (columns_[begin] < 0 || columns_[end - 1] >= row_size);
      at_[k] = first_of(begin, end, static_cast<int32_t>(first_channel * kTaps), row_size);
      end_[k] = end;
    }
  }

  /// Whether all W x W x taps weights of channels [first_channel, first_channel + W) live: then they lie one after the other.
  bool full(int64_t first_channel) const {
    bool all = count_ == W;
    for (int64_t k = 0; k < count_ && all; ++k)
      all = end_[k] - at_[k] >= W * kTaps && columns_[at_[k]] == first_channel * kTaps &&
            columns_[at_[k] + W * kTaps - 1] == first_channel * kTaps + W * kTaps - 1;
    return all;
  }
  /// take(row, its first entry) where they do.
  template <class Take>
  LTH_SPARSE_INLINE void for_each_row(const Take& take) {
    for (int k = 0; k < W; ++k) {
      take(k, at_[k]);
      at_[k] += W * kTaps;
    }
  }

  /// take(row, entry, channel * taps + tap) for the live weights of channels [first_channel, first_channel + W).
  template <class Take>
  LTH_SPARSE_INLINE void for_each(int64_t first_channel, const Take& take) {
    const int32_t first = static_cast<int32_t>(first_channel * kTaps), last = first + W * kTaps;
    for (int64_t k = 0; k < count_; ++k) {
      int32_t entry = at_[k];
      for (; entry < end_[k] && columns_[entry] < last; ++entry) {
        const int32_t column = columns_[entry] - first;
        if (column < 0) {
          damaged_ = true;
          break;
        }
        take(static_cast<int>(k), entry, column);
      }
      at_[k] = entry;
    }
  }

  /// Whether offsets and columns were not those of a mask, so far as they were gone through.
  bool damaged() const { return damaged_; }
  /// The same when all channels were: no row has any left.
  bool damaged_at_end() const { return damaged_ || !std::equal(at_, at_ + count_, end_); }

 private:
  /// The first entry of [begin, end) whose column is not below `column`: about where a row of evenly spread columns has it.
  int32_t first_of(int32_t begin, int32_t end, int32_t column, int64_t row_size) const {
    const int32_t guess = begin + static_cast<int32_t>(static_cast<int64_t>(end - begin) * column / row_size);
    int32_t step = 8, low = guess, high = guess;
    while (low > begin && columns_[low - 1] >= column) low = std::max(begin, low - step), step *= 2;
    while (high < end && columns_[high] < column) high = std::min(end, high + step), step *= 2;
    return static_cast<int32_t>(std::lower_bound(columns_ + low, columns_ + high, column) - columns_);
  }

  const int32_t* columns_;
  int64_t count_;
  bool damaged_;
  int32_t at_[W], end_[W];
};

template <class V, int M>
class Weights {
  using T = typename V::Element;
  static constexpr int W = V::width, A = M + 2, kTaps = 9;

 public:
  /// Floats of `square`.
  static constexpr int kSquare = kTaps * W * W;

  /// One vector of output channels for each of W input channels at each point: at to + point * point_step + channel *
  /// channel_step. For grad_input the channels change places and the kernel is turned by half.
  static void transform(WeightRows<V>& rows, int64_t first_channel, bool transposed, const T* values, T* square, T* to,
                        int64_t step, int64_t channel_step) {
    if (rows.full(first_channel))
      transposed ? take_full_transposed(rows, values, square) : take_full(rows, values, square);
    else
      take_live(rows, first_channel, transposed, values, square);
    for (int c = 0; c < W; ++c)
      both<3, A, V>([&](int i, int j) LTH_SPARSE_INLINE_LAMBDA { return V::load(square + (c * kTaps + i * 3 + j) * W); },
                    [](const V(&g)[3], V(&u)[A]) LTH_SPARSE_INLINE_LAMBDA { Transform<V, M>::weight(g, u); },
                    [&](int i, int j, V u) LTH_SPARSE_INLINE_LAMBDA { u.store(to + (i * A + j) * step + c * channel_step); });
  }

 private:
  /// square[input channel][tap][output channel].
  static void take_live(WeightRows<V>& rows, int64_t first_channel, bool transposed, const T* values, T* square) {
    std::fill_n(square, kSquare, T(0));
    if (transposed) {
      int32_t place[W * kTaps];  // of each column
      for (int column = 0; column < W * kTaps; ++column)
        place[column] = (kTaps - 1 - column % kTaps) * W + column / kTaps;
      rows.for_each(first_channel, [&](int row, int32_t entry, int32_t column) {
        square[row * kTaps * W + place[column]] = values[entry];
      });
    } else {
      rows.for_each(first_channel,
                    [&](int row, int32_t entry, int32_t column) { square[column * W + row] = values[entry]; });
    }
  }

  static void take_full(WeightRows<V>& rows, const T* values, T* square) {
    const T* from[W];
    rows.for_each_row([&](int row, int32_t entry) { from[row] = values + entry; });
    for (int column = 0; column < W * kTaps; column += W) {
      V lanes[W];
      LTH_SPARSE_UNROLL
      for (int row = 0; row < W; ++row) lanes[row] = V::load(from[row] + column);
      V::transpose(lanes);
      LTH_SPARSE_UNROLL
      for (int k = 0; k < W; ++k) lanes[k].store(square + (column + k) * W);
    }
  }

  static void take_full_transposed(WeightRows<V>& rows, const T* values, T* square) {
    rows.for_each_row([&](int row, int32_t entry) {
      T* const to = square + row * kTaps * W;
      for (int channel = 0; channel < W; ++channel)
        LTH_SPARSE_UNROLL
        for (int tap = 0; tap < kTaps; ++tap) to[(kTaps - 1 - tap) * W + channel] = values[entry + channel * kTaps + tap];
    });
  }

 public:
  /// The way back for gradients: sums at from + part * part_step + point * point_step + channel * W, added over the parts, to
  /// the gradients of the live weights; `add` to what is there.
  static void gather(WeightRows<V>& rows, int64_t first_channel, const T* from, int64_t parts, int64_t part_step,
                     int64_t step, T* square, T* grad_values, bool add) {
    for (int c = 0; c < W; ++c)
      both<A, 3, V>(
          [&](int i, int j) LTH_SPARSE_INLINE_LAMBDA {
            const T* const at = from + (i * A + j) * step + c * W;
            V sum = V::load(at);
            for (int64_t part = 1; part < parts; ++part) sum = sum + V::load(at + part * part_step);
            return sum;
          },
          [](const V(&u)[A], V(&g)[3]) LTH_SPARSE_INLINE_LAMBDA { Transform<V, M>::weight_gradient(u, g); },
          [&](int i, int j, V g) LTH_SPARSE_INLINE_LAMBDA { g.store(square + (c * kTaps + i * 3 + j) * W); });
    rows.for_each(first_channel, [&](int row, int32_t entry, int32_t column) {
      const T gradient = square[column * W + row];
      grad_values[entry] = add ? grad_values[entry] + gradient : gradient;
    });
  }
};
