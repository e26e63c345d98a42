// grad_weight.
//
// Layout. As in correlation.cu, with the geometry of the forward pass; beside a tile of the input lies the gradient of the
// same positions, [slots of the blocks][positions].
//
// Tiling. A thread block has one chunk of channels, a few blocks of 16 rows, and a part of the tiles of positions, which
// it goes through with the next tile on its way. As in the correlation a warp has one block of rows and 64 positions of
// each tile; it multiplies gradients [16 rows, positions] by gathered input [positions, columns], eight positions at
// once, for all columns of its block in the chunk, or for a window of up to eight times eight of them: four sums each a
// lane, and no dot product for each live weight. At the end the warps of a block add up what they have, in their order,
// and the sums of the parts go to a buffer, which a second kernel adds up part by part, keeping what is alive: no
// atomics, the same bits each time.
//
// Bound, by count: shared memory. Two loads gather a fragment of 8 positions x 8 columns and four more load the
// gradients of these positions, once for all fragments of a warp: 2.5 cycles of a multiprocessor a fragment where it has
// eight of them, 3 where it has four; the correlation has 2. Lanes of the second four columns take the second four
// positions first, so that eight columns in four banks do not collide.
// Measured on an H200, for 64 -> 64 channels of 3 x 3 at 32 x 32, batch 128: 153 us at 95 % sparsity and 82 at 98 %, where
// the bound is 19 and 9 (bench/results/gpu-nvidia-h200.json). As in the correlation, warps wait for latency.
#include "grad_weight.h"

#include "tile.h"

namespace lth_sparse::cuda {
namespace {

constexpr int kMostEighths = 8;  // columns of a warp, in eights: plans/staging.py counts on it

/// The sums of a warp's 16 rows and its columns. `add` multiplies kPositions positions at once.
template <typename A, bool = A::kTensorCores>
class Products;

template <typename A>
class Products<A, true> {
 public:
  using Element = typename A::Element;
  static constexpr int kPositions = A::kColumnsAtOnce;

  LTH_DEVICE Products(const int32_t* codes, int first_column, int eighths)
      : lane_(device::thread_index() % kWarp), second_(lane_ >= kWarp / 2), eighths_(eighths) {
#pragma unroll
    for (int each = 0; each < kMostEighths; ++each)
      codes_[each] = each < eighths ? codes[first_column + each * kDepth + column(lane_ / 4)] : 0;
  }

  /// Adds the positions from `first` on. gradient: the first row of the block; `exists(position)` says whether a
  /// position is one: others read anything, and count as zeros.
  template <typename Exists>
  LTH_DEVICE void add(const Element* tile, const int* offsets, const Element* gradient, int pitch, int first,
                      Exists exists) {
    const int g = lane_ / 4, t = lane_ % 4;
    uint32_t a[4];
    if constexpr (sizeof(Element) == 4) {
      const Element* const at = gradient + g * pitch + first + t;
      a[0] = device::bits_of(A::rounded(at[0]));
      a[1] = device::bits_of(A::rounded(at[8 * pitch]));
      a[2] = device::bits_of(A::rounded(at[4]));
      a[3] = device::bits_of(A::rounded(at[8 * pitch + 4]));
    } else {
      const Element* const at = gradient + g * pitch + first + 2 * t;
      a[0] = *reinterpret_cast<const uint32_t*>(at);
      a[1] = *reinterpret_cast<const uint32_t*>(at + 8 * pitch);
      a[2] = *reinterpret_cast<const uint32_t*>(at + 8);
      a[3] = *reinterpret_cast<const uint32_t*>(at + 8 * pitch + 8);
    }
    // Of the two halves of the positions, the one that the lane reads first.
    constexpr int kHalf = kPositions / 2, kEach = kHalf / 4;
    int from[2][kEach];
    uint32_t keep[2][kEach];
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        const int position = first + (half == static_cast<int>(second_) ? 0 : kHalf) + t * kEach + i;
        from[half][i] = offsets[position];
        keep[half][i] = exists(position) ? ~0u : 0u;
      }
    // In pairs: the loads of one wait for those of the other. The second of the last pair may be one that is not stored.
#pragma unroll
    for (int each = 0; each < kMostEighths; ++each) {
      if (each % 2 == 0 && each >= eighths_) break;
      uint32_t halves[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const auto gathered = [&](int i) { return at_bytes(tile, codes_[each] + from[half][i]); };
        if constexpr (sizeof(Element) == 4)
          halves[half] = device::bits_of(gathered(0)) & keep[half][0];
        else if constexpr (A::kPairs)
          halves[half] = at_bytes(reinterpret_cast<const uint32_t*>(tile), codes_[each] + from[half][0]) &
                         ((keep[half][0] & 0xFFFF) | (keep[half][1] & 0xFFFF0000));
        else
          halves[half] = (gathered(0) & keep[half][0]) | (static_cast<uint32_t>(gathered(1)) & keep[half][1]) << 16;
      }
      const uint32_t b[2] = {second_ ? halves[1] : halves[0], second_ ? halves[0] : halves[1]};
      A::multiply(sums_[each], a, b);
    }
  }

