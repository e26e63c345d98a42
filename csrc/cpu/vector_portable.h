// Vectors as plain arrays, of any element: what every processor runs, and what float64 runs on.
#pragma once

#include "inline.h"

#include <cstdint>

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
  /// Of T, or of a type that becomes one.
  template <class E>
  LTH_SPARSE_INLINE static Array load(const E* from) {
    Array result;
    for (int k = 0; k < Width; ++k) result.lanes[k] = from[k];
    return result;
  }
  template <class E>
  LTH_SPARSE_INLINE static Array load(const E* from, int count) {
    Array result;
    for (int k = 0; k < Width; ++k) result.lanes[k] = k < count ? T(from[k]) : T(0);
    return result;
  }
  /// from[at[k]] in lane k.
  LTH_SPARSE_INLINE static Array gather(const T* from, const int32_t* at) {
    Array result;
    for (int k = 0; k < Width; ++k) result.lanes[k] = from[at[k]];
    return result;
  }
  struct Mask {
    int64_t begin, end;
  };
  /// The lanes [begin, end), of those that there are.
  LTH_SPARSE_INLINE static Mask between(int64_t begin, int64_t end) { return {begin, end}; }
  /// 0 in other lanes, which are not read.
  LTH_SPARSE_INLINE static Array load_where(const T* from, Mask mask) {
    Array result;
    for (int k = 0; k < Width; ++k) result.lanes[k] = k >= mask.begin && k < mask.end ? from[k] : T(0);
    return result;
  }
  template <class E>
  LTH_SPARSE_INLINE void store(E* to) const {
    for (int k = 0; k < Width; ++k) to[k] = E(lanes[k]);
  }
  template <class E>
  LTH_SPARSE_INLINE void store(E* to, int count) const {
    for (int k = 0; k < count; ++k) to[k] = E(lanes[k]);
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
  /// 0 in all lanes but the first `count`.
  LTH_SPARSE_INLINE Array first_lanes(int count) const { return load(lanes, count); }
  /// The larger of this and 0; NaN stays.
  LTH_SPARSE_INLINE Array rectified() const { return where_passes(*this, zero()); }
  /// This where `z` is above 0 or NaN, `otherwise` elsewhere.
  LTH_SPARSE_INLINE Array where_passes(Array z, Array otherwise) const {
    Array result;
    for (int k = 0; k < Width; ++k) result.lanes[k] = z.lanes[k] <= 0 ? otherwise.lanes[k] : lanes[k];
    return result;
  }
  /// `least` where this is less, `greatest` where it is more; NaN stays.
  LTH_SPARSE_INLINE Array clamped(Array least, Array greatest) const {
    Array result;
    for (int k = 0; k < Width; ++k) {
      const T raised = lanes[k] < least.lanes[k] ? least.lanes[k] : lanes[k];
      result.lanes[k] = raised > greatest.lanes[k] ? greatest.lanes[k] : raised;
    }
    return result;
  }
  /// This but where z <= low or z >= high, and 0 there. What is compared with NaN is neither.
  LTH_SPARSE_INLINE Array where_between(Array z, Array low, Array high) const {
    Array result;
    for (int k = 0; k < Width; ++k)
      result.lanes[k] = z.lanes[k] <= low.lanes[k] || z.lanes[k] >= high.lanes[k] ? T(0) : lanes[k];
    return result;
  }
  /// This where a == b, 0 elsewhere.
  LTH_SPARSE_INLINE Array where_equal(Array a, Array b) const {
    Array result;
    for (int k = 0; k < Width; ++k) result.lanes[k] = a.lanes[k] == b.lanes[k] ? lanes[k] : T(0);
    return result;
  }
  /// The larger in each lane, NaN where one is.
  LTH_SPARSE_INLINE static Array greater(Array a, Array b) {
    Array result;
    for (int k = 0; k < Width; ++k)
      result.lanes[k] = b.lanes[k] > a.lanes[k] || b.lanes[k] != b.lanes[k] ? b.lanes[k] : a.lanes[k];
    return result;
  }
  /// This in the lanes whose bit is set, 0 elsewhere.
  LTH_SPARSE_INLINE Array where_bits(uint32_t bits) const {
    Array result;
    for (int k = 0; k < Width; ++k) result.lanes[k] = (bits >> k & 1) != 0 ? lanes[k] : T(0);
    return result;
  }
  /// `best` and `place` become the candidate's where it is larger, or NaN.
  LTH_SPARSE_INLINE static void keep_larger(Array& best, Array& place, Array candidate, Array its_place) {
    for (int k = 0; k < Width; ++k) {
      const bool taken = candidate.lanes[k] > best.lanes[k] || candidate.lanes[k] != candidate.lanes[k];
      best.lanes[k] = taken ? candidate.lanes[k] : best.lanes[k];
      place.lanes[k] = taken ? its_place.lanes[k] : place.lanes[k];
    }
  }
  /// The lanes of even and of odd number, of a and then of b.
  LTH_SPARSE_INLINE static void deinterleave(Array a, Array b, Array& even, Array& odd) {
    for (int k = 0; k < Width; ++k) {
      const Array& from = k < Width / 2 ? a : b;
      even.lanes[k] = from.lanes[2 * k % Width];
      odd.lanes[k] = from.lanes[2 * k % Width + 1];
    }
  }
  LTH_SPARSE_INLINE static void interleave(Array even, Array odd, Array& a, Array& b) {
    for (int k = 0; k < Width; ++k) {
      Array& to = k < Width / 2 ? a : b;
      to.lanes[2 * k % Width] = even.lanes[k];
      to.lanes[2 * k % Width + 1] = odd.lanes[k];
    }
  }
  /// Lanes that are whole numbers from 0 to 255, a byte each.
  LTH_SPARSE_INLINE static Array load_bytes(const uint8_t* from) {
    Array result;
    for (int k = 0; k < Width; ++k) result.lanes[k] = T(from[k]);
    return result;
  }
  LTH_SPARSE_INLINE void store_bytes(uint8_t* to) const {
    for (int k = 0; k < Width; ++k) to[k] = static_cast<uint8_t>(lanes[k]);
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
