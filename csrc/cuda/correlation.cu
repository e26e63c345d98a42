// Forward pass and grad_input.
//
// Layout. Input and output are NCHW or channels_last, both as they are; a linear layer has images of one pixel. In shared
// memory a tile of the input lies as [channels of a chunk][images][rows][columns], its halo included (tile.h); the
// packed weight is read from the first-level cache, in the order of the tensor cores' fragments (packed_weight.h).
//
// Tiling. A thread block computes a tile of positions times a few blocks of 16 rows: a warp has one block and 64
// positions, 32 sums a lane; where positions are few, several warps share the columns of a block, and add up at the end.
// Chunk after chunk of input channels is copied, the next one or two while this one is multiplied. A warp goes through
// the columns that its block needs in the chunk, eight at once: a lane loads its share of the weights at once, and gathers
// two columns at eight positions from shared memory, by one addition and one load each.
//
// Bound, by count: shared memory. A fragment of 8 columns x 8 positions is two loads of a warp, of one cycle each where
// the order of columns keeps them in different banks, and a multiprocessor issues one such load a cycle; its tensor cores
// would take half as long at their peak. 64 -> 64 channels of 3 x 3 at 32 x 32, batch 128, need 4.7 M fragments when
// unpruned, 40 us on 132 multiprocessors at 1.75 GHz, and at 95 % sparsity, with 38 % of the columns left in clustered
// blocks, 15 us. Measured on an H200: 83 us, 18 % of the bound, and 66 us at 98 % sparsity, 12 %
// (bench/results/gpu-nvidia-h200.json). Nsight Compute found under half of the issue slots used and warps that wait for
// latency: of the loads that begin a thread block and a chunk, one after another, of instructions that depend on each
// other, of barriers; 16 warps on a multiprocessor are too few to hide it.
//
// Exact arithmetic has no tensor cores: a lane has 16 rows at two positions, and leaves out the quarters of the rows
// that are not alive in a column. Bound by multiplications: 32 of them to two loads of the input and four of weights.
#include "correlation.h"

#include "tile.h"

namespace lth_sparse::cuda {
namespace {

/// The sums of a warp's 16 rows and 64 positions. A lane has `kRuns` runs of `kRun` neighbouring positions, from
/// `pixel(run)` of the warp's on, times `kSlots` of the rows, `slot(j)` of the block's: its sums are `at(run, i, j)`.
template <typename A, bool = A::kTensorCores>
class Sums;

template <typename A>
class Sums<A, true> {
 public:
  using Element = typename A::Element;

  LTH_DEVICE Sums(const int* offsets, int first_pixel)
      : lane_(device::thread_index() % kWarp) {
#pragma unroll
    for (int i = 0; i < kReads; ++i) offsets_[i] = offsets[first_pixel + kWarpPixels / kReads * i + (A::kPairs ? 2 : 1) * (lane_ / 4)];
  }

  /// Adds the columns from `begin` up to `end`. Reads the columns after them too, to be ahead: the arrays go on there.
  LTH_DEVICE void add(const Element* tile, const Element* weight, const int32_t* codes, int begin, int end) {
    if (begin == end) return;
    weight += static_cast<int64_t>(begin) * kBlockRows + lane_ * 4;
    codes += begin + lane_ % 4 * 2;
    Columns next = load(weight, codes, begin + kDepth < end);
    for (int column = begin; column < end; column += A::kColumnsAtOnce) {
      const Columns now = next;
      weight += A::kColumnsAtOnce * kBlockRows;
      codes += A::kColumnsAtOnce;
      next = load(weight, codes, column + A::kColumnsAtOnce + kDepth < end);
#pragma unroll
      for (int read = 0; read < kReads; ++read) {
        uint32_t b[2];
        if constexpr (A::kPairs) {
          // A word has two positions: the even ones make one tile, the odd ones the next.
          uint32_t words[4];
#pragma unroll
          for (int i = 0; i < 4; ++i)
            words[i] = at_bytes(reinterpret_cast<const uint32_t*>(tile), offsets_[read] + now.codes[i]);
          for (int i = 0; i < 2; ++i) b[i] = device::lower_halves(words[2 * i], words[2 * i + 1]);
          A::multiply(sums_[2 * read], now.weight, b);
          for (int i = 0; i < 2; ++i) b[i] = device::upper_halves(words[2 * i], words[2 * i + 1]);
          A::multiply(sums_[2 * read + 1], now.weight, b);
        } else {
          const auto gathered = [&](int i) { return at_bytes(tile, offsets_[read] + now.codes[i]); };
          if constexpr (sizeof(Element) == 4) {
            b[0] = device::bits_of(gathered(0));
            b[1] = device::bits_of(gathered(1));
          } else {
            b[0] = gathered(0) | static_cast<uint32_t>(gathered(1)) << 16;
            b[1] = gathered(2) | static_cast<uint32_t>(gathered(3)) << 16;
          }
          A::multiply(sums_[read], now.weight, b);
        }
      }
    }
  }