  static constexpr int kSums = kMostEighths * 4;
  LTH_DEVICE float& sum(int i) { return sums_[i / 4][i % 4]; }
  /// Where among the 16 rows of all columns the sum belongs, if it does.
  LTH_DEVICE bool stored(int i) const { return i / 4 < eighths_; }
  LTH_DEVICE int place(int i) const {
    return (i / 4 * kDepth + column(lane_ % 4 * 2 + i % 2)) * kBlockRows + lane_ / 4 + i % 4 / 2 * 8;
  }

 private:
  /// Which of eight columns a tensor core has as its n-th: the first four are one quad, as packing put it together.
  LTH_DEVICE static int column(int n) { return n % 4 * 2 + n / 4; }

  int lane_;
  bool second_;
  int eighths_;
  int codes_[kMostEighths];
  float sums_[kMostEighths][4] = {};
};

template <typename A>
class Products<A, false> {
 public:
  using Element = typename A::Element;
  static constexpr int kPositions = 4;

  LTH_DEVICE Products(const int32_t* codes, int first_column, int eighths)
      : lane_(device::thread_index() % kWarp), eighths_(eighths) {
#pragma unroll
    for (int each = 0; each < kMostEighths; ++each)
      codes_[each] = each < eighths ? codes[first_column + each * kDepth + lane_ % 8] : 0;
  }

  template <typename Exists>
  LTH_DEVICE void add(const Element* tile, const int* offsets, const Element* gradient, int pitch, int first,
                      Exists exists) {
    Several<Element, kPositions> rows[kQuarterRows];
#pragma unroll
    for (int row = 0; row < kQuarterRows; ++row)
      rows[row] = *reinterpret_cast<const Several<Element, kPositions>*>(
          gradient + (lane_ / 8 * kQuarterRows + row) * pitch + first);
#pragma unroll
    for (int i = 0; i < kPositions; ++i) {
      if (!exists(first + i)) continue;
      const int offset = offsets[first + i];
#pragma unroll
      for (int each = 0; each < kMostEighths; ++each) {
        if (each >= eighths_) break;
        const Element input = at_bytes(tile, offset + codes_[each]);
#pragma unroll
        for (int row = 0; row < kQuarterRows; ++row) sums_[each][row] += rows[row].at[i] * input;
      }
    }
  }

  static constexpr int kSums = kMostEighths * kQuarterRows;
  LTH_DEVICE Element& sum(int i) { return sums_[i / kQuarterRows][i % kQuarterRows]; }
  LTH_DEVICE bool stored(int i) const { return i / kQuarterRows < eighths_; }
  LTH_DEVICE int place(int i) const {
    return (i / kQuarterRows * kDepth + lane_ % 8) * kBlockRows + lane_ / 8 * kQuarterRows + i % kQuarterRows;
  }

