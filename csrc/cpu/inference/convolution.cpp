// Convolutions: the live weights alone where they are few, all of them where they are most.
#include <algorithm>

#include "steps.h"
#include "tiling.h"

namespace lth_sparse::inference {
namespace {

/// Of the first-level cache, what the input of a block of channels may take: more than it has, for few of its lines are read.
constexpr int64_t kBytesOfABlock = 40 << 10;
constexpr int64_t kMostOutputs = 256, kFewestOutputs = 16, kTasksAThread = 6;
/// From this share of live weights on a layer is dense.
constexpr double kDense = 0.5;

/// How many outputs a task computes, so that there are enough tasks. What is gathered is gathered for each.
int64_t outputs_of_a_task(int64_t outputs, int64_t tiles, int threads, bool gathers, int64_t multiple) {
  int64_t result = gathers ? outputs : std::min(outputs, kMostOutputs);
  const int64_t wanted = (gathers ? 2 : kTasksAThread) * threads;
  while (threads > 1 && tiles * ceil_div(outputs, result) < wanted && result > kFewestOutputs) result = ceil_div(result, 2);
  return std::min(outputs, ceil_div(result, multiple) * multiple);
}

/// What a thread gathers, and what it keeps between blocks of channels.
float* gathered_memory(int64_t floats) {
  static thread_local Arena arena;
  return arena.take<float>(floats);
}
float* sums_memory(int64_t floats) {
  static thread_local Arena arena;
  return arena.take<float>(floats);
}

class SparseStep : public Step {
 public:
  SparseStep(const Planner& planner, const Operation& operation, const Operand& in, const Operand* added, const Operand& out)
      : kernels_(planner.kernels),
        tiling_(planner, operation.window, in, added, out, kMostVectors),
        bias_(operation.bias),
        bounds_(operation.bounds) {
    const Convolution& window = operation.window;
    outputs_ = outputs_of_a_task(window.out_channels, static_cast<int64_t>(tiling_.tiles.size()), planner.threads,
                                 tiling_.gathers, 1);
    for (int64_t first = 0; first < window.out_channels; first += outputs_)
      chunks_.push_back(chunk(operation.weights, first, std::min(outputs_, window.out_channels - first)));
  }

  int64_t tasks() const override { return static_cast<int64_t>(tiling_.tiles.size() * chunks_.size()); }
  void run(const Frame& frame, int64_t begin, int64_t end) const override {
    const int64_t lanes = kernels_.lanes, chunks = static_cast<int64_t>(chunks_.size());
    float* const sums = sums_memory(outputs_ * tiling_.most_vectors * lanes);
    for (int64_t task = begin; task < end; ++task) {
      const Tile& tile = tiling_.tiles[task / chunks];
      const Chunk& chunk = chunks_[task % chunks];
      TileCall call{};
      call.in = tiling_.gathers ? gathered(frame, tile, chunk) : tiling_.input(frame, tile);
      call.in_step = tiling_.in_step;
      call.entries = chunk.entries.data();
      call.outputs = chunk.outputs;
      call.bias = bias_.data() + chunk.first;
      call.sums = sums;
      call.out = tiling_.output(frame, tile, chunk.first);
      call.out_step = tiling_.out.place.channel_step;
      call.added = tiling_.added(frame, tile, chunk.first);
      call.added_step = tiling_.added_step();
      call.mask = tiling_.mask(tile);
      call.least = bounds_.least;
      call.greatest = bounds_.greatest;
      const int64_t blocks = static_cast<int64_t>(chunk.starts.size());
      for (int64_t block = 0; block < blocks; ++block) {
        call.starts = chunk.starts[block].data();
        kernels_.tile[tile.vectors - 1][block == 0][block == blocks - 1](call);
      }
    }
  }

 private:
  /// Some of the outputs, and their live weights by blocks of the columns that they have.
  struct Chunk {
    int64_t first, outputs;
    std::vector<Entry> entries;
    std::vector<std::vector<int32_t>> starts;  // [blocks][outputs + 1]
    std::vector<int32_t> columns;              // those that are gathered
  };

