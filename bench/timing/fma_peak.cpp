// The most single-precision multiply-adds that one thread can do: nothing is loaded and nothing waits for anything but
// its own sum. bench/timing/ceilings.py compiles it for the instruction set at hand and calls it in every thread.

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif

typedef float Vector __attribute__((vector_size(kBytes)));
// Two pipes by a latency of four or five cycles need eight to ten; with factor and term they still fit in 16 registers.
constexpr int kSums = 12;

// Adds `term` to `factor` times each sum, `repeats` times. Writes a value that needs every sum, so that none is left out.
// Returns how many multiplications and additions that were.
extern "C" double multiply_add(long repeats, float factor, float term, float *out) {
  Vector sums[kSums];
  for (int sum = 0; sum < kSums; ++sum) sums[sum] = Vector{} + sum * term;  // Equal sums would be made one.
  for (long repeat = 0; repeat < repeats; ++repeat)
    for (int sum = 0; sum < kSums; ++sum) sums[sum] = sums[sum] * factor + term;
  for (int sum = 1; sum < kSums; ++sum) sums[0] += sums[sum];
  *out = sums[0][0];
  return 2.0 * repeats * kSums * (kBytes / sizeof(float));
}
