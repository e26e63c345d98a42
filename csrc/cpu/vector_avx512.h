// Vectors of AVX-512: sixteen floats, or eight in the same instruction set's shorter registers.
//
// Include after <immintrin.h> and a target (target.h) that admits avx512f, avx512vl, avx512dq and avx512bw.
#pragma once

#include "element.h"
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
  LTH_SPARSE_INLINE static Float16 load(const Bfloat16* from) { return of_bfloat16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))); }
  LTH_SPARSE_INLINE static Float16 load(const Bfloat16* from, int count) { return of_bfloat16(_mm256_maskz_loadu_epi16(first(count), from)); }
  LTH_SPARSE_INLINE static Float16 load(const Half* from) { return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)))}; }
  LTH_SPARSE_INLINE static Float16 load(const Half* from, int count) { return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(count), from))}; }
  /// from[at[k]] in lane k.
  LTH_SPARSE_INLINE static Float16 gather(const float* from, const int32_t* at) {
    return {_mm512_i32gather_ps(_mm512_loadu_si512(at), from, sizeof(float))};
  }
  using Mask = __mmask16;
  /// The lanes [begin, end), of those that there are.
  LTH_SPARSE_INLINE static Mask between(int64_t begin, int64_t end) {
    const auto up_to = [](int64_t lane) LTH_SPARSE_INLINE_LAMBDA { return (1u << (lane < 0 ? 0 : lane > width ? width : lane)) - 1; };
    return static_cast<Mask>(up_to(end) & ~up_to(begin));
  }
  /// 0 in other lanes, which are not read.
  LTH_SPARSE_INLINE static Float16 load_where(const float* from, Mask mask) { return {_mm512_maskz_loadu_ps(mask, from)}; }
  LTH_SPARSE_INLINE void store(float* to) const { _mm512_storeu_ps(to, lanes); }
  LTH_SPARSE_INLINE void store(float* to, int count) const { _mm512_mask_storeu_ps(to, first(count), lanes); }
  LTH_SPARSE_INLINE void store(Bfloat16* to) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), bfloat16()); }
  LTH_SPARSE_INLINE void store(Bfloat16* to, int count) const { _mm256_mask_storeu_epi16(to, first(count), bfloat16()); }
  LTH_SPARSE_INLINE void store(Half* to) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), half()); }
  LTH_SPARSE_INLINE void store(Half* to, int count) const { _mm256_mask_storeu_epi16(to, first(count), half()); }
  /// `to` must be aligned to the vector. The line does not enter the caches.
  LTH_SPARSE_INLINE void stream(float* to) const { _mm512_stream_ps(to, lanes); }
  /// a * b + this
  LTH_SPARSE_INLINE Float16 plus_product(Float16 a, Float16 b) const { return {_mm512_fmadd_ps(a.lanes, b.lanes, lanes)}; }
  /// this - a * b
  LTH_SPARSE_INLINE Float16 minus_product(Float16 a, Float16 b) const { return {_mm512_fnmadd_ps(a.lanes, b.lanes, lanes)}; }
  LTH_SPARSE_INLINE Float16 operator+(Float16 other) const { return {_mm512_add_ps(lanes, other.lanes)}; }
  LTH_SPARSE_INLINE Float16 operator-(Float16 other) const { return {_mm512_sub_ps(lanes, other.lanes)}; }
  LTH_SPARSE_INLINE Float16 operator*(Float16 other) const { return {_mm512_mul_ps(lanes, other.lanes)}; }
  /// 0 in all lanes but the first `count`.
  LTH_SPARSE_INLINE Float16 first_lanes(int count) const { return {_mm512_maskz_mov_ps(first(count), lanes)}; }
  /// The larger of this and 0; NaN stays.
  LTH_SPARSE_INLINE Float16 rectified() const { return {_mm512_max_ps(_mm512_setzero_ps(), lanes)}; }
  /// This where `z` is above 0 or NaN, `otherwise` elsewhere.
  LTH_SPARSE_INLINE Float16 where_passes(Float16 z, Float16 otherwise) const {
    return {_mm512_mask_mov_ps(otherwise.lanes, _mm512_cmp_ps_mask(z.lanes, _mm512_setzero_ps(), _CMP_NLE_UQ), lanes)};
  }
  /// `least` where this is less, `greatest` where it is more; NaN stays.
  LTH_SPARSE_INLINE Float16 clamped(Float16 least, Float16 greatest) const {
    return {_mm512_min_ps(greatest.lanes, _mm512_max_ps(least.lanes, lanes))};
  }
  /// This but where z <= low or z >= high, and 0 there. What is compared with NaN is neither.
  LTH_SPARSE_INLINE Float16 where_between(Float16 z, Float16 low, Float16 high) const {
    const __mmask16 above = _mm512_cmp_ps_mask(z.lanes, low.lanes, _CMP_NLE_UQ);
    return {_mm512_maskz_mov_ps(_mm512_mask_cmp_ps_mask(above, z.lanes, high.lanes, _CMP_NGE_UQ), lanes)};
  }
  /// This where a == b, 0 elsewhere.
  LTH_SPARSE_INLINE Float16 where_equal(Float16 a, Float16 b) const {
    return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a.lanes, b.lanes, _CMP_EQ_OQ), lanes)};
  }
  /// The larger in each lane, NaN where one is.
  LTH_SPARSE_INLINE static Float16 greater(Float16 a, Float16 b) {
    const __mmask16 taken = _mm512_cmp_ps_mask(b.lanes, a.lanes, _CMP_GT_OQ) | _mm512_cmp_ps_mask(b.lanes, b.lanes, _CMP_UNORD_Q);
    return {_mm512_mask_mov_ps(a.lanes, taken, b.lanes)};
  }
  /// This in the lanes whose bit is set, 0 elsewhere.
  LTH_SPARSE_INLINE Float16 where_bits(uint32_t bits) const { return {_mm512_maskz_mov_ps(static_cast<__mmask16>(bits), lanes)}; }
  /// `best` and `place` become the candidate's where it is larger, or NaN.
  LTH_SPARSE_INLINE static void keep_larger(Float16& best, Float16& place, Float16 candidate, Float16 its_place) {
    const __mmask16 taken = _mm512_cmp_ps_mask(candidate.lanes, best.lanes, _CMP_GT_OQ) |
                            _mm512_cmp_ps_mask(candidate.lanes, candidate.lanes, _CMP_UNORD_Q);
    best.lanes = _mm512_mask_mov_ps(best.lanes, taken, candidate.lanes);
    place.lanes = _mm512_mask_mov_ps(place.lanes, taken, its_place.lanes);
  }
  /// The lanes of even and of odd number, of a and then of b.
  LTH_SPARSE_INLINE static void deinterleave(Float16 a, Float16 b, Float16& even, Float16& odd) {
    const __m512i pairs = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    even.lanes = _mm512_permutex2var_ps(a.lanes, pairs, b.lanes);
    odd.lanes = _mm512_permutex2var_ps(a.lanes, _mm512_add_epi32(pairs, _mm512_set1_epi32(1)), b.lanes);
  }
  LTH_SPARSE_INLINE static void interleave(Float16 even, Float16 odd, Float16& a, Float16& b) {
    const __m512i pairs = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    a.lanes = _mm512_permutex2var_ps(even.lanes, pairs, odd.lanes);
    b.lanes = _mm512_permutex2var_ps(even.lanes, _mm512_add_epi32(pairs, _mm512_set1_epi32(8)), odd.lanes);
  }
  /// Lanes that are whole numbers from 0 to 255, a byte each.
  LTH_SPARSE_INLINE static Float16 load_bytes(const uint8_t* from) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes))};
  }
  LTH_SPARSE_INLINE void store_bytes(uint8_t* to) const {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(lanes)));
  }

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
  LTH_SPARSE_INLINE static Float16 of_bfloat16(__m256i elements) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(elements), 16))};
  }
  /// Rounded as element.h says. The instruction for it, vcvtneps2bf16, takes numbers below the normal ones for 0.
  LTH_SPARSE_INLINE __m256i bfloat16() const {
    const __m512i whole = _mm512_castps_si512(lanes);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(whole, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(whole, _mm512_set1_epi32(0x7fff)), odd);
    const __m512i nan = _mm512_or_si512(whole, _mm512_set1_epi32(0x400000));
    const __mmask16 is_nan = _mm512_cmp_ps_mask(lanes, lanes, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, is_nan, nan), 16));
  }
  LTH_SPARSE_INLINE __m256i half() const { return _mm512_cvtps_ph(lanes, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  LTH_SPARSE_INLINE static __mmask16 first(int count) { return static_cast<__mmask16>((1u << count) - 1); }
};

}  // namespace lth_sparse::avx512
