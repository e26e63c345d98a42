// The twin of csrc/cuda/device/device.h: the same names, for a CPU, so that the kernels' own sources can be compiled by
// g++ and tested where there is no GPU. Copies are late, shared memory begins as NaN, threads and blocks come in random
// order, and tensor cores see of a float32 what TF32 keeps.
#pragma once

#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <tuple>

#include "fibers.h"

#define __host__
#define __device__
#define LTH_KERNEL(threads, blocks) void
#define LTH_DEVICE inline
#define LTH_DISPATCH_KEY CPU
#define LTH_LIBRARY lth_sparse_cuda_on_host

namespace lth_sparse::cuda::device {

using on_host::Block;

inline int thread_index() { return Block::get().thread; }
inline int thread_count() { return Block::get().threads; }
inline int block_index() { return Block::get().index; }
inline unsigned char* shared_memory() { return Block::get().shared; }
inline void sync_threads() { Block::get().meet_block(); }

template <int kBytes>
void copy_async(void* shared, const void* global, bool valid) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  Block& block = Block::get();
  if (reinterpret_cast<uintptr_t>(shared) % kBytes != 0 || reinterpret_cast<uintptr_t>(global) % kBytes != 0)
    block.fail("an asynchronous copy of " + std::to_string(kBytes) + " bytes is not aligned");
  block.self().copies.back().push_back({shared, valid ? global : nullptr, kBytes});
}

inline void commit_copies() { Block::get().self().copies.emplace_back(); }

template <int kPending>
void wait_copies() {
  auto& groups = Block::get().self().copies;  // The last one is open, and is not waited for.
  while (static_cast<int>(groups.size()) - 1 > kPending) {
    for (const on_host::Copy& copy : groups.front()) {
      if (copy.from == nullptr)
        std::memset(copy.to, 0, copy.bytes);
      else
        std::memcpy(copy.to, copy.from, copy.bytes);
    }
    groups.erase(groups.begin());
  }
}

template <typename To, typename From>
To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

inline uint32_t bits_of(float number) { return bits_as<uint32_t>(number); }
inline uint32_t lower_halves(uint32_t first, uint32_t second) { return (first & 0xFFFF) | second << 16; }
inline uint32_t upper_halves(uint32_t first, uint32_t second) { return first >> 16 | (second & 0xFFFF0000); }
inline int bits_set(uint32_t word) { return __builtin_popcount(word); }
inline int log2_of(int power_of_two) { return 31 - __builtin_clz(power_of_two); }

inline float round_to_tf32(float number) {
  if (!std::isfinite(number)) return number;
  return bits_as<float>((bits_of(number) + 0x1000u) & ~0x1FFFu);
}

inline float float_of_float16(uint16_t bits) { return static_cast<float>(bits_as<_Float16>(bits)); }
inline uint16_t float16_of(float number) { return bits_as<uint16_t>(static_cast<_Float16>(number)); }
inline float float_of_bfloat16(uint16_t bits) { return bits_as<float>(static_cast<uint32_t>(bits) << 16); }
inline uint16_t bfloat16_of(float number) {
  const uint32_t bits = bits_of(number);
  if (std::isnan(number)) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);  // To the nearest, ties to even.
}

/// A warp's multiplication: element(bits of a, k) and element(bits of b, k) are the elements that a register holds.
/// kDepth columns of a [16, kDepth]; kPacked of them in a register.
template <int kDepth, int kPacked, typename ElementOf>
void multiply(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], ElementOf element) {
  using Operand = std::tuple<float(*)[4], const uint32_t(*)[4], const uint32_t(*)[2]>;
  const Operand own(&sum, &a, &b);
  Block& block = Block::get();
  block.self().operand = &own;
  block.meet_warp([&] {
    float left[16][kDepth], right[kDepth][8];
    for (int lane = 0; lane < on_host::kWarp; ++lane) {
      const Operand& operand = *static_cast<const Operand*>(block.lane(lane).operand);
      const int g = lane / 4, t = lane % 4;
      for (int i = 0; i < kPacked; ++i) {
        for (int part = 0; part < 4; ++part)
          left[g + part % 2 * 8][part / 2 * 4 * kPacked + t * kPacked + i] = element((*std::get<1>(operand))[part], i);
        for (int part = 0; part < 2; ++part)
          right[part * 4 * kPacked + t * kPacked + i][g] = element((*std::get<2>(operand))[part], i);
      }
    }
    for (int lane = 0; lane < on_host::kWarp; ++lane) {
      const Operand& operand = *static_cast<const Operand*>(block.lane(lane).operand);
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        double total = (*std::get<0>(operand))[i];
        for (int k = 0; k < kDepth; ++k) total += static_cast<double>(left[row][k]) * right[k][column];
        (*std::get<0>(operand))[i] = static_cast<float>(total);
      }
    }
  });
}

inline void multiply_tf32(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  multiply<8, 1>(sum, a, b, [](uint32_t bits, int) { return bits_as<float>(bits & ~0x1FFFu); });
}

inline void multiply_float16(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  multiply<16, 2>(sum, a, b, [](uint32_t bits, int i) { return float_of_float16(static_cast<uint16_t>(bits >> 16 * i)); });
}

inline void multiply_bfloat16(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  multiply<16, 2>(sum, a, b, [](uint32_t bits, int i) { return float_of_bfloat16(static_cast<uint16_t>(bits >> 16 * i)); });
}

class Stream {
 public:
  explicit Stream(int32_t) {}
};

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), int64_t blocks, int threads, int shared_bytes, const Stream&,
            Arguments... arguments) {
  STD_TORCH_CHECK(blocks > 0 && threads > 0 && threads <= 256 && shared_bytes <= 227 * 1024, "a launch of ", blocks,
                  " thread blocks of ", threads, " threads with ", shared_bytes, " bytes");
  Block::get().run(blocks, threads, shared_bytes, [&] { kernel(static_cast<Parameters>(arguments)...); });
}

}  // namespace lth_sparse::cuda::device