  Chunk chunk(const Weights& weights, int64_t first, int64_t outputs) const {
    const Convolution& window = tiling_.window;
    const int64_t taps = window.taps(), per_group = window.out_channels / window.groups;
    const int64_t columns_per_group = window.in_channels / window.groups * taps, all = window.in_channels * taps;
    Chunk result{first, outputs, {}, {}, {}};
    std::vector<int32_t> place(all, -1);  // Of a live column among the live ones.
    for (int64_t o = first; o < first + outputs; ++o)
      for (int32_t e = weights.row_offsets[o]; e < weights.row_offsets[o + 1]; ++e)
        place[o / per_group * columns_per_group + weights.columns[e]] = 0;
    std::vector<int64_t> first_of_block{0};  // The places at which blocks begin; they begin with a channel.
    const int64_t floats = tiling_.gathers ? tiling_.most_vectors * kernels_.lanes : tiling_.footprint(tiling_.most_vectors);
    // Where hardly two outputs share an input, there is nothing to be kept in the cache for them.
    const int64_t most = per_group <= 4 ? all : std::max<int64_t>(4, kBytesOfABlock / (floats * static_cast<int64_t>(sizeof(float))));
    int64_t live = 0, units = 0;
    for (int64_t channel = 0, column = 0; channel < window.in_channels; ++channel) {
      const int64_t before = live;
      for (int64_t tap = 0; tap < taps; ++tap, ++column) {
        if (place[column] < 0) continue;
        place[column] = static_cast<int32_t>(live++);
        if (tiling_.gathers) result.columns.push_back(static_cast<int32_t>(column));
      }
      const int64_t more = tiling_.gathers ? live - before : live > before;
      if (units > 0 && units + more > most) {
        first_of_block.push_back(before);
        units = 0;
      }
      units += more;
    }
    const int64_t gathered_step = tiling_.most_vectors * kernels_.lanes;
    std::vector<int32_t> next(weights.row_offsets.begin() + first, weights.row_offsets.begin() + first + outputs);
    for (size_t block = 0; block < first_of_block.size(); ++block) {
      const int64_t end = block + 1 < first_of_block.size() ? first_of_block[block + 1] : live;
      std::vector<int32_t>& starts = result.starts.emplace_back();
      for (int64_t o = 0; o < outputs; ++o) {
        starts.push_back(static_cast<int32_t>(result.entries.size()));
        const int64_t before = (first + o) / per_group * columns_per_group;
        for (int32_t& e = next[o]; e < weights.row_offsets[first + o + 1]; ++e) {
          const int64_t column = before + weights.columns[e];
          if (place[column] >= end) break;
          const int64_t offset = tiling_.gathers ? place[column] * gathered_step : tiling_.offset(column / taps, column % taps);
          result.entries.push_back({static_cast<int32_t>(offset), weights.values[e]});
        }
      }
      starts.push_back(static_cast<int32_t>(result.entries.size()));
    }
    return result;
  }

  const float* gathered(const Frame& frame, const Tile& tile, const Chunk& chunk) const {
    const int64_t step = tiling_.most_vectors * kernels_.lanes;
    float* const memory = gathered_memory(std::max<int64_t>(1, static_cast<int64_t>(chunk.columns.size())) * step);
    for (size_t k = 0; k < chunk.columns.size(); ++k) tiling_.gather(frame, tile, chunk.columns[k], memory + k * step);
    return memory;
  }

