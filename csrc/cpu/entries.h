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
#include "parallel.h"
#include "scratch.h"

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

  T operator()(int32_t e) const {
    if (order == nullptr) return values[e];
    const int32_t place = order[e];
    if (place < 0 || place >= nnz) throw std::runtime_error("order: expected places among the values");
    return values[place];
  }
};

/// Its place among the values.
struct PlaceOf {
  int32_t operator()(int32_t e) const { return e; }
};

/// Entries in runs: those of (block of input channels, row) or, if asked for, of (block, row, clip).
///
/// The run of (block, row, clip) begins at starts[block * block_step + row * row_step + clip], and ends where the next in
/// `starts` begins. Kernels go through a block row by row, so block by block is the order in which they read; but a
/// matrix of 1 x 1 taps stays as it is, row by row, for it has too few entries in a block to pay for sorting them.
template <typename T>
class Entries {
 public:
  /// `value(k)` gives what to keep of entry k of `matrix`. `offsets` is indexed by column. A column is a channel and one
  /// of `taps`; `clips`, of each tap, asks for runs of one clip each, and may be null.
  template <typename Value>
  Entries(const SparseRows& matrix, const std::vector<int32_t>& offsets, int64_t block_columns, int64_t taps,
          const std::vector<Clip>* clips, const Value& value, const Parallel& parallel)
      : matrix_(matrix), columns_(static_cast<int64_t>(offsets.size())), block_columns_(block_columns) {
    const int64_t blocks = ceil_div(columns_, block_columns);
    const bool row_by_row = taps == 1 || blocks == 1;
    const bool by_clip = clips != nullptr;
    const int64_t runs = runs_ = by_clip ? kClips : 1;
    row_step_ = row_by_row ? blocks * runs : runs;
    block_step_ = row_by_row ? runs : matrix.rows * runs;
    int32_t* const starts = starts_arena().take<int32_t>(matrix.rows * blocks * runs + 1);
    Entry<T>* const entries = entries_arena().take<Entry<T>>(matrix.nnz());
    std::vector<Clip> clip_of_column;
    for (int64_t column = 0; column < columns_ && by_clip; column += taps)
      clip_of_column.insert(clip_of_column.end(), clips->begin(), clips->end());
    const Clip* const clip_of = clip_of_column.data();
    const int32_t* const columns = matrix.columns;
    const int32_t* const offset_of = offsets.data();
    const auto count = [=](int32_t* of_run, int32_t first, int32_t last, int64_t group) {
      if (!by_clip) {
        *of_run = last - first;
      } else {
        std::fill_n(of_run, kClips, 0);
        for (int32_t e = first; e < last; ++e) ++of_run[clip_of[group + columns[e]]];
      }
    };
    const auto list = [=](const int32_t* of_run, int32_t first, int32_t last, int64_t group, int32_t* next) {
      if (!by_clip) {
        Entry<T>* to = entries + *of_run;
        for (int32_t e = first; e < last; ++e) *to++ = {offset_of[group + columns[e]], value(e)};
      } else {
        std::copy_n(of_run, kClips, next);
        for (int32_t e = first; e < last; ++e) {
          const int64_t column = group + columns[e];
          entries[next[clip_of[column]]++] = {offset_of[column], value(e)};
        }
      }
    };
    if (row_by_row && !by_clip) {
      for_each_run(parallel, [&](int64_t block, int64_t row, int32_t first, int32_t last, int64_t group) {
        int32_t* const of_run = starts + block * block_step_ + row * row_step_;
        *of_run = first;
        list(of_run, first, last, group, nullptr);
      });
      starts[matrix.rows * blocks] = static_cast<int32_t>(matrix.nnz());
    } else {
      for_each_run(parallel, [&](int64_t block, int64_t row, int32_t first, int32_t last, int64_t group) {
        count(starts + block * block_step_ + row * row_step_ + 1, first, last, group);
      });
      starts[0] = 0;
      for (int64_t run = 0; run < matrix.rows * blocks * runs; ++run) starts[run + 1] += starts[run];
      for_each_run(parallel, [&](int64_t block, int64_t row, int32_t first, int32_t last, int64_t group) {
        int32_t next[kClips];
        list(starts + block * block_step_ + row * row_step_, first, last, group, next);
      });
    }
    starts_ = starts;
    entries_ = entries;
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
  /// Visits the entries of each row and block, as a range of the matrix. Columns ascend within a row, so they are one.
  ///
  /// Whatever the caller's indices are, nothing outside the offsets and the entries is touched.
  template <typename Take>
  void for_each_run(const Parallel& parallel, const Take& take) const {
    std::atomic<bool> damaged = false;
    parallel(matrix_.rows, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t group = row / matrix_.rows_per_group * matrix_.columns_per_group;
        int32_t e = matrix_.row_offsets[row];
        const int32_t last = matrix_.row_offsets[row + 1];
        if (e < 0 || e > last || last > matrix_.nnz()) {
          damaged = true;
          return;
        }
        int64_t block = 0;
        for (int64_t least = -group; least < columns_ - group; least += block_columns_, ++block) {
          const int64_t limit = std::min(least + block_columns_, columns_ - group);
          const int32_t first = e;
          while (e < last && matrix_.columns[e] >= least && matrix_.columns[e] < limit) ++e;
          take(block, row, first, e, group);
        }
        if (e != last) damaged = true;
      }
    });
    if (damaged) throw std::runtime_error("row_offsets, columns: not those of a mask of this layer");
  }

  static Arena& starts_arena() {
    static thread_local Arena arena;
    return arena;
  }
  static Arena& entries_arena() {
    static thread_local Arena arena;
    return arena;
  }

  const SparseRows& matrix_;
  int64_t columns_, block_columns_, row_step_, block_step_, runs_;
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
    const int64_t limit = matrix.columns_per_group > 0 ? matrix.columns_per_group : static_cast<int64_t>(offsets.size());
    bool rows_damaged = false;
    for (int64_t row = 0; row < matrix.rows; ++row)
      rows_damaged |= matrix.row_offsets[row] < 0 || matrix.row_offsets[row] > matrix.row_offsets[row + 1];
    std::atomic<bool> columns_damaged = rows_damaged, order_damaged = false;
    // In a few large pieces: a check of a few microseconds is not worth a thread.
    constexpr int64_t kPiece = 32768;
    parallel(ceil_div(nnz, kPiece), [&](int64_t begin, int64_t end) {
      const int64_t last = std::min(end * kPiece, nnz);
      if (any_outside(matrix.columns, begin * kPiece, last, limit)) columns_damaged = true;
      if (matrix.order != nullptr && any_outside(matrix.order, begin * kPiece, last, nnz)) order_damaged = true;
    });
    if (columns_damaged) throw std::runtime_error("row_offsets, columns: not those of a mask of this layer");
    if (order_damaged) throw std::runtime_error("order: expected places among the values");
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
    result.offsets_ += row / matrix_.rows_per_group * matrix_.columns_per_group;
    return result;
  }

 private:
  /// Whether any of values[first, last) is not in [0, limit): then it is negative, or its distance from the greatest is.
  /// That is an `or` of sign bits; SSE2 has no unsigned comparison.
  static bool any_outside(const int32_t* values, int64_t first, int64_t last, int64_t limit) {
    uint32_t bits = 0;
    const uint32_t greatest = static_cast<uint32_t>(limit - 1);
    for (int64_t e = first; e < last; ++e) {
      const uint32_t value = static_cast<uint32_t>(values[e]);
      bits |= value | (greatest - value);
    }
    return bits >> 31 != 0;
  }

  SparseRows matrix_;
  const T* values_;
  const int32_t* offsets_;
};

}  // namespace lth_sparse
