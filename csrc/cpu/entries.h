// The live weights of a layer in the order in which the kernels consume them.
//
// The values change at every step and the offsets with the size of the images, so the list is made anew in each call:
// a few nanoseconds for a weight that is then used for every image and pixel.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "correlation.h"
#include "inline.h"
#include "parallel.h"
#include "scratch.h"
#include "stream.h"

namespace lth_sparse {

/// A live weight: where its operand lies relative to a tile, and its value or, for grad_weight, its place in the result.
template <typename T>
struct Entry {
  int32_t offset;
  T value;
};

// What an entry keeps. Not lambdas of the kernels: those are compiled for their instruction set, and a function that is
// not cannot inline them.

/// Its value, which a transposed matrix finds through its order.
template <typename T>
struct ValueOf {
  const T* values;
  const int32_t* order;  // or null
  int64_t nnz;

  T operator()(int32_t e) const { return values[order == nullptr ? e : order[e]]; }
  bool has(int32_t first, int32_t last) const { return order == nullptr || !any_outside(order, first, last, nnz); }
};

/// Its place among the values.
struct PlaceOf {
  int32_t operator()(int32_t e) const { return e; }
  bool has(int32_t, int32_t) const { return true; }
};

/// Entries in runs: those of (block of input channels, row) or, if asked for, of (block, row, clip).
///
/// The runs of (block, row) begin at its `starts`, one after the other, and the last ends where one more would begin. The
/// kernels go through a block row by row, so that is the order, but within a few rows only: so no thread needs to know how
/// many entries the rows of others have, and what it sorts stays in its caches. A matrix of 1 x 1 taps stays as it is, row
/// by row, for it has too few entries in a block to pay for sorting them.
template <typename T>
class Entries {
 public:
  /// `value(k)` gives what to keep of entry k of `matrix`. `offsets` is indexed by column. A column is a channel and one
  /// of `taps`; `clips`, of each tap, asks for runs of one clip each, and may be null. `shared`: every thread will read all
  /// of them, not only those that it lists.
  template <typename Value>
  Entries(const SparseRows& matrix, const std::vector<int32_t>& offsets, int64_t block_columns, int64_t taps,
          const std::vector<Clip>* clips, bool shared, const Value& value, const Parallel& parallel)
      : matrix_(matrix),
        offsets_(offsets),
        block_columns_(block_columns),
        blocks_(ceil_div(static_cast<int64_t>(offsets.size()), block_columns)),
        runs_(clips == nullptr ? 1 : kClips),
        row_by_row_(runs_ == 1 && (taps == 1 || blocks_ == 1)),
        row_step_((row_by_row_ ? blocks_ : 1) * (runs_ + 1)),
        block_step_((row_by_row_ ? 1 : matrix.rows) * (runs_ + 1)) {
    if (clips != nullptr)
      for (size_t column = 0; column < offsets.size(); column += taps)
        clip_of_column_.insert(clip_of_column_.end(), clips->begin(), clips->end());
    if (row_by_row_)
      for (int64_t block = 0; block < blocks_; ++block)
        block_of_column_.insert(block_of_column_.end(), block_columns, static_cast<int32_t>(block));
    static thread_local Arena starts_arena, entries_arena;
    int32_t* const starts = starts_arena.take<int32_t>(matrix.rows * blocks_ * (runs_ + 1));
    Entry<T>* const entries = entries_arena.take<Entry<T>>(matrix.nnz());
    starts_ = starts;
    entries_ = entries;
    // Rows of a task, all of a size.
    const int64_t entries_of_a_task = kInARow * (row_by_row_ ? 1 : blocks_);
    const int64_t most = std::max<int64_t>(1, entries_of_a_task * matrix.rows / std::max<int64_t>(1, matrix.nnz()));
    const int64_t few = ceil_div(matrix.rows, ceil_div(matrix.rows, most));
    const bool stream = shared && few < matrix.rows;
    std::atomic<bool> damaged = false, order_damaged = false;
    parallel(ceil_div(matrix.rows, few), [&](int64_t begin, int64_t end) {
      for (int64_t group = begin; group < end; ++group) {
        const Range rows{group * few, std::min((group + 1) * few, matrix.rows)};
        if (!matrix.offsets_ascend(rows.begin, rows.end)) damaged = true;
        else if (!value.has(matrix.row_offsets[rows.begin], matrix.row_offsets[rows.end])) order_damaged = true;
        else if (stream ? !list_and_stream(rows, value, starts, entries)
                        : !list(rows, value, starts + rows.begin * row_step_, block_step_, entries, 0)) damaged = true;
        if (damaged || order_damaged) break;
      }
      stream_fence();
    });
    if (damaged) throw std::runtime_error(kNoMask);
    if (order_damaged) throw std::runtime_error(kNoOrder);
  }