 private:
  int lane_, eighths_;
  int codes_[kMostEighths];
  Element sums_[kMostEighths][kQuarterRows] = {};
};

/// Which columns of a block in a chunk fall into a window: as many in each window, as far as that goes.
struct ColumnWindow {
  int first_column, eighths;

  LTH_DEVICE ColumnWindow(const Blocks& blocks, int block, int chunk, int window) : first_column(0), eighths(0) {
    if (block >= blocks.blocks) return;
    const int begin = blocks.chunk_begin(block, chunk);
    const int all = (blocks.chunk_begin(block, chunk + 1) - begin) / kDepth;
    const int windows = (all + kMostEighths - 1) / kMostEighths;
    if (window >= windows) return;
    const int each = (all + windows - 1) / windows, left = all - window * each;
    eighths = left < each ? left : each;
    first_column = begin + window * each * kDepth;
  }
};

template <typename A>
LTH_KERNEL(kMostThreads, kThreadBlocks<A>)
grad_weight_kernel(Geometry geometry, Tiling tiling, Grid grid, Blocks blocks, Parts parts, int windows,
                   const typename A::Element* input, Steps input_steps, const typename A::Element* gradient,
                   Steps gradient_steps, const int32_t* codes, typename A::Sum* partial) {
  const int groups = (blocks.blocks + tiling.block_count - 1) / tiling.block_count;
  const int work = groups * blocks.chunks * windows;
  const int part = device::block_index() / work;
  const int chunk = device::block_index() % work / windows % blocks.chunks, window = device::block_index() % windows;
  const int first_block = device::block_index() % work / (windows * blocks.chunks) * tiling.block_count;
  const int warp = device::thread_index() / kWarp, local_block = warp % tiling.block_count;
  const int first_position = warp / tiling.block_count * kWarpPixels;
  bool needed = false;
  for (int each = 0; each < tiling.block_count; ++each)
    needed = needed || ColumnWindow(blocks, first_block + each, chunk, window).eighths > 0;
  if (!needed) return;  // All threads alike.
  const ColumnWindow columns(blocks, first_block + local_block, chunk, window);
  const int begin = part * parts.tiles_each, tiles = grid.tiles();
  const int end = begin + parts.tiles_each < tiles ? begin + parts.tiles_each : tiles;

  using Element = typename A::Element;
  Tile<Element> tile(geometry, tiling, grid);
  // Where the tile after the next one comes from is worked out while this one is multiplied, and what is still asked of
  // this one, which of its positions exist, is asked of another object.
  Tile<Element> current(geometry, tiling, grid);
  const auto input_share = tile.input_share(input_steps.channel);
  const auto gradient_share = tile.gradient_share(gradient_steps.channel);
  const auto find = [&](int index, int buffer) {
    if (index >= end) return;
    tile.find_input(input_steps, buffer);
    tile.find_gradient(gradient_steps, buffer);
  };
  const int ahead = tiling.buffers - 1;  // 0 or 1
  tile.prepare();
  tile.prepare_gradient(gradient_steps.channel, blocks.slot_rows + first_block * kBlockRows,
                        (blocks.blocks - first_block) * kBlockRows);
  tile.stand_at(begin);
  current.stand_at(begin);
  device::sync_threads();
  find(begin, 0);
  device::sync_threads();
  Products<A> products(codes, columns.first_column, columns.eighths);
  int filled = 0;
  for (int index = begin - ahead; index < end; ++index) {
    if (ahead > 0 && index >= begin) {
      device::wait_copies<0>();
      device::sync_threads();
    }
    if (index + ahead < end) {
      tile.copy_input(input_share, filled, filled, input, input_steps.channel, chunk, blocks.channels);
      tile.copy_gradient(gradient_share, filled, filled, gradient);
    }
    device::commit_copies();
    const int buffer = ahead - filled;  // The one that is multiplied now.
    filled = buffer;
    tile.advance();
    if (ahead > 0) {
      find(index + 2, filled);
      if (index < begin) continue;
    } else {
      device::wait_copies<0>();
      device::sync_threads();
    }
    if constexpr (A::kPairs) {
      tile.shift_input(buffer);
      device::sync_threads();
    }
    const Element* const rows = tile.gradient(buffer) + local_block * kBlockRows * tiling.gradient_pitch;
    if (columns.eighths > 0) {
      const auto add = [&](auto exists) {
        for (int first = first_position; first < first_position + kWarpPixels; first += Products<A>::kPositions)
          products.add(tile.planes(buffer), tile.offsets(), rows, tiling.gradient_pitch, first, exists);
      };
      if (current.whole())
        add([](int) { return true; });
      else
        add([&](int position) { return current.position(position).image >= 0; });
    }
    current.advance();
    if (ahead == 0) {
      device::sync_threads();
      find(index + 1, 0);
      device::sync_threads();
    }
  }
  device::sync_threads();
  add_up(products, warp, tiling.block_count, tiling.pixel_warps);
  if (warp >= tiling.block_count) return;
  typename A::Sum* const to = partial + part * blocks.slots() + static_cast<int64_t>(columns.first_column) * kBlockRows;
#pragma unroll
  for (int i = 0; i < Products<A>::kSums; ++i)
    if (products.stored(i)) to[products.place(i)] = products.sum(i);
}

/// A thread for each slot.
template <typename A>
LTH_KERNEL(kMostThreads, 1)
collect_kernel(Blocks blocks, int parts, const typename A::Sum* partial, typename A::Element* grad_values) {
  const int64_t slot = static_cast<int64_t>(device::block_index()) * kMostThreads + device::thread_index();
  if (slot >= blocks.slots()) return;
  const int entry = entry_of(blocks, static_cast<int>(slot / kBlockRows), static_cast<int>(slot % kBlockRows));
  if (entry < 0) return;
  typename A::Sum sum = partial[slot];
  for (int part = 1; part < parts; ++part) sum += partial[part * blocks.slots() + slot];
  grad_values[entry] = A::element_of(A::made_up(sum));
}

}  // namespace

