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

namespace lth_sparse {

/// A live weight: where its operand lies relative to a tile, and its value or, for grad_weight, its place in the result.
template <typename T>
struct Entry {
  int32_t offset;
  T value;
};

/// Entries by block of input channels, then by row, then, if asked for, by tap.
///
/// Those of (block, row) begin at starts[block * rows + row], or those of (block, row, tap) at
/// starts[(block * rows + row) * taps + tap].
template <typename T>
class Entries {
 public:
  /// `value(k)` gives what to keep of entry k of `matrix`. `offsets` is indexed by column. `taps` is 1 to leave a row's
  /// entries in their order.
  template <typename Value>
  Entries(const SparseRows& matrix, const std::vector<int32_t>& offsets, int64_t block_columns, int64_t taps,
          const Value& value, const Parallel& parallel) {
    const int64_t rows = matrix.rows;
    const int64_t blocks = (static_cast<int64_t>(offsets.size()) + block_columns - 1) / block_columns;
    // Whatever the caller's indices are, nothing outside `offsets` and `entries_` is touched.
    const int64_t nnz = matrix.nnz();
    std::atomic<bool> damaged = false;
    const auto run_of = [&](int64_t row, const auto& take) {
      const int32_t first = matrix.row_offsets[row], last = matrix.row_offsets[row + 1];
      if (first < 0 || last < first || last > nnz)
        damaged = true;
      else
        take(first, last, row / matrix.rows_per_group * matrix.columns_per_group);
    };
    const uint64_t columns = offsets.size();
    entries_ = entries_arena().take<Entry<T>>(nnz);
    if (blocks == 1 && taps == 1) {
      starts_ = matrix.row_offsets;
      parallel(rows, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row)
          run_of(row, [&](int32_t first, int32_t last, int64_t group) {
            for (int32_t e = first; e < last; ++e) {
              const uint64_t column = static_cast<uint64_t>(group + matrix.columns[e]);
              if (column >= columns) {
                damaged = true;
                return;
              }
              entries_[e] = {offsets[column], value(e)};
            }
          });
      });
    } else {
      sort(matrix, offsets, blocks, block_columns, taps, value, parallel, run_of, damaged);
    }
    if (damaged) throw std::runtime_error("row_offsets, columns: not those of a mask of this layer");
  }

  const int32_t* starts() const { return starts_; }
  int32_t offset(int64_t k) const { return entries_[k].offset; }
  T value(int64_t k) const { return entries_[k].value; }
  /// Before the entries of a row of the matrix: nothing to do, they are ready.
  const Entries& of_row(int64_t) const { return *this; }

 private:
  static Arena& starts_arena() {
    static thread_local Arena arena;
    return arena;
  }
  static Arena& entries_arena() {
    static thread_local Arena arena;
    return arena;
  }

  template <typename Value, typename RunOf>
  void sort(const SparseRows& matrix, const std::vector<int32_t>& offsets, int64_t blocks, int64_t block_columns,
            int64_t taps, const Value& value, const Parallel& parallel, const RunOf& run_of,
            std::atomic<bool>& damaged) {
    const int64_t runs = blocks * matrix.rows * taps;
    int32_t* const starts = starts_arena().take<int32_t>(runs + 1);
    std::fill_n(starts, runs + 1, 0);
    std::vector<int32_t> tap_of;
    for (size_t column = 0; column < offsets.size() && taps > 1; ++column)
      tap_of.push_back(static_cast<int32_t>(column % taps));
    // Columns ascend within a row, so each block's entries are one run of it.
    const auto visit = [&](int64_t begin, int64_t end, const auto& take) {
      for (int64_t row = begin; row < end; ++row)
        run_of(row, [&](int32_t e, int32_t last, int64_t group) {
          for (int64_t block = 0; block < blocks; ++block) {
            const int64_t least = block * block_columns - group;
            const int64_t limit = std::min<int64_t>((block + 1) * block_columns, offsets.size()) - group;
            const int32_t first = e;
            while (e < last && matrix.columns[e] < limit && matrix.columns[e] >= least) ++e;
            take(block * matrix.rows + row, first, e, group);
          }
          if (e != last) damaged = true;
        });
    };
    parallel(matrix.rows, [&](int64_t begin, int64_t end) {
      visit(begin, end, [&](int64_t at, int32_t first, int32_t last, int64_t group) {
        int32_t* const counts = starts + at * taps + 1;
        if (taps == 1)
          *counts = last - first;
        else
          for (int32_t e = first; e < last; ++e) ++counts[tap_of[group + matrix.columns[e]]];
      });
    });
    for (int64_t k = 0; k < runs; ++k) starts[k + 1] += starts[k];
    parallel(matrix.rows, [&](int64_t begin, int64_t end) {
      std::vector<int32_t> next(taps);
      visit(begin, end, [&](int64_t at, int32_t first, int32_t last, int64_t group) {
        std::copy_n(starts + at * taps, taps, next.begin());
        if (taps == 1) {
          Entry<T>* to = entries_ + next[0];
          for (int32_t e = first; e < last; ++e) *to++ = {offsets[group + matrix.columns[e]], value(e)};
        } else {
          for (int32_t e = first; e < last; ++e) {
            const int64_t column = group + matrix.columns[e];
            entries_[next[tap_of[column]]++] = {offsets[column], value(e)};
          }
        }
      });
    });
    starts_ = starts;
  }

  const int32_t* starts_;
  Entry<T>* entries_;
};

/// The matrix as it is, looked up entry by entry: where each is used so seldom that to list it would cost more.
///
/// Stands for `Entries` of one block, not sorted by tap. `T` is int32_t for the places in the result.
template <typename T>
class Unlisted {
 public:
  /// `values` is null for the places in the result.
  Unlisted(const SparseRows& matrix, const std::vector<int32_t>& offsets, const T* values)
      : matrix_(matrix), values_(values), offsets_(offsets.data()) {
    const int64_t nnz = matrix.nnz(), columns = offsets.size();
    const int64_t limit = matrix.columns_per_group > 0 ? matrix.columns_per_group : columns;
    bool damaged = false;
    for (int64_t row = 0; row < matrix.rows; ++row)
      damaged |= matrix.row_offsets[row] < 0 || matrix.row_offsets[row] > matrix.row_offsets[row + 1];
    for (int64_t e = 0; e < nnz; ++e) damaged |= static_cast<uint32_t>(matrix.columns[e]) >= limit;
    if (damaged) throw std::runtime_error("row_offsets, columns: not those of a mask of this layer");
    for (int64_t e = 0; e < nnz && matrix.order != nullptr; ++e)
      damaged |= static_cast<uint32_t>(matrix.order[e]) >= nnz;
    if (damaged) throw std::runtime_error("order: expected places among the values");
  }

  const int32_t* starts() const { return matrix_.row_offsets; }
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
  SparseRows matrix_;
  const T* values_;
  const int32_t* offsets_;
};

}  // namespace lth_sparse
