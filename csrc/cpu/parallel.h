// Threads and memory that outlive a call. The operators give the threads: PyTorch's own, by ../torch_threads.h.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <new>

#include "huge_pages.h"

namespace lth_sparse {

/// Calls the body on [begin, end) ranges that together make up [0, count), several of them in a thread. Which thread has
/// which, and where they begin, changes from call to call.
using Parallel = std::function<void(int64_t count, const std::function<void(int64_t begin, int64_t end)>& body)>;

/// Memory that a thread keeps between calls: fresh pages cost more than the kernels that would use them. In huge pages where
/// it is large, for a live weight reads anywhere in it: 1 to 5 % of a pass (3x3, 512 and 256 channels, 90 to 98 %).
class Arena {
 public:
  ~Arena() { std::free(data_); }

  /// Uninitialised, aligned to a cache line or more, valid until the next call.
  template <typename T>
  T* take(int64_t count) {
    const size_t bytes = (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
    if (bytes > bytes_) {
      std::free(data_);
      bytes_ = 0;
      const size_t alignment = bytes >= kHugePage / 4 ? kHugePage : 64;
      const size_t whole = (bytes + alignment - 1) / alignment * alignment;
      data_ = std::aligned_alloc(alignment, whole);
      if (data_ == nullptr) throw std::bad_alloc();
      advise_huge_pages(data_, whole, 1);
      bytes_ = bytes;
    }
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace lth_sparse