  static constexpr int kRun = A::kPairs ? 4 : 2, kRuns = kWarpPixels / 4 / kRun, kSlots = 2;
  LTH_DEVICE int pixel(int run) const { return (run * 4 + lane_ % 4) * kRun; }
  LTH_DEVICE int slot(int j) const { return lane_ / 4 + j * 8; }
  LTH_DEVICE float at(int run, int i, int j) const {
    return A::kPairs ? sums_[run * 2 + i % 2][j * 2 + i / 2] : sums_[run][j * 2 + i];
  }

  static constexpr int kSums = kWarpPixels / 2;
  LTH_DEVICE float& sum(int i) { return sums_[i / 4][i % 4]; }

 private:
  static constexpr int kTiles = kWarpPixels / 8;
  static constexpr int kReads = A::kPairs ? kTiles / 2 : kTiles;
  static constexpr int kFragments = A::kColumnsAtOnce / kDepth;

  /// A lane's share of the columns that are multiplied at once.
  struct Columns {
    uint32_t weight[4];
    int32_t codes[2 * kFragments];
  };

  /// `second`: whether the columns after the first eight are meant too, where sixteen are multiplied at once. If not,
  /// they belong to another chunk, and count as zeros at places that exist.
  LTH_DEVICE static Columns load(const Element* weight, const int32_t* codes, bool second) {
    Columns result;
    const auto pair = *reinterpret_cast<const Several<int32_t, 2>*>(codes);
#pragma unroll
    for (int i = 0; i < 2; ++i) result.codes[i] = pair.at[i];
    if constexpr (kFragments == 1) {
      const auto four = *reinterpret_cast<const Several<uint32_t, 4>*>(weight);
#pragma unroll
      for (int i = 0; i < 4; ++i) result.weight[i] = four.at[i];
    } else {
      const auto after = *reinterpret_cast<const Several<int32_t, 2>*>(codes + kDepth);
      const auto two = *reinterpret_cast<const Several<uint32_t, 2>*>(weight);
      const auto two_after = *reinterpret_cast<const Several<uint32_t, 2>*>(weight + kDepth * kBlockRows);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        result.codes[2 + i] = second ? after.at[i] : result.codes[i];
        result.weight[i] = two.at[i];
        result.weight[2 + i] = second ? two_after.at[i] : 0;
      }
    }
    return result;
  }

  int lane_;
  int offsets_[kReads];
  float sums_[kTiles][4] = {};
};

template <typename A>
class Sums<A, false> {
 public:
  using Element = typename A::Element;

  LTH_DEVICE Sums(const int* offsets, int first_pixel) : lane_(device::thread_index() % kWarp) {
#pragma unroll
    for (int i = 0; i < kRuns; ++i) offsets_[i] = offsets[first_pixel + i * kWarp + lane_];
  }

  LTH_DEVICE void add(const Element* tile, const Element* weight, const int32_t* codes, int begin, int end) {
    for (int column = begin; column < end; ++column) {
      const int32_t code = codes[column];
      Element inputs[kRuns];
#pragma unroll
      for (int i = 0; i < kRuns; ++i) inputs[i] = at_bytes(tile, offsets_[i] + (code & ((1 << kCodeBits) - 1)));
      const Element* const rows = weight + static_cast<int64_t>(column) * kBlockRows;
#pragma unroll
      for (int quarter = 0; quarter < kQuarters; ++quarter) {
        if (!(static_cast<uint32_t>(code) >> (kCodeBits + quarter) & 1)) continue;
        const auto weights = *reinterpret_cast<const Several<Element, kQuarterRows>*>(rows + quarter * kQuarterRows);
#pragma unroll
        for (int row = 0; row < kQuarterRows; ++row)
#pragma unroll
          for (int i = 0; i < kRuns; ++i) sums_[quarter * kQuarterRows + row][i] += weights.at[row] * inputs[i];
      }
    }
  }

  static constexpr int kRun = 1, kRuns = kWarpPixels / kWarp, kSlots = kBlockRows;
  LTH_DEVICE int pixel(int run) const { return run * kWarp + lane_; }
  LTH_DEVICE int slot(int j) const { return j; }
  LTH_DEVICE Element at(int run, int, int j) const { return sums_[j][run]; }

