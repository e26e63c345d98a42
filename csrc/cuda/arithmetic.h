// What a kernel multiplies in, and how: the element that tensors hold, the type that sums are kept in, conversions.
#pragma once

#include <device.h>

#include "geometry.h"

namespace lth_sparse::cuda {

/// T as it is, by fused multiplications and additions.
template <typename T>
struct Exact {
  using Element = T;
  using Sum = T;
  static constexpr bool kTensorCores = false, kPairs = false;

  LTH_DEVICE static T rounded(T number) { return number; }
  LTH_DEVICE static T made_up(T number) { return number; }
  LTH_DEVICE static T sum_of(T number) { return number; }
  LTH_DEVICE static T element_of(T sum) { return sum; }
};

/// float32 on tensor cores, in TF32. What is gathered is not rounded, which would take three instructions a number:
/// tensor cores cut it off, and what that loses in the mean is made up for in the other factor, which is rounded, or in
/// the sum. By count of roundings the error is 1.6 times that of rounding both. On an H100 cuDNN's gradient of the weight
/// had 2.1 to 3 times of it (bench/results/gpu-nvidia-h100-80gb-hbm3.json), as if it let both be cut off. Numbers that
/// TF32 holds exactly lose nothing, and what is made up for is too much: 0.035 %.
struct Tf32 : Exact<float> {
  static constexpr bool kTensorCores = true;
  static constexpr int kColumnsAtOnce = 8;
  /// A mantissa m loses half of 2^-10 in the mean, and 1 / m is 0.72 in the mean.
  static constexpr float kMadeUp = 1 + 0.72f / 2048;

  LTH_DEVICE static float made_up(float number) { return number * kMadeUp; }
  LTH_DEVICE static float rounded(float number) { return device::round_to_tf32(number); }
  LTH_DEVICE static void multiply(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    device::multiply_tf32(sum, a, b);
  }
};

/// What float16 and bfloat16 have in common: 16 bits, summed up in float32 on tensor cores.
struct HalfPrecision {
  using Element = uint16_t;
  using Sum = float;
  static constexpr bool kTensorCores = true, kPairs = false;
  static constexpr int kColumnsAtOnce = 16;

  LTH_DEVICE static uint16_t rounded(uint16_t number) { return number; }
  template <typename T>
  LTH_DEVICE static T made_up(T number) {
    return number;
  }
};

struct Float16 : HalfPrecision {
  LTH_DEVICE static float sum_of(uint16_t number) { return device::float_of_float16(number); }
  LTH_DEVICE static uint16_t element_of(float sum) { return device::float16_of(sum); }
  LTH_DEVICE static void multiply(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    device::multiply_float16(sum, a, b);
  }
};

struct Bfloat16 : HalfPrecision {
  LTH_DEVICE static float sum_of(uint16_t number) { return device::float_of_bfloat16(number); }
  LTH_DEVICE static uint16_t element_of(float sum) { return device::bfloat16_of(sum); }
  LTH_DEVICE static void multiply(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    device::multiply_bfloat16(sum, a, b);
  }
};

/// The same, for tiles that hold the input twice, once shifted by an element, so that every two neighbouring positions
/// lie in one aligned word: half as many loads.
template <typename A>
struct Paired : A {
  static constexpr bool kPairs = true;
};

using Float32 = Exact<float>;
using Float64 = Exact<double>;

/// M(A) for every arithmetic that kernels are compiled for.
#define LTH_FOR_EACH_ARITHMETIC(M) \
  M(Tf32)                          \
  M(Float16)                       \
  M(Bfloat16)                      \
  M(Paired<Float16>)               \
  M(Paired<Bfloat16>)              \
  M(Float32)                       \
  M(Float64)

/// Thread blocks that a multiprocessor has room for, as far as registers go.
template <typename A>
constexpr int kThreadBlocks = sizeof(typename A::Sum) > 4 ? 1 : 2;

/// Neighbouring elements that are loaded at once.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount < 16 ? sizeof(T) * kCount : 16) Several {
  T at[kCount];
};

/// What lies so many bytes after `base`: in the kernels' inner loops a place is one addition.
template <typename T>
LTH_DEVICE T at_bytes(const T* base, int bytes) {
  return *reinterpret_cast<const T*>(reinterpret_cast<const char*>(base) + bytes);
}

}  // namespace lth_sparse::cuda
