// How a matrix is shared among threads, and checked on the way.
//
// Include inside the target of an instruction set (../target.h), after every other header: the checks are compiled for it.

/// What any thread has found of a matrix that is not a mask's.
class Damage {
 public:
  /// Entries of a run.
  static constexpr int64_t kRun = 64;

  /// Whether the offsets of these rows can be followed.
  bool offsets_hold(const SparseRows& matrix, int64_t begin, int64_t end) {
    const bool hold = matrix.offsets_ascend(begin, end);
    if (!hold) mask_ = true;
    return hold;
  }

  /// Whether these entries have a place among the values.
  bool order_holds(const SparseRows& matrix, int64_t begin, int64_t end) {
    const bool holds = !any_outside(matrix.order, begin, end, matrix.nnz());
    if (!holds) order_ = true;
    return holds;
  }

  /// Calls `use(first, last)` for runs of the entries of a row, one after the other, whose columns are less than `limit`. Runs are
  /// short, so that the next is checked while this one is multiplied: row by row that took up to a third more. `beside` is what is
  /// read or written with the columns, in their order.
  template <class Beside, class Use>
  LTH_SPARSE_INLINE void for_each_run(const SparseRows& matrix, int64_t row, int64_t limit, const Beside* beside,
                                      const Use& use) {
    const int64_t end = matrix.row_offsets[row + 1];
    for (int64_t first = matrix.row_offsets[row]; first < end; first += kRun) {
      const int64_t last = std::min(first + kRun, end);
      if (any_outside(matrix.columns, first, last, limit)) {
        mask_ = true;
        return;
      }
      fetch(matrix.columns + first);
      fetch(beside + first);
      use(first, last);
    }
  }

  /// Throws std::runtime_error where there is any.
  void raise() const {
    if (mask_) throw std::runtime_error(kNoMask);
    if (order_) throw std::runtime_error(kNoOrder);
  }

 private:
  /// Asks for the elements of a run to come: beyond a page the processor does not foresee them. Where L3 held none of them, 8 rows
  /// of 4096 x 4096 took 1.4 times as long without. Nothing is read, so it may be beyond memory.
  template <class Element>
  LTH_SPARSE_INLINE static void fetch(const Element* run) {
    constexpr int64_t kAhead = 512, kLine = 64 / sizeof(Element);
    for (int64_t k = 0; k < kRun; k += kLine) __builtin_prefetch(run + kAhead + k);
  }

  std::atomic<bool> mask_{false}, order_{false};
};

/// The values of a run, by the numbers of their entries, as V's elements: converted where they are of another type.
template <class V, class E>
class Run {
  using T = typename V::Element;

 public:
  LTH_SPARSE_INLINE Run(const E* values, int64_t first, int64_t last) : first_(first) {
    if constexpr (std::is_same_v<E, T>) {
      values_ = values + first;
    } else {
      convert<V>(values + first, last - first, converted_);
      values_ = converted_;
    }
  }

  LTH_SPARSE_INLINE T operator[](int64_t entry) const { return values_[entry - first_]; }

 private:
  const int64_t first_;
  const T* values_;
  alignas(V) T converted_[std::is_same_v<E, T> ? 1 : Damage::kRun];
};

/// Calls `use(group, begin, end)` for ranges of rows that together are all, for each of `groups`, several at a time in threads. A
/// range begins at a multiple of `multiple`. Those of a single group take some microseconds. Of more groups, threads take whole
/// ones where that leaves none idle, for each thread has to bring a group's features into the lanes.
template <class Use>
void for_each_range(const SparseRows& matrix, int64_t multiple, int64_t groups, int64_t threads, Damage& damage,
                    const Parallel& parallel, const Use& use) {
  constexpr int64_t kEntries = 4096;
  const bool whole = groups % threads == 0 || groups >= 4 * threads;
  const int64_t wanted = groups == 1 ? matrix.nnz() / kEntries : whole ? 1 : ceil_div(4 * threads, groups);
  const int64_t rows = ceil_div(ceil_div(matrix.rows, std::max<int64_t>(1, wanted)), multiple) * multiple;
  const int64_t ranges = ceil_div(matrix.rows, rows);
  parallel(groups * ranges, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task % ranges * rows, last = std::min(first + rows, matrix.rows);
      if (damage.offsets_hold(matrix, first, last)) use(task / ranges, first, last);
    }
  });
  damage.raise();
}

/// Into how many parts the rows of a layer are cut, each of which adds its products to sums of its own, of `width` elements an input
/// feature. By the matrix alone, never by the number of threads: the same bits with any. To add the parts up is to be little beside
/// the rest.
inline int64_t parts_of(const LinearLayer& layer, int64_t width) {
  constexpr int64_t kEntriesOfAFeature = 8, kSums = int64_t{1} << 18, kFewest = 4, kMost = 16;
  const int64_t most = std::clamp(kSums / (layer.in_features * width), kFewest, kMost);
  return std::clamp<int64_t>(layer.weights.nnz() / (kEntriesOfAFeature * layer.in_features), 1, most);
}
