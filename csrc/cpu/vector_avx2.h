// Vectors of eight floats: AVX2 with FMA.
//
// Include after <immintrin.h> and a target (target.h) that admits avx2, fma and f16c. With AVX-512VL as well, the compiler has
// 32 registers for the same code, which is what `Registers` says.
#pragma once

#include "element.h"
#include "inline.h"

#include <immintrin.h>

#include <cstdint>

namespace lth_sparse::VECTOR_NAMESPACE {

template <int Registers>
struct Float8 {
  using Element = float;
  static constexpr int width = 8;
  static constexpr int registers = Registers;
  __m256 lanes;

  LTH_SPARSE_INLINE static Float8 zero() { return {_mm256_setzero_ps()}; }
  LTH_SPARSE_INLINE static Float8 broadcast(float value) { return {_mm256_set1_ps(value)}; }
  LTH_SPARSE_INLINE static Float8 load(const float* from) { return {_mm256_loadu_ps(from)}; }
  LTH_SPARSE_INLINE static Float8 load(const float* from, int count) { return {_mm256_maskload_ps(from, first(count))}; }
  LTH_SPARSE_INLINE static Float8 load(const Bfloat16* from) { return of_bfloat16(eight(from)); }
  LTH_SPARSE_INLINE static Float8 load(const Bfloat16* from, int count) { return of_bfloat16(fewer(from, count)); }
  LTH_SPARSE_INLINE static Float8 load(const Half* from) { return {_mm256_cvtph_ps(eight(from))}; }
  LTH_SPARSE_INLINE static Float8 load(const Half* from, int count) { return {_mm256_cvtph_ps(fewer(from, count))}; }
  /// from[at[k]] in lane k.
  LTH_SPARSE_INLINE static Float8 gather(const float* from, const int32_t* at) {
    return {_mm256_i32gather_ps(from, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)), sizeof(float))};
  }
  using Mask = __m256i;
  /// The lanes [begin, end), of those that there are.
  LTH_SPARSE_INLINE static Mask between(int64_t begin, int64_t end) {
    const auto clamped = [](int64_t lane) LTH_SPARSE_INLINE_LAMBDA { return static_cast<int>(lane < 0 ? 0 : lane > width ? width : lane); };
    return _mm256_andnot_si256(first(clamped(begin)), first(clamped(end)));
  }
  /// 0 in other lanes, which are not read.
  LTH_SPARSE_INLINE static Float8 load_where(const float* from, Mask mask) { return {_mm256_maskload_ps(from, mask)}; }
  LTH_SPARSE_INLINE void store(float* to) const { _mm256_storeu_ps(to, lanes); }
  LTH_SPARSE_INLINE void store(float* to, int count) const { _mm256_maskstore_ps(to, first(count), lanes); }
  LTH_SPARSE_INLINE void store(Bfloat16* to) const { put(bfloat16(), to); }
  LTH_SPARSE_INLINE void store(Bfloat16* to, int count) const { put(bfloat16(), to, count); }
  LTH_SPARSE_INLINE void store(Half* to) const { put(half(), to); }
  LTH_SPARSE_INLINE void store(Half* to, int count) const { put(half(), to, count); }
  /// `to` must be aligned to the vector. The line does not enter the caches.
  LTH_SPARSE_INLINE void stream(float* to) const { _mm256_stream_ps(to, lanes); }
  /// a * b + this
  LTH_SPARSE_INLINE Float8 plus_product(Float8 a, Float8 b) const { return {_mm256_fmadd_ps(a.lanes, b.lanes, lanes)}; }
  /// this - a * b
  LTH_SPARSE_INLINE Float8 minus_product(Float8 a, Float8 b) const { return {_mm256_fnmadd_ps(a.lanes, b.lanes, lanes)}; }
  LTH_SPARSE_INLINE Float8 operator+(Float8 other) const { return {_mm256_add_ps(lanes, other.lanes)}; }
  LTH_SPARSE_INLINE Float8 operator-(Float8 other) const { return {_mm256_sub_ps(lanes, other.lanes)}; }
  LTH_SPARSE_INLINE Float8 operator*(Float8 other) const { return {_mm256_mul_ps(lanes, other.lanes)}; }
  /// 0 in all lanes but the first `count`.
  LTH_SPARSE_INLINE Float8 first_lanes(int count) const {
    return {_mm256_and_ps(_mm256_castsi256_ps(first(count)), lanes)};
  }
  /// The larger of this and 0; NaN stays.
  LTH_SPARSE_INLINE Float8 rectified() const { return {_mm256_max_ps(_mm256_setzero_ps(), lanes)}; }
  /// This where `z` is above 0 or NaN, `otherwise` elsewhere.
  LTH_SPARSE_INLINE Float8 where_passes(Float8 z, Float8 otherwise) const {
    return {_mm256_blendv_ps(otherwise.lanes, lanes, _mm256_cmp_ps(z.lanes, _mm256_setzero_ps(), _CMP_NLE_UQ))};
  }
  /// `least` where this is less, `greatest` where it is more; NaN stays.
  LTH_SPARSE_INLINE Float8 clamped(Float8 least, Float8 greatest) const {
    return {_mm256_min_ps(greatest.lanes, _mm256_max_ps(least.lanes, lanes))};
  }
  /// This but where z <= low or z >= high, and 0 there. What is compared with NaN is neither.
  LTH_SPARSE_INLINE Float8 where_between(Float8 z, Float8 low, Float8 high) const {
    const __m256 above = _mm256_cmp_ps(z.lanes, low.lanes, _CMP_NLE_UQ), below = _mm256_cmp_ps(z.lanes, high.lanes, _CMP_NGE_UQ);
    return {_mm256_and_ps(_mm256_and_ps(above, below), lanes)};
  }
  /// This where a == b, 0 elsewhere.
  LTH_SPARSE_INLINE Float8 where_equal(Float8 a, Float8 b) const {
    return {_mm256_and_ps(_mm256_cmp_ps(a.lanes, b.lanes, _CMP_EQ_OQ), lanes)};
  }
  /// The larger in each lane, NaN where one is.
  LTH_SPARSE_INLINE static Float8 greater(Float8 a, Float8 b) {
    const __m256 taken = _mm256_or_ps(_mm256_cmp_ps(b.lanes, a.lanes, _CMP_GT_OQ), _mm256_cmp_ps(b.lanes, b.lanes, _CMP_UNORD_Q));
    return {_mm256_blendv_ps(a.lanes, b.lanes, taken)};
  }
  /// This in the lanes whose bit is set, 0 elsewhere.
  LTH_SPARSE_INLINE Float8 where_bits(uint32_t bits) const {
    const __m256i each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i set = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits)), each), each);
    return {_mm256_and_ps(_mm256_castsi256_ps(set), lanes)};
  }
  /// `best` and `place` become the candidate's where it is larger, or NaN.
  LTH_SPARSE_INLINE static void keep_larger(Float8& best, Float8& place, Float8 candidate, Float8 its_place) {
    const __m256 taken = _mm256_or_ps(_mm256_cmp_ps(candidate.lanes, best.lanes, _CMP_GT_OQ),
                                      _mm256_cmp_ps(candidate.lanes, candidate.lanes, _CMP_UNORD_Q));
    best.lanes = _mm256_blendv_ps(best.lanes, candidate.lanes, taken);
    place.lanes = _mm256_blendv_ps(place.lanes, its_place.lanes, taken);
  }
  /// The lanes of even and of odd number, of a and then of b.
  LTH_SPARSE_INLINE static void deinterleave(Float8 a, Float8 b, Float8& even, Float8& odd) {
    const __m256 low = _mm256_permute2f128_ps(a.lanes, b.lanes, 0x20), high = _mm256_permute2f128_ps(a.lanes, b.lanes, 0x31);
    even.lanes = _mm256_shuffle_ps(low, high, 0x88);
    odd.lanes = _mm256_shuffle_ps(low, high, 0xdd);
  }
  LTH_SPARSE_INLINE static void interleave(Float8 even, Float8 odd, Float8& a, Float8& b) {
    const __m256 low = _mm256_unpacklo_ps(even.lanes, odd.lanes), high = _mm256_unpackhi_ps(even.lanes, odd.lanes);
    a.lanes = _mm256_permute2f128_ps(low, high, 0x20);
    b.lanes = _mm256_permute2f128_ps(low, high, 0x31);
  }
  /// Lanes that are whole numbers from 0 to 255, a byte each.
  LTH_SPARSE_INLINE static Float8 load_bytes(const uint8_t* from) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
    return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes))};
  }
  LTH_SPARSE_INLINE void store_bytes(uint8_t* to) const {
    const __m256i whole = _mm256_cvtps_epi32(lanes);
    const __m128i halves = _mm_packus_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packus_epi16(halves, halves));
  }

  /// Adds the sum of the lanes of each of four vectors to four floats.
  LTH_SPARSE_INLINE static void add_sums(const Float8 (&v)[4], float* to) {
    const __m256 pairs =
        _mm256_hadd_ps(_mm256_hadd_ps(v[0].lanes, v[1].lanes), _mm256_hadd_ps(v[2].lanes, v[3].lanes));
    const __m128 sums = _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
    _mm_storeu_ps(to, _mm_add_ps(_mm_loadu_ps(to), sums));
  }

  /// Row i, lane j becomes row j, lane i.
  LTH_SPARSE_INLINE static void transpose(Float8 (&rows)[8]) {
    __m256 a[8], b[8];
    for (int k = 0; k < 8; k += 2) {
      a[k] = _mm256_unpacklo_ps(rows[k].lanes, rows[k + 1].lanes);
      a[k + 1] = _mm256_unpackhi_ps(rows[k].lanes, rows[k + 1].lanes);
    }
    for (int k = 0; k < 8; k += 4) {
      for (int h = 0; h < 2; ++h) {
        const __m256d low = _mm256_castps_pd(a[k + h]), high = _mm256_castps_pd(a[k + h + 2]);
        b[k + 2 * h] = _mm256_castpd_ps(_mm256_unpacklo_pd(low, high));
        b[k + 2 * h + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low, high));
      }
    }
    for (int i = 0; i < 4; ++i) {
      rows[i].lanes = _mm256_permute2f128_ps(b[i], b[4 + i], 0x20);
      rows[4 + i].lanes = _mm256_permute2f128_ps(b[i], b[4 + i], 0x31);
    }
  }

 private:
  LTH_SPARSE_INLINE static Float8 of_bfloat16(__m128i elements) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(elements), 16))};
  }
  /// Rounded as element.h says.
  LTH_SPARSE_INLINE __m128i bfloat16() const {
    const __m256i whole = _mm256_castps_si256(lanes);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(whole, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(whole, _mm256_set1_epi32(0x7fff)), odd);
    const __m256i nan = _mm256_or_si256(whole, _mm256_set1_epi32(0x400000));
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(lanes, lanes, _CMP_UNORD_Q));
    const __m256i upper = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, nan, is_nan), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1));
  }
  LTH_SPARSE_INLINE __m128i half() const { return _mm256_cvtps_ph(lanes, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  LTH_SPARSE_INLINE static __m128i eight(const void* from) { return _mm_loadu_si128(static_cast<const __m128i*>(from)); }
  LTH_SPARSE_INLINE static void put(__m128i elements, void* to) { _mm_storeu_si128(static_cast<__m128i*>(to), elements); }
  // AVX2 has no masks of 16 bits.
  template <class E>
  LTH_SPARSE_INLINE static __m128i fewer(const E* from, int count) {
    E elements[width] = {};
    for (int k = 0; k < count; ++k) elements[k] = from[k];
    return eight(elements);
  }
  template <class E>
  LTH_SPARSE_INLINE static void put(__m128i of_eight, E* to, int count) {
    E elements[width];
    put(of_eight, elements);
    for (int k = 0; k < count; ++k) to[k] = elements[k];
  }
  LTH_SPARSE_INLINE static __m256i first(int count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
};

}  // namespace lth_sparse::VECTOR_NAMESPACE
