// Everything that the kernels ask of the GPU beyond plain C++: indices, shared memory, barriers, asynchronous copies,
// tensor cores, launches. tests/csrc/cuda_on_host/device.h is its twin, which runs the same kernels on a CPU.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>

// A kernel for so many threads at most, of which a multiprocessor is to have room for so many thread blocks.
#define LTH_KERNEL(threads, blocks) __global__ void __launch_bounds__(threads, blocks)
#define LTH_DEVICE __device__ __forceinline__
#define LTH_DISPATCH_KEY CUDA
#define LTH_LIBRARY lth_sparse_cuda

namespace lth_sparse::cuda::device {

LTH_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
LTH_DEVICE int thread_count() { return static_cast<int>(blockDim.x); }
LTH_DEVICE int block_index() { return static_cast<int>(blockIdx.x); }

/// The thread block's dynamic shared memory, aligned to 16 bytes.
LTH_DEVICE unsigned char* shared_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
}

LTH_DEVICE void sync_threads() { __syncthreads(); }

/// Copies 4, 8 or 16 bytes from global to shared memory, or writes zeros where `valid` is false; both addresses are
/// aligned to the size. Done for this thread after `wait_copies`, for the others after the barrier that follows.
template <int kBytes>
LTH_DEVICE void copy_async(void* shared, const void* global, bool valid) {
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const int bytes = valid ? kBytes : 0;
  if constexpr (kBytes == 16)  // Past the first-level cache, which serves the weights.
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(bytes) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(global), "n"(kBytes), "r"(bytes)
                 : "memory");
}

/// Ends a group of this thread's copies.
LTH_DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// Waits until all but the `kPending` latest groups of this thread's copies are done.
template <int kPending>
LTH_DEVICE void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

/// The nearest number that TF32 holds, ties away from zero.
LTH_DEVICE float round_to_tf32(float number) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(number));
  return __uint_as_float(bits);
}

// sum += a * b for a 16 x 8 tile, by the warp. Lane 4 g + t holds, of a: rows g and g + 8 in columns that t decides; of
// b: column g; of sum: rows g (first two) and g + 8, columns 2 t and 2 t + 1.

/// a [16, 8] at (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4); b [8, 8] at (t, g), (t + 4, g).
LTH_DEVICE void multiply_tf32(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// a [16, 16] and b [16, 8] of float16, two to a register: a at (g, 2 t), (g + 8, 2 t), (g, 2 t + 8), (g + 8, 2 t + 8)
/// and the column after each; b at (2 t, g), (2 t + 8, g) and the row after each.
LTH_DEVICE void multiply_float16(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// The same of bfloat16.
LTH_DEVICE void multiply_bfloat16(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

LTH_DEVICE uint32_t bits_of(float number) { return __float_as_uint(number); }
/// The lower halves of two words, or their upper ones, in one word: that of `first` below.
LTH_DEVICE uint32_t lower_halves(uint32_t first, uint32_t second) { return __byte_perm(first, second, 0x5410); }
LTH_DEVICE uint32_t upper_halves(uint32_t first, uint32_t second) { return __byte_perm(first, second, 0x7632); }
LTH_DEVICE int bits_set(uint32_t word) { return __popc(word); }
LTH_DEVICE int log2_of(int power_of_two) { return 31 - __clz(power_of_two); }
LTH_DEVICE float float_of_float16(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
LTH_DEVICE float float_of_bfloat16(uint16_t bits) { return __bfloat162float(__ushort_as_bfloat16(bits)); }
LTH_DEVICE uint16_t float16_of(float number) { return __half_as_ushort(__float2half_rn(number)); }
LTH_DEVICE uint16_t bfloat16_of(float number) { return __bfloat16_as_ushort(__float2bfloat16_rn(number)); }

/// Makes the device of a tensor the current one, and knows PyTorch's current stream there.
class Stream {
 public:
  explicit Stream(int32_t device) : guard_(device), device_(device) {
    void* stream = nullptr;
    STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream(device, &stream) == 0, "no current CUDA stream");
    stream_ = static_cast<cudaStream_t>(stream);
  }
  cudaStream_t get() const { return stream_; }

  /// The most shared memory that a thread block can have there.
  int most_shared_bytes() const {
    int bytes = 0;
    STD_CUDA_CHECK(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device_));
    return bytes;
  }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  int32_t device_;
  cudaStream_t stream_;
};

/// Runs a kernel on `blocks` thread blocks of `threads` threads; waits for nothing. Throws what CUDA refuses.
template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), int64_t blocks, int threads, int shared_bytes, const Stream& stream,
            Arguments... arguments) {
  constexpr int kUnasked = 48 * 1024;
  STD_TORCH_CHECK(blocks <= INT32_MAX, "got ", blocks, " thread blocks, expected fewer than 2^31");
  if (shared_bytes > kUnasked)  // All that there is, always: another thread may be about to launch with more.
    STD_CUDA_CHECK(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, stream.most_shared_bytes()));
  kernel<<<static_cast<unsigned>(blocks), threads, shared_bytes, stream.get()>>>(static_cast<Parameters>(arguments)...);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace lth_sparse::cuda::device