  const Kernels& kernels_;
  Tiling tiling_;
  std::vector<float> bias_;
  Bounds bounds_;
  int64_t outputs_;
  std::vector<Chunk> chunks_;
};

/// A layer with most of its weights, as the first one of most networks.
class DenseStep : public Step {
 public:
  DenseStep(const Planner& planner, const Operation& operation, const Operand& in, const Operand* added, const Operand& out)
      : kernels_(planner.kernels),
        tiling_(planner, operation.window, in, added, out, planner.kernels.dense_vectors),
        bias_(operation.bias),
        bounds_(operation.bounds) {
    const Convolution& window = operation.window;
    const int64_t group = kernels_.dense_group, columns = window.in_channels * window.taps();
    outputs_ = outputs_of_a_task(window.out_channels, static_cast<int64_t>(tiling_.tiles.size()), planner.threads,
                                 tiling_.gathers, group);
    for (int64_t column = 0; column < columns; ++column)
      offsets_.push_back(static_cast<int32_t>(tiling_.gathers ? column * tiling_.most_vectors * kernels_.lanes
                                                              : tiling_.offset(column / window.taps(), column % window.taps())));
    bias_.resize(ceil_div(window.out_channels, group) * group, 0.0f);
    weights_.resize(bias_.size() * columns, 0.0f);
    for (int64_t o = 0; o < window.out_channels; ++o)
      for (int32_t e = operation.weights.row_offsets[o]; e < operation.weights.row_offsets[o + 1]; ++e)
        weights_[(o / group * columns + operation.weights.columns[e]) * group + o % group] = operation.weights.values[e];
  }

  int64_t tasks() const override {
    return static_cast<int64_t>(tiling_.tiles.size()) * ceil_div(tiling_.window.out_channels, outputs_);
  }
  void run(const Frame& frame, int64_t begin, int64_t end) const override {
    const int64_t out_channels = tiling_.window.out_channels, chunks = ceil_div(out_channels, outputs_);
    const int64_t columns = static_cast<int64_t>(offsets_.size()), group = kernels_.dense_group;
    for (int64_t task = begin; task < end; ++task) {
      const Tile& tile = tiling_.tiles[task / chunks];
      const int64_t first = task % chunks * outputs_;
      DenseTileCall call{};
      call.in = tiling_.gathers ? gathered(frame, tile) : tiling_.input(frame, tile);
      call.in_step = tiling_.in_step;
      call.offsets = offsets_.data();
      call.taps = columns;
      call.out_step = tiling_.out.place.channel_step;
      call.added_step = tiling_.added_step();
      call.mask = tiling_.mask(tile);
      call.least = bounds_.least;
      call.greatest = bounds_.greatest;
      for (int64_t o = first; o < std::min(out_channels, first + outputs_); o += group) {
        call.weights = weights_.data() + o * columns;
        call.bias = bias_.data() + o;
        call.outputs = static_cast<int>(std::min(group, out_channels - o));
        call.out = tiling_.output(frame, tile, o);
        call.added = tiling_.added(frame, tile, o);
        kernels_.dense[tile.vectors - 1](call);
      }
    }
  }

 private:
  const float* gathered(const Frame& frame, const Tile& tile) const {
    const int64_t step = tiling_.most_vectors * kernels_.lanes, columns = static_cast<int64_t>(offsets_.size());
    float* const memory = gathered_memory(columns * step);
    for (int64_t column = 0; column < columns; ++column) tiling_.gather(frame, tile, column, memory + column * step);
    return memory;
  }

  const Kernels& kernels_;
  Tiling tiling_;
  std::vector<float> bias_, weights_;
  Bounds bounds_;
  int64_t outputs_;
  std::vector<int32_t> offsets_;
};

}  // namespace

std::unique_ptr<Step> Planner::convolution(const Operation& operation, const Operand& in, const Operand* added,
                                           const Operand& out) const {
  const Convolution& window = operation.window;
  const double all = static_cast<double>(window.out_channels) * static_cast<double>(window.in_channels / window.groups * window.taps());
  if (window.groups == 1 && static_cast<double>(operation.weights.live()) >= kDense * all)
    return std::make_unique<DenseStep>(*this, operation, in, added, out);
  return std::make_unique<SparseStep>(*this, operation, in, added, out);
}

}  // namespace lth_sparse::inference
