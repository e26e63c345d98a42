// Vectors of AVX-512: sixteen floats, or eight in the same instruction set's shorter registers.
//
// Include after <immintrin.h> and a target (target.h) that admits avx512f, avx512vl and avx512dq.
#pragma once

#include "inline.h"

#include <immintrin.h>

#include <cstdint>

namespace lth_sparse::avx512 {

struct Float16 {
  using Element = float;
  static constexpr int width = 16;
  static constexpr int registers = 32;
  __m512 lanes;

  LTH_SPARSE_INLINE static Float16 zero() { return {_mm512_setzero_ps()}; }
  LTH_SPARSE_INLINE static Float16 broadcast(float value) { return {_mm512_set1_ps(value)}; }
  LTH_SPARSE_INLINE static Float16 load(const float* from) { return {_mm512_loadu_ps(from)}; }
  LTH_SPARSE_INLINE static Float16 load(const float* from, int count) { return {_mm512_maskz_loadu_ps(first(count), from)}; }
  LTH_SPARSE_INLINE void store(float* to) const { _mm512_storeu_ps(to, lanes); }
  LTH_SPARSE_INLINE void store(float* to, int count) const { _mm512_mask_storeu_ps(to, first(count), lanes); }
  /// `to` must be aligned to the vector. The line does not enter the caches.
  LTH_SPARSE_INLINE void stream(float* to) const { _mm512_stream_ps(to, lanes); }
  /// a * b + this
  LTH_SPARSE_INLINE Float16 plus_product(Float16 a, Float16 b) const { return {_mm512_fmadd_ps(a.lanes, b.lanes, lanes)}; }
  LTH_SPARSE_INLINE Float16 operator+(Float16 other) const { return {_mm512_add_ps(lanes, other.lanes)}; }

  /// The sum of the lanes of each of four vectors.
  LTH_SPARSE_INLINE static __m128 sums(const Float16 (&v)[4]) {
    const __m512 a = v[0].lanes, b = v[1].lanes, c = v[2].lanes, d = v[3].lanes;
    const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    // Each 128-bit lane of ab holds a, b, a, b. Not by hadd, which is as many instructions inside.
    const __m512 abcd = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
    const __m256 pairs = _mm256_add_ps(_mm512_castps512_ps256(abcd), _mm512_extractf32x8_ps(abcd, 1));
    return _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
  }
  /// Adds the sum of the lanes of each of four vectors to four floats.
  LTH_SPARSE_INLINE static void add_sums(const Float16 (&v)[4], float* to) { _mm_storeu_ps(to, _mm_add_ps(_mm_loadu_ps(to), sums(v))); }

  /// Row i, lane j becomes row j, lane i.
  LTH_SPARSE_INLINE static void transpose(Float16 (&rows)[16]) {
    __m512 a[16], b[16];
    for (int k = 0; k < 16; k += 2) {
      a[k] = _mm512_unpacklo_ps(rows[k].lanes, rows[k + 1].lanes);
      a[k + 1] = _mm512_unpackhi_ps(rows[k].lanes, rows[k + 1].lanes);
    }
    for (int k = 0; k < 16; k += 4) {
      for (int h = 0; h < 2; ++h) {
        const __m512d low = _mm512_castps_pd(a[k + h]), high = _mm512_castps_pd(a[k + h + 2]);
        b[k + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
        b[k + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
      }
    }
    // b[4 g + i] holds, in 128-bit lane l, column 4 l + i of rows 4 g to 4 g + 3.
    for (int i = 0; i < 4; ++i) {
      const __m512 even01 = _mm512_shuffle_f32x4(b[i], b[4 + i], 0x88);
      const __m512 odd01 = _mm512_shuffle_f32x4(b[i], b[4 + i], 0xdd);
      const __m512 even23 = _mm512_shuffle_f32x4(b[8 + i], b[12 + i], 0x88);
      const __m512 odd23 = _mm512_shuffle_f32x4(b[8 + i], b[12 + i], 0xdd);
      rows[i].lanes = _mm512_shuffle_f32x4(even01, even23, 0x88);
      rows[4 + i].lanes = _mm512_shuffle_f32x4(odd01, odd23, 0x88);
      rows[8 + i].lanes = _mm512_shuffle_f32x4(even01, even23, 0xdd);
      rows[12 + i].lanes = _mm512_shuffle_f32x4(odd01, odd23, 0xdd);
    }
  }

 private:
  LTH_SPARSE_INLINE static __mmask16 first(int count) { return static_cast<__mmask16>((1u << count) - 1); }
};

}  // namespace lth_sparse::avx512