  static constexpr int kSums = kBlockRows * kRuns;
  LTH_DEVICE Element& sum(int i) { return sums_[i / kRuns][i % kRuns]; }

 private:
  int lane_;
  int offsets_[kRuns];
  Element sums_[kBlockRows][kRuns] = {};
};

/// From the first to the last chunk that some block of a thread block has columns in.
struct ChunkRange {
  int begin, end;

  LTH_DEVICE ChunkRange(const Blocks& blocks, int first, int count, int chunk_columns) : begin(blocks.chunks), end(0) {
    for (int block = first; block < first + count && block < blocks.blocks; ++block) {
      const int first_column = blocks.chunk_begin(block, 0);
      int last_column = blocks.chunk_begin(block, blocks.chunks) - 1;
      if (last_column < first_column) continue;
      while (blocks.columns[last_column] < 0) --last_column;  // Holes.
      const int first_chunk = blocks.columns[first_column] / chunk_columns;
      const int last_chunk = blocks.columns[last_column] / chunk_columns;
      begin = first_chunk < begin ? first_chunk : begin;
      end = last_chunk >= end ? last_chunk + 1 : end;
    }
  }
};

/// The columns of a warp, one of 2^log_parts that share those of a block in a chunk, in eights.
struct ColumnShare {
  int begin, end;

