// What a correlation multiplies with: the matrix of a layer, made of its values at each call.
//
// Layout. weight [column_count, 16], zeros included: for tensor cores in fragments of eight columns, so that a lane loads
// all of its share at once, in the order of its registers; for exact arithmetic column after column. codes [column_count]
// say where in a tile of shared memory a column reads, in bytes from where its position does; for exact arithmetic their
// upper four bits say which quarters of the 16 rows are alive in it. A hole takes the code of the column before it, with
// weights of zero.
//
// Bound by memory: it writes 16 slots a column and reads nnz values, a few megabytes at most.
#pragma once

#include "arithmetic.h"

namespace lth_sparse::cuda {

constexpr int kQuarters = 4;                         // of a block of rows
constexpr int kQuarterRows = kBlockRows / kQuarters;
constexpr int kCodeBits = 28;
constexpr int kColumnsAhead = 32;  // beyond the last column, that may be read and are not used

/// Where the weight of a slot lies. Lane 4 g + t of a fragment has columns 2 t and 2 t + 1 of rows g and g + 8: in half
/// precision two columns to a register, in TF32 row after row.
template <typename A>
LTH_DEVICE int64_t weight_index(int column, int row) {
  if constexpr (!A::kTensorCores) return static_cast<int64_t>(column) * kBlockRows + row;
  const int lane = row % 8 * 4 + column % kDepth / 2, second_row = row / 8, second_column = column % 2;
  const int within = sizeof(typename A::Element) == 4 ? second_column * 2 + second_row : second_row * 2 + second_column;
  return static_cast<int64_t>(column / kDepth) * (kDepth * kBlockRows) + lane * 4 + within;
}

/// The place among the values of the slot's entry, -1 if the slot is not alive.
LTH_DEVICE int entry_of(const Blocks& blocks, int column, int row) {
  const int word = column / kWord * kBlockRows + row, bit = column % kWord;
  const uint32_t bits = static_cast<uint32_t>(blocks.live[word]);
  if (!(bits >> bit & 1)) return -1;
  const int entry = blocks.starts[word] + device::bits_set(bits & ((1u << bit) - 1));
  return blocks.order == nullptr ? entry : blocks.order[entry];
}

/// Writes weight and codes, which go on for kColumnsAhead columns. Of one Element type: values [nnz], weight.
template <typename A>
void pack_weight(const Geometry& geometry, const Tiling& tiling, const Blocks& blocks,
                 const typename A::Element* values, typename A::Element* weight, int32_t* codes,
                 const device::Stream& stream);

/// Writes the codes alone, for elements of so many bytes.
void pack_codes(const Geometry& geometry, const Tiling& tiling, const Blocks& blocks, int element_bytes, int32_t* codes,
                const device::Stream& stream);

}  // namespace lth_sparse::cuda
