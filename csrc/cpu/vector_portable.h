// Vectors as plain arrays, of any element: what every processor runs, and what float64 runs on.
#pragma once

#include "inline.h"

namespace lth_sparse::portable {

template <typename T, int Width>
struct Array {
  using Element = T;
  static constexpr int width = Width;
  static constexpr int registers = 16;
  T lanes[Width];

  LTH_SPARSE_INLINE static Array zero() { return broadcast(0); }
  LTH_SPARSE_INLINE static Array broadcast(T value) {
    Array result;
    for (int k = 0; k < Width; ++k) result.lanes[k] = value;
    return result;
  }
  LTH_SPARSE_INLINE static Array load(const T* from) {
    Array result;
    for (int k = 0; k < Width; ++k) result.lanes[k] = from[k];
    return result;
  }
  LTH_SPARSE_INLINE static Array load(const T* from, int count) {
    Array result;
    for (int k = 0; k < Width; ++k) result.lanes[k] = k < count ? from[k] : T(0);
    return result;
  }
  LTH_SPARSE_INLINE void store(T* to) const {
    for (int k = 0; k < Width; ++k) to[k] = lanes[k];
  }
  LTH_SPARSE_INLINE void store(T* to, int count) const {
    for (int k = 0; k < count; ++k) to[k] = lanes[k];
  }
  LTH_SPARSE_INLINE void stream(T* to) const { store(to); }
  /// a * b + this
  LTH_SPARSE_INLINE Array plus_product(Array a, Array b) const {
    Array result;
    for (int k = 0; k < Width; ++k) result.lanes[k] = lanes[k] + a.lanes[k] * b.lanes[k];
    return result;
  }
  /// this - a * b
  LTH_SPARSE_INLINE Array minus_product(Array a, Array b) const {
    Array result;
    for (int k = 0; k < Width; ++k) result.lanes[k] = lanes[k] - a.lanes[k] * b.lanes[k];
    return result;
  }
  LTH_SPARSE_INLINE Array operator+(Array other) const {
    Array result;
    for (int k = 0; k < Width; ++k) result.lanes[k] = lanes[k] + other.lanes[k];
    return result;
  }
  LTH_SPARSE_INLINE Array operator-(Array other) const {
    Array result;
    for (int k = 0; k < Width; ++k) result.lanes[k] = lanes[k] - other.lanes[k];
    return result;
  }
  LTH_SPARSE_INLINE Array operator*(Array other) const {
    Array result;
    for (int k = 0; k < Width; ++k) result.lanes[k] = lanes[k] * other.lanes[k];
    return result;
  }
  /// Adds the sum of the lanes of each of four vectors to four elements.
  LTH_SPARSE_INLINE static void add_sums(const Array (&v)[4], T* to) {
    for (int i = 0; i < 4; ++i) {
      T sum = 0;
      for (int k = 0; k < Width; ++k) sum += v[i].lanes[k];
      to[i] += sum;
    }
  }
  /// Row i, lane j becomes row j, lane i.
  LTH_SPARSE_INLINE static void transpose(Array (&rows)[Width]) {
    for (int i = 0; i < Width; ++i) {
      for (int j = 0; j < i; ++j) {
        const T swapped = rows[i].lanes[j];
        rows[i].lanes[j] = rows[j].lanes[i];
        rows[j].lanes[i] = swapped;
      }
    }
  }
};

}  // namespace lth_sparse::portable