  const int32_t* starts(int64_t block, int64_t row) const { return starts_ + block * block_step_ + row * row_step_; }
  int64_t row_step() const { return row_step_; }
  /// Of a row in a block.
  int64_t runs() const { return runs_; }
  int32_t offset(int64_t k) const { return entries_[k].offset; }
  T value(int64_t k) const { return entries_[k].value; }
  /// Before the entries of a row of the matrix: nothing to do, they are ready.
  const Entries& of_row(int64_t) const { return *this; }

 private:
  /// Entries of a block that follow each other, in what one task lists: 8 KB, for with a quarter the processor fetched them
  /// too late.
  static constexpr int64_t kInARow = 1024;

  /// Of rows of the matrix.
  struct Range {
    int64_t begin, end;
    int64_t count() const { return end - begin; }
  };

  /// Lists them in memory of this thread's own first.
  template <typename Value>
  bool list_and_stream(const Range& rows, const Value& value, int32_t* starts, Entry<T>* entries) const {
    static thread_local Arena own_starts_arena, own_entries_arena;
    const int32_t first = matrix_.row_offsets[rows.begin], count = matrix_.row_offsets[rows.end] - first;
    const int64_t step = rows.count() * row_step_;
    int32_t* const own_starts = own_starts_arena.take<int32_t>(rows.count() * blocks_ * (runs_ + 1));
    Entry<T>* const own_entries = own_entries_arena.take<Entry<T>>(count);
    if (!list(rows, value, own_starts, step, own_entries, first)) return false;
    // Row by row the starts of all blocks lie together.
    for (int64_t block = 0; block < (row_by_row_ ? 1 : blocks_); ++block)
      stream_copy(starts + block * block_step_ + rows.begin * row_step_, own_starts + block * step, step * sizeof(int32_t));
    if (count > 0) stream_copy(entries + first, own_entries, count * sizeof(Entry<T>));
    return true;
  }

  /// `starts` begin with the first of the rows, `entries` with entry `origin` of the matrix; the rows' offsets ascend. False,
  /// and nothing outside the offsets and what is the rows' own is touched, if the columns are not a mask's.
  template <typename Value>
  bool list(const Range& rows, const Value& value, int32_t* starts, int64_t block_step, Entry<T>* entries,
            int32_t origin) const {
    if (row_by_row_) {
      for (int64_t row = 0; row < rows.count(); ++row)
        if (!copy(rows.begin + row, value, starts + row * row_step_, entries, origin)) return false;
      return true;
    }
    for (int64_t row = 0; row < rows.count(); ++row)
      if (!count(rows.begin + row, starts + row * row_step_, block_step)) return false;
    int32_t next = matrix_.row_offsets[rows.begin];
    for (int64_t block = 0; block < blocks_; ++block)
      for (int64_t row = 0; row < rows.count(); ++row) {
        int32_t* const of_row = starts + block * block_step + row * row_step_;
        of_row[0] = next;
        for (int64_t run = 1; run <= runs_; ++run) of_row[run] = next += of_row[run];
      }
    for (int64_t row = 0; row < rows.count(); ++row)
      sort(rows.begin + row, value, starts + row * row_step_, block_step, entries, origin);
    return true;
  }

  /// Calls `take` with each block in turn, the first entry of the row that no block has taken, and a condition that holds
  /// while an entry is in the block: columns ascend within a row. Returns whether all entries were taken.
  template <typename Take>
  LTH_SPARSE_INLINE bool for_each_block(int64_t row, const Take& take) const {
    const int64_t before = matrix_.columns_before(row), limit = matrix_.column_limit(static_cast<int64_t>(offsets_.size()));
    const int32_t* const columns = matrix_.columns;
    int32_t e = matrix_.row_offsets[row];
    const int32_t last = matrix_.row_offsets[row + 1];
    int64_t least = -before;
    for (int64_t block = 0; block < blocks_; ++block, least += block_columns_) {
      const int64_t first = std::max<int64_t>(least, 0), end = std::min(least + block_columns_, limit);
      take(block, e, [=](int32_t k) { return k < last && columns[k] >= first && columns[k] < end; });
    }
    return e == last;
  }

  /// A row whose order stays as it is. Each entry says where its block would end if it were the last: that is a store, where to
  /// ask whether a block ends here is a branch, mispredicted for each of them.
  template <typename Value>
  bool copy(int64_t row, const Value& value, int32_t* starts, Entry<T>* entries, int32_t origin) const {
    const int32_t first = matrix_.row_offsets[row], last = matrix_.row_offsets[row + 1];
    const int32_t* const columns = matrix_.columns;
    if (any_outside(columns, first, last, matrix_.column_limit(static_cast<int64_t>(offsets_.size())))) return false;
    const int64_t before = matrix_.columns_before(row);
    const int32_t* const offset_of = offsets_.data() + before;
    const int32_t* const block_of = block_of_column_.data() + before;
    std::fill_n(starts, row_step_, first);
    int32_t previous = 0;
    bool ascend = true;
    for (int32_t e = first; e < last; ++e) {
      entries[e - origin] = {offset_of[columns[e]], value(e)};
      const int32_t block = block_of[columns[e]];
      starts[2 * block + 1] = e + 1;
      ascend &= previous <= block;
      previous = block;
    }
    for (int64_t block = 1; block < blocks_; ++block) {
      starts[2 * block] = starts[2 * block - 1];
      starts[2 * block + 1] = std::max(starts[2 * block], starts[2 * block + 1]);
    }
    return ascend;
  }

