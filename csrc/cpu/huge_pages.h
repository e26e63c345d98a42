// Huge pages for memory that is large: one page fault and one TLB entry where there would be 512.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace lth_sparse {

constexpr size_t kHugePage = size_t{2} << 20;

/// Asks for the huge pages that lie within, if there are at least so many. Advice on these pages only: the heap's settings
/// are its user's.
inline void advise_huge_pages([[maybe_unused]] void* data, [[maybe_unused]] size_t bytes, [[maybe_unused]] size_t fewest) {
#if defined(__linux__)
  const uintptr_t start = reinterpret_cast<uintptr_t>(data), end = start + bytes;
  const uintptr_t first = (start + kHugePage - 1) / kHugePage * kHugePage, last = end / kHugePage * kHugePage;
  if (last >= first + fewest * kHugePage) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

}  // namespace lth_sparse
