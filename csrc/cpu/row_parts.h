// What all passes over images whose channels lie together share, for any vector type: the parts that threads take, and sums of
// each channel.
//
// Include like engine.h. Sums are float32 within a block that L2 holds, float64 beyond, and of fixed parts of the rows, so that
// their bits do not depend on the number of threads.

template <class V>
class RowParts {
 protected:
  static constexpr int64_t kBlockBytes = 64 << 10;  // of x, whose sums are float32
  static constexpr int64_t kMostParts = 64;
  static constexpr int kMany = 8, kSome = 4;

  /// Arrays of an element a channel, whole vectors of them.
  template <typename T>
  class PerChannel {
   public:
    PerChannel(int64_t arrays, int64_t channels)
        : padded_(ceil_div(channels, V::width) * V::width), data_(arena_.template take<T>(arrays * padded_)) {
      std::fill_n(data_, arrays * padded_, T(0));
    }
    T* operator[](int64_t array) const { return data_ + array * padded_; }

   private:
    Arena arena_;
    int64_t padded_;
    T* data_;
  };

  /// The same parts for both passes, so that a thread comes back to what its own caches hold.
  struct Parts {
    Parts(int64_t units, int64_t unit)
        : units(units), each(std::max(ceil_div(units, kMostParts), ceil_div(kBlockBytes, unit * int64_t{sizeof(float)}))),
          count(ceil_div(units, each)) {}
    int64_t units, each, count;
    int64_t begin(int64_t part) const { return part * each; }
    int64_t end(int64_t part) const { return std::min(units, (part + 1) * each); }
  };

  /// part(begin, end, first, second) adds each channel's sums over these units to two arrays; finish(channel, sums) has those
  /// over all of them.
  template <class Part, class Finish>
  static void sum(int64_t channels, const Parts& parts, const Parallel& parallel, const Part& part, const Finish& finish) {
    const PerChannel<double> sums(2 * parts.count, channels);
    parallel(parts.count, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) part(parts.begin(p), parts.end(p), sums[2 * p], sums[2 * p + 1]);
    });
    constexpr int64_t kRun = 64;
    parallel(ceil_div(channels, kRun), [&](int64_t begin, int64_t end) {
      for (int64_t first = begin * kRun; first < std::min(channels, end * kRun); first += kRun) {
        const int64_t count = std::min(kRun, channels - first);
        ChannelSums all[kRun];
        for (int64_t p = 0; p < parts.count; ++p)
          for (int64_t c = 0; c < count; ++c)
            all[c].first += sums[2 * p][first + c], all[c].second += sums[2 * p + 1][first + c];
        for (int64_t c = 0; c < count; ++c) finish(first + c, all[c]);
      }
    });
  }

  /// body(begin, end) for all units, those that a thread read last first.
  template <class Body>
  static void back_over(const Parts& parts, const Parallel& parallel, const Body& body) {
    parallel(parts.count, [&](int64_t begin, int64_t end) {
      for (int64_t part = end - 1; part >= begin; --part) body(parts.begin(part), parts.end(part));
      stream_fence();
    });
  }

  /// body(first channel, lanes, vectors) for some vectors of channels at a time, whose sums registers hold, or for one. The
  /// more there are, the longer the runs of memory that are read.
  template <class Body>
  LTH_SPARSE_INLINE static void each_vectors(int64_t channels, const Body& body) {
    int64_t c = 0;
    for (; c + kMany * V::width <= channels; c += kMany * V::width)
      body(c, Whole<V>(), std::integral_constant<int, kMany>());
    for (; c + kSome * V::width <= channels; c += kSome * V::width)
      body(c, Whole<V>(), std::integral_constant<int, kSome>());
    each_vector<V>(channels - c, [&](int64_t at, auto lanes) LTH_SPARSE_INLINE_LAMBDA {
      body(c + at, lanes, std::integral_constant<int, 1>());
    });
  }
};