  /// The number of entries of each run in a row, where its end will be.
  bool count(int64_t row, int32_t* starts, int64_t block_step) const {
    const int64_t before = matrix_.columns_before(row);
    const int32_t* const columns = matrix_.columns;
    const Clip* const clip_of = clip_of_column_.data();
    return for_each_block(row, [&](int64_t block, int32_t& e, const auto& in_block) {
      int32_t* const counts = starts + block * block_step + 1;
      if (runs_ == 1) {
        const int32_t first = e;
        while (in_block(e)) ++e;
        counts[0] = e - first;
      } else {
        std::fill_n(counts, kClips, 0);
        for (; in_block(e); ++e) ++counts[clip_of[before + columns[e]]];
      }
    });
  }

  /// The entries of a row to where its runs begin.
  template <typename Value>
  void sort(int64_t row, const Value& value, const int32_t* starts, int64_t block_step, Entry<T>* entries,
            int32_t origin) const {
    const int64_t before = matrix_.columns_before(row);
    const int32_t* const columns = matrix_.columns;
    const int32_t* const offset_of = offsets_.data();
    const Clip* const clip_of = clip_of_column_.data();
    int32_t e = matrix_.row_offsets[row];
    for (int64_t block = 0; block < blocks_; ++block) {
      const int32_t* const of_run = starts + block * block_step;
      const int32_t last = e + (of_run[runs_] - of_run[0]);
      if (runs_ == 1) {
        for (Entry<T>* to = entries + (of_run[0] - origin); e < last; ++e) *to++ = {offset_of[before + columns[e]], value(e)};
      } else {
        int32_t next[kClips];
        for (int run = 0; run < kClips; ++run) next[run] = of_run[run] - origin;
        for (; e < last; ++e) {
          const int64_t column = before + columns[e];
          entries[next[clip_of[column]]++] = {offset_of[column], value(e)};
        }
      }
    }
  }

  const SparseRows& matrix_;
  const std::vector<int32_t>& offsets_;
  const int64_t block_columns_, blocks_, runs_;
  const bool row_by_row_;
  const int64_t row_step_, block_step_;
  std::vector<Clip> clip_of_column_;
  std::vector<int32_t> block_of_column_;  // for rows that are copied; the last block may be shorter
  const int32_t* starts_;
  const Entry<T>* entries_;
};

/// The matrix as it is, looked up entry by entry: where each is used so seldom that to list it would cost more.
///
/// Stands for `Entries` of one block, not sorted by clip. `T` is int32_t for the places in the result.
template <typename T>
class Unlisted {
 public:
  /// `values` is null for the places in the result.
  Unlisted(const SparseRows& matrix, const std::vector<int32_t>& offsets, const T* values, const Parallel& parallel)
      : matrix_(matrix), values_(values), offsets_(offsets.data()) {
    const int64_t nnz = matrix.nnz();
    const int64_t limit = matrix.column_limit(static_cast<int64_t>(offsets.size()));
    std::atomic<bool> columns_damaged = !matrix.offsets_ascend(0, matrix.rows), order_damaged = false;
    // In a few large pieces: a check of a few microseconds is not worth a thread.
    constexpr int64_t kPiece = 32768;
    parallel(ceil_div(nnz, kPiece), [&](int64_t begin, int64_t end) {
      const int64_t last = std::min(end * kPiece, nnz);
      if (any_outside(matrix.columns, begin * kPiece, last, limit)) columns_damaged = true;
      if (matrix.order != nullptr && any_outside(matrix.order, begin * kPiece, last, nnz)) order_damaged = true;
    });
    if (columns_damaged) throw std::runtime_error(kNoMask);
    if (order_damaged) throw std::runtime_error(kNoOrder);
  }

  const int32_t* starts(int64_t, int64_t row) const { return matrix_.row_offsets + row; }
  int64_t row_step() const { return 1; }
  int64_t runs() const { return 1; }
  int32_t offset(int64_t k) const { return offsets_[matrix_.columns[k]]; }
  T value(int64_t k) const {
    if (values_ == nullptr) return static_cast<T>(k);
    return values_[matrix_.order == nullptr ? k : matrix_.order[k]];
  }
  Unlisted of_row(int64_t row) const {
    Unlisted result = *this;
    result.offsets_ += matrix_.columns_before(row);
    return result;
  }

 private:
  SparseRows matrix_;
  const T* values_;
  const int32_t* offsets_;
};

}  // namespace lth_sparse
