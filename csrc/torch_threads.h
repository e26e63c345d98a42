// PyTorch's threads, as the operators hand them to the kernels.
//
// Each thread takes the next tasks when it has done its last: in fixed shares all wait for the slowest, and on a machine where
// another process keeps a core busy that is twice as long. What a thread takes is half of its share of what is left: many
// small tasks cost few turns at the counter, large ones end together, and neighbours, which read the same lines, mostly stay
// in one thread (an eighth of a share cost 4 % of 64 channels of 32 x 32). Which thread has which task is chance, so no result
// may depend on it, nor on where the ranges begin.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>

#include "cpu/parallel.h"

namespace lth_sparse {

/// Calls `body` on ranges that together make up [0, count), by as many threads as PyTorch is set to. A task should take
/// microseconds at least: it is for the caller to put smaller ones together.
inline void on_torch_threads(int64_t count, const std::function<void(int64_t begin, int64_t end)>& body) {
  constexpr int64_t kPartOfAShare = 2;
  const int64_t threads = std::min<int64_t>(torch::stable::get_num_threads(), count);
  if (threads < 2) {
    if (count > 0) body(0, count);
    return;
  }
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    int64_t begin = next.load(std::memory_order_relaxed);
    while (begin < count) {
      const int64_t end = begin + std::max<int64_t>(1, (count - begin) / (threads * kPartOfAShare));
      if (!next.compare_exchange_weak(begin, end, std::memory_order_relaxed)) continue;
      body(begin, end);
      begin = next.load(std::memory_order_relaxed);
    }
  });
}

inline const Parallel parallel = on_torch_threads;
/// The thread that asks does it all.
inline const Parallel one_thread = [](int64_t count, const std::function<void(int64_t, int64_t)>& body) {
  if (count > 0) body(0, count);
};

}  // namespace lth_sparse
