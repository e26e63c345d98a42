#include "packed_weight.h"

namespace lth_sparse::cuda {
namespace {

/// Where in a tile a column reads, in elements.
LTH_DEVICE uint32_t place_of(const Geometry& geometry, const Tiling& tiling, int column) {
  const int taps = geometry.taps(), channel = column / taps, tap = column % taps;
  const int down = geometry.shift(0, tap / geometry.kernel[1]) - tiling.first_row_shift;
  const int right = geometry.shift(1, tap % geometry.kernel[1]) - tiling.first_column_shift;
  const int stride = geometry.in_stride[1];
  const int across = stride == 1 ? tiling.left + right : right % stride * tiling.split_pitch + right / stride;
  const int place = channel % tiling.chunk_channels * tiling.plane_pitch + down * tiling.row_pitch + across;
  // An odd place is an even one of the shifted input.
  return static_cast<uint32_t>(tiling.pairs && place % 2 ? place - 1 + tiling.input_elements() / 2 : place);
}

/// The same in bytes, of the column before it if this is a hole: a block begins with a column that exists.
LTH_DEVICE uint32_t code_of(const Geometry& geometry, const Tiling& tiling, const Blocks& blocks, int element_bytes,
                            int column) {
  while (blocks.columns[column] < 0) --column;
  return place_of(geometry, tiling, blocks.columns[column]) * element_bytes;
}

/// Which quarters of a block's rows are alive in a column.
LTH_DEVICE uint32_t quarters_of(const Blocks& blocks, int column) {
  uint32_t quarters = 0;
  for (int row = 0; row < kBlockRows; ++row) {
    const uint32_t bits = static_cast<uint32_t>(blocks.live[column / kWord * kBlockRows + row]);
    quarters |= (bits >> column % kWord & 1) << row / kQuarterRows;
  }
  return quarters;
}

/// A thread for each slot.
template <typename A>
LTH_KERNEL(kMostThreads, 1)
weight_kernel(Geometry geometry, Tiling tiling, Blocks blocks, const typename A::Element* values,
              typename A::Element* weight, int32_t* codes) {
  const int64_t slot = static_cast<int64_t>(device::block_index()) * kMostThreads + device::thread_index();
  if (slot >= blocks.slots()) return;
  const int column = static_cast<int>(slot / kBlockRows), row = static_cast<int>(slot % kBlockRows);
  const int entry = entry_of(blocks, column, row);
  weight[weight_index<A>(column, row)] = entry < 0 ? typename A::Element{} : A::rounded(A::made_up(values[entry]));
  if (row != 0) return;
  uint32_t code = code_of(geometry, tiling, blocks, sizeof(typename A::Element), column);
  if constexpr (!A::kTensorCores) code |= quarters_of(blocks, column) << kCodeBits;
  codes[column] = static_cast<int32_t>(code);
}

/// A thread for each column.
LTH_KERNEL(kMostThreads, 1)
codes_kernel(Geometry geometry, Tiling tiling, Blocks blocks, int element_bytes, int32_t* codes) {
  const int column = device::block_index() * kMostThreads + device::thread_index();
  if (column < blocks.column_count)
    codes[column] = static_cast<int32_t>(code_of(geometry, tiling, blocks, element_bytes, column));
}

}  // namespace

template <typename A>
void pack_weight(const Geometry& geometry, const Tiling& tiling, const Blocks& blocks,
                 const typename A::Element* values, typename A::Element* weight, int32_t* codes,
                 const device::Stream& stream) {
  if (blocks.column_count == 0) return;
  device::launch(weight_kernel<A>, (blocks.slots() + kMostThreads - 1) / kMostThreads, kMostThreads, 0, stream, geometry,
                 tiling, blocks, values, weight, codes);
}

void pack_codes(const Geometry& geometry, const Tiling& tiling, const Blocks& blocks, int element_bytes, int32_t* codes,
                const device::Stream& stream) {
  if (blocks.column_count == 0) return;
  device::launch(codes_kernel, (blocks.column_count + kMostThreads - 1) / kMostThreads, kMostThreads, 0, stream,
                 geometry, tiling, blocks, element_bytes, codes);
}

#define LTH_INSTANTIATE(A)                                                                                  \
  template void pack_weight<A>(const Geometry&, const Tiling&, const Blocks&, const A::Element*, A::Element*, \
                               int32_t*, const device::Stream&);
LTH_FOR_EACH_ARITHMETIC(LTH_INSTANTIATE)

}  // namespace lth_sparse::cuda