  LTH_DEVICE ColumnShare(const Blocks& blocks, int block, int chunk, int part, int log_parts) {
    const int first = blocks.chunk_begin(block, chunk), last = blocks.chunk_begin(block, chunk + 1);
    const int each = ((last - first) / kDepth + (1 << log_parts) - 1 >> log_parts) * kDepth;
    begin = first + part * each < last ? first + part * each : last;
    end = begin + each < last ? begin + each : last;
  }
};

template <typename A>
LTH_KERNEL(kMostThreads, kThreadBlocks<A>)
correlation_kernel(Geometry geometry, Tiling tiling, Grid grid, Blocks blocks, const typename A::Element* input,
                   Steps input_steps, const typename A::Element* weight, const int32_t* codes,
                   const typename A::Element* bias, typename A::Element* output, Steps output_steps, bool runs) {
  // The blocks of one tile of positions follow each other, so that its input comes from the second-level cache.
  const int groups = (blocks.blocks + tiling.block_count - 1) / tiling.block_count;
  const int first_block = device::block_index() % groups * tiling.block_count;
  const int warp = device::thread_index() / kWarp, block = first_block + warp % tiling.block_count;
  const int first_pixel = warp / tiling.block_count % tiling.pixel_warps * kWarpPixels;
  const int sharing = tiling.block_count * tiling.pixel_warps, part = warp / sharing;
  const bool exists = block < blocks.blocks;

  using Element = typename A::Element;
  Tile<Element> tile(geometry, tiling, grid);
  tile.prepare();
  tile.stand_at(device::block_index() / groups);
  device::sync_threads();
  tile.find_input(input_steps, 0);
  device::sync_threads();
  Sums<A> sums(tile.offsets(), first_pixel);

  const ChunkRange chunks(blocks, first_block, tiling.block_count, tiling.chunk_channels * geometry.taps());
  const auto share = tile.input_share(input_steps.channel);
  // As many chunks are on their way as there are buffers beside the one that is multiplied. The copy stands at one place
  // only, for the sake of the instruction cache.
  const int ahead = tiling.buffers - 1, log_parts = device::log2_of(tiling.column_warps);
  int filled = 0, buffer = 0;
  for (int coming = chunks.begin; coming < chunks.end + ahead; ++coming) {
    const int chunk = coming - ahead;
    if (ahead > 0 && chunk >= chunks.begin) {
      if (ahead > 1)
        device::wait_copies<1>();
      else
        device::wait_copies<0>();
      device::sync_threads();
    }
    if (coming < chunks.end)
      tile.copy_input(share, filled, 0, input, input_steps.channel, coming, blocks.channels);
    device::commit_copies();
    filled = filled < ahead ? filled + 1 : 0;
    if (chunk < chunks.begin) continue;
    if (ahead == 0) {
      device::wait_copies<0>();
      device::sync_threads();
    }
    if constexpr (A::kPairs) {
      tile.shift_input(buffer);
      device::sync_threads();
    }
    if (exists) {
      const ColumnShare columns(blocks, block, chunk, part, log_parts);
      sums.add(tile.planes(buffer), weight, codes, columns.begin, columns.end);
    }
    if (ahead == 0) device::sync_threads();
    buffer = buffer < ahead ? buffer + 1 : 0;
  }
  if (tiling.column_warps > 1) {
    // The tables of positions are still needed, and lie behind what is overwritten.
    device::sync_threads();
    add_up(sums, warp, sharing, tiling.column_warps);
  }

  if (!exists || part > 0) return;
  const int phase = block / (blocks.blocks / geometry.phases());
  const int phase_row = phase / geometry.out_stride[1], phase_column = phase % geometry.out_stride[1];
  int channels[Sums<A>::kSlots];
  typename A::Sum shifts[Sums<A>::kSlots];
#pragma unroll
  for (int j = 0; j < Sums<A>::kSlots; ++j) {
    channels[j] = blocks.slot_rows[block * kBlockRows + sums.slot(j)];
    shifts[j] = bias != nullptr && channels[j] >= 0 ? A::sum_of(bias[channels[j]]) : typename A::Sum{};
  }
  // Where a pixel's channel 0 goes; null for one that does not exist.
  const auto place = [&](int pixel) -> Element* {
    const Position at = tile.position(pixel);
    const int row = at.row * geometry.out_stride[0] + phase_row, column = at.column * geometry.out_stride[1] + phase_column;
    if (at.image < 0 || row >= geometry.out_size[0] || column >= geometry.out_size[1]) return nullptr;
    return output + (at.image * output_steps.image + row * output_steps.row + column * output_steps.column);
  };
  constexpr int kRun = Sums<A>::kRun;
#pragma unroll
  for (int run = 0; run < Sums<A>::kRuns; ++run) {
    if (runs) {
      Element* const to = place(first_pixel + sums.pixel(run));
      if (to == nullptr) continue;
#pragma unroll
      for (int j = 0; j < Sums<A>::kSlots; ++j) {
        if (channels[j] < 0) continue;
        Several<Element, kRun> several;
#pragma unroll
        for (int i = 0; i < kRun; ++i) several.at[i] = A::element_of(sums.at(run, i, j) + shifts[j]);
        *reinterpret_cast<Several<Element, kRun>*>(to + channels[j] * output_steps.channel) = several;
      }
    } else {
#pragma unroll
      for (int i = 0; i < kRun; ++i) {
        Element* const to = place(first_pixel + sums.pixel(run) + i);
        if (to == nullptr) continue;
#pragma unroll
        for (int j = 0; j < Sums<A>::kSlots; ++j)
          if (channels[j] >= 0) to[channels[j] * output_steps.channel] = A::element_of(sums.at(run, i, j) + shifts[j]);
      }
    }
  }
}

/// Whether runs of neighbouring positions are neighbouring elements of the output, aligned to the size of a run.
template <typename A>
bool stores_runs(const Geometry& geometry, const Tiling& tiling, const typename A::Element* output, const Steps& steps) {
  constexpr int kRun = Sums<A>::kRun;
  const auto whole = [](int64_t number) { return number % kRun == 0; };
  return steps.column == 1 && geometry.out_stride[1] == 1 && whole(tiling.columns) && whole(geometry.out_size[1]) &&
         whole(steps.row) && whole(steps.channel) && whole(steps.image) &&
         reinterpret_cast<uintptr_t>(output) % sizeof(Several<typename A::Element, kRun>) == 0;
}

}  // namespace

template <typename A>
void correlate(const Geometry& geometry, const Tiling& tiling, const Grid& grid, const Blocks& blocks,
               const typename A::Element* input, const Steps& input_steps, const typename A::Element* weight,
               const int32_t* codes, const typename A::Element* bias, typename A::Element* output,
               const Steps& output_steps, const device::Stream& stream) {
  const int64_t groups = (blocks.blocks + tiling.block_count - 1) / tiling.block_count;
  if (grid.tiles() == 0) return;
  device::launch(correlation_kernel<A>, groups * grid.tiles(), tiling.threads(), tiling.shared_bytes, stream, geometry,
                 tiling, grid, blocks, input, input_steps, weight, codes, bias, output, output_steps,
                 stores_runs<A>(geometry, tiling, output, output_steps));
}

#define LTH_INSTANTIATE(A)                                                                                          \
  template void correlate<A>(const Geometry&, const Tiling&, const Grid&, const Blocks&, const A::Element*,         \
                             const Steps&, const A::Element*, const int32_t*, const A::Element*, A::Element*, \
                             const Steps&, const device::Stream&);
LTH_FOR_EACH_ARITHMETIC(LTH_INSTANTIATE)

}  // namespace lth_sparse::cuda