template <typename A>
void grad_weight(const Geometry& geometry, const Tiling& tiling, const Grid& grid, const Blocks& blocks,
                 const Parts& parts, const typename A::Element* input, const Steps& input_steps,
                 const typename A::Element* gradient, const Steps& gradient_steps, int32_t* codes,
                 typename A::Sum* partial, typename A::Element* grad_values, const device::Stream& stream) {
  pack_codes(geometry, tiling, blocks, sizeof(typename A::Element), codes, stream);
  const int groups = (blocks.blocks + tiling.block_count - 1) / tiling.block_count;
  const int eighths = tiling.chunk_channels * geometry.taps() / kDepth + 1;  // Of a block that is not pruned.
  const int windows = (eighths + kMostEighths - 1) / kMostEighths;
  device::launch(grad_weight_kernel<A>, static_cast<int64_t>(groups) * blocks.chunks * windows * parts.count,
                 tiling.threads(), tiling.shared_bytes, stream, geometry, tiling, grid, blocks, parts, windows, input,
                 input_steps, gradient, gradient_steps, codes, partial);
  device::launch(collect_kernel<A>, (blocks.slots() + kMostThreads - 1) / kMostThreads, kMostThreads, 0, stream, blocks,
                 parts.count, partial, grad_values);
}

#define LTH_INSTANTIATE(A)                                                                                            \
  template void grad_weight<A>(const Geometry&, const Tiling&, const Grid&, const Blocks&, const Parts&,              \
                               const A::Element*, const Steps&, const A::Element*, const Steps&, int32_t*, A::Sum*,   \
                               A::Element*, const device::Stream&);
LTH_FOR_EACH_ARITHMETIC(LTH_INSTANTIATE)

}  // namespace lth_sparse::cuda
