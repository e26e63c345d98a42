#include "blocking.h"

#include <algorithm>

namespace lth_sparse {
namespace {

// Measured on Zen 4 (32 KB of L1 and 1 MB of L2 per core) with the layers of bench/; see docs/results.

/// Below this many images, lanes of a vector of images stay empty, and pixels make better lanes.
constexpr int64_t kFewestImages = 8;
/// The accumulators of a task, all of L2: to read the rows around a strip twice costs more than to fetch some of them from L3.
/// Twice as much was slower, 64 channels by 12 %.
constexpr int64_t kOutputBytes = int64_t{1} << 20;
constexpr int64_t kInputBytes = int64_t{384} << 10;
/// Entries of a row in a block of channels: fewer, and moving the accumulators costs more than the products; more, and
/// the block falls out of L1.
constexpr double kRunLength = 14;
/// Few channels of wide images are two blocks at most: 64 of 32 x 32 at 80 and 90 %, a quarter of a pass where channels lie together,
/// for a block of less reads each pixel's memory piece by piece; else 2 to 6 %. More channels, or smaller images, lost by it.
constexpr int64_t kFewChannels = 64, kWideImage = 32;
/// Sorting by clip interrupts a row at each clip, so it needs longer runs, and enough padding to save.
constexpr int64_t kLongerRuns = 3;
constexpr double kLeastClipped = 0.2;
/// Tiles that use an entry, up to which it is not worth while to list the entries.
constexpr int64_t kFewUses = 4;
/// Output positions of a strip when lanes are pixels.
constexpr int64_t kStripPixels = 256;
/// Fewer would be of unequal size: 25 vectors, of 8 images of 7 x 7, took a sixth less time as 13 and 12 than as 16 and 9.
constexpr int64_t kFewPanels = 4;
/// Of the gradient of the weights, in all parts together, unless these are the fewest. Each part sums every value, and threads
/// read what others have summed; more threads than parts take chunks of the channels, and load the images once for each.
/// Measured with two threads.
constexpr int64_t kPartialSums = int64_t{1} << 17;
constexpr int64_t kFewestParts = 4, kMostParts = 64;

int64_t round_up(int64_t value, int64_t divisor) { return ceil_div(value, divisor) * divisor; }
/// As few parts of `value` as have at most `most` each, and are all of a size.
int64_t equal_parts(int64_t value, int64_t most) { return ceil_div(value, ceil_div(value, most)); }

/// Whether vectors of half as many lanes are better, given how many lanes there are in all with either.
bool leaves_too_many_lanes_empty(int64_t lanes, int64_t lanes_of_half) { return lanes * 9 > lanes_of_half * 10; }

/// A 1 x 1 convolution whose images are rows of pixels that vectors divide: see flatten_pixels in ops.cpp.
bool is_in_place(const Correlation& c, int width) {
  return c.pointwise() && c.phases() == 1 && c.in_stride == std::array<int64_t, 2>{1, 1} && !c.in.channels_last &&
         !c.out.channels_last && c.in.height == 1 && c.out.height == 1 && c.in.width == c.out.width &&
         c.out.width % width == 0;
}

void tile_of_pixels(const Correlation& c, const Machine& machine, Blocking& b) {
  const int64_t height = c.positions(0), width = c.positions(1);
  b.tile_columns = machine.registers >= 32 && height * width >= 16 * b.width ? 16 : 8;
  b.strip = std::clamp<int64_t>(kStripPixels / width, 1, height);
  if (b.width == 16) {
    Blocking half = b;
    half.width = 8;
    if (leaves_too_many_lanes_empty(Scratch(c, b).out_row_step(), Scratch(c, half).out_row_step())) b = half;
  }
}

/// A panel is what the registers hold; fewer than kFewPanels are of a size, for the threads to share them.
void tile_of_panels(const Correlation& c, const Machine& machine, Blocking& b) {
  const int64_t vectors = ceil_div(all_positions(c), b.width), most = machine.registers >= 32 ? 16 : 8;
  b.tile_columns = static_cast<int>(vectors < most ? 8 : most);
  b.strip = (vectors < kFewPanels * most ? equal_parts(vectors, most) : most) * b.width;
}

/// What a live weight costs an image's tiles, in products: those beyond the image's right edge too; at least eight a tile, for
/// each sum waits for its last; and to fetch the weight.
int64_t products_of_an_entry(int64_t height, int64_t width, int64_t rows, int64_t columns) {
  constexpr int64_t kFewest = 8, kFetched = 2;
  const auto of_tile = [&](int64_t height_of_tile) { return std::max(height_of_tile * columns, kFewest) + kFetched; };
  const int64_t left = height % rows;
  return ceil_div(width, columns) * (height / rows * of_tile(rows) + (left > 0 ? of_tile(left) : 0));
}

void tile_of_images(const Correlation& c, int64_t element_size, const Machine& machine, Blocking& b) {
  const int64_t height = c.positions(0), width = c.positions(1), images = c.in.count;
  const bool many = machine.registers >= 32;
  if (b.width == 16 && leaves_too_many_lanes_empty(round_up(images, 16), round_up(images, 8))) b.width = 8;
  if (width <= 2) {
    // Too narrow for a tile of one vector per position: several side by side.
    const int64_t across = many || width == 1 ? 8 : 4;
    while (b.groups * width < across && b.groups * b.width < images) b.groups *= 2;
    b.tile_columns = static_cast<int>(b.groups * width);
    if (height >= 2 && b.tile_columns == (many ? 8 : 4)) b.tile_rows = 2;
  } else {
    const int64_t side_by_side = 1 + b.pairs;
    // Sixteen accumulators of 32 registers, eight of 16, or two fewer, in the shape that takes least. Where two rows or more
    // of the image are a tile, its pixels follow each other, and it can be stored without scratch.
    constexpr int shapes[][2] = {{4, 4}, {2, 8}, {1, 16}, {2, 7}, {2, 4}, {1, 8}, {1, 7}};
    int64_t least = INT64_MAX;
    for (const auto& [rows, columns] : shapes) {
      const int64_t products = products_of_an_entry(height, ceil_div(width, side_by_side), rows, columns);
      const bool better = products < least || (products == least && rows > 1 && columns * side_by_side == width);
      if ((rows * columns > 8) == many && better) {
        least = products;
        b.tile_rows = rows;
        b.tile_columns = static_cast<int>(columns * side_by_side);
      }
    }
  }
  const int64_t row_bytes = c.rows() * round_up(width * b.groups, b.tile_columns) * b.width * element_size;
  // As few strips as fit, of equal height: a last one that is shorter would be computed in full.
  const int64_t highest = std::max<int64_t>(kOutputBytes / row_bytes, b.tile_rows);
  const int64_t strips = ceil_div(round_up(height, b.tile_rows), highest / b.tile_rows * b.tile_rows);
  b.strip = std::min(round_up(ceil_div(height, strips), b.tile_rows), height);
}

/// Whether there is a kernel that leaves out the padding of such tiles.
bool has_clipped_kernel(const Blocking& b, const Machine& machine) {
  if (b.lanes_are_pixels) return false;
  if (machine.registers >= 32)
    return (b.tile_rows == 4 && b.groups == 1) || (b.tile_rows == 2 && b.tile_columns == 8 && b.groups == 4);
  return b.tile_rows == 2 && b.tile_columns == 4 && b.groups == 2;
}

bool clips(const Correlation& c, const Blocking& b, const Machine& machine) {
  return c.taps() > 1 && has_clipped_kernel(b, machine) && Scratch(c, b).clipped() > kLeastClipped;
}

}  // namespace

Blocking choose_blocking(const Correlation& c, int64_t nnz, Element element, const Machine& machine,
                         int64_t threads, bool summed) {
  const bool contiguous = !c.in.channels_last && !c.out.channels_last;
  const int64_t element_size = bytes_computed_in(element);
  Blocking b{};
  b.width = machine.widest;
  b.in_place = is_in_place(c, b.width) && !is_converted(element);
  // Images of one pixel have none to make lanes of.
  const bool has_pixels = c.in.pixels() > 1 || c.out.pixels() > 1;
  b.panels = !b.in_place && c.pointwise() && has_pixels;
  b.lanes_are_pixels = b.in_place || b.panels || (c.in.count < kFewestImages && (contiguous || has_pixels));
  b.groups = 1;
  b.tile_rows = 1;
  b.channel_block = b.channel_chunk = 1;
  if (b.panels)
    tile_of_panels(c, machine, b);
  else if (b.lanes_are_pixels)
    tile_of_pixels(c, machine, b);
  else
    tile_of_images(c, element_size, machine, b);
  b.by_clip = clips(c, b, machine);
  if (!b.by_clip && !b.lanes_are_pixels && 2 * b.width == machine.widest && c.positions(1) > 2) {
    b.pairs = true;
    tile_of_images(c, element_size, machine, b);
  }

  if (b.in_place) {
    b.channel_block = c.in.channels;
  } else {
    const Scratch one_channel(c, b);
    const int64_t limit = std::max<int64_t>(8, kInputBytes / (one_channel.in_size() * element_size));
    const double per_channel = static_cast<double>(nnz) / static_cast<double>(c.rows() * c.in.channels);
    int64_t run = static_cast<int64_t>(std::min(kRunLength / std::max(per_channel, 1e-6), 1e6));
    if (c.in.channels <= kFewChannels && c.positions(1) >= kWideImage) run = std::max(run, ceil_div(c.in.channels, 2));
    if (b.by_clip)
      b.channel_block = std::clamp<int64_t>(kLongerRuns * run, 64, std::max<int64_t>(64, limit));
    else
      b.channel_block = b.lanes_are_pixels && !b.panels ? limit : std::clamp<int64_t>(run, 8, limit);
    b.channel_block = equal_parts(c.in.channels, b.channel_block);
    b.unlisted = !b.by_clip && b.channel_block == c.in.channels &&
                 one_channel.tasks() * static_cast<int64_t>(one_channel.tiles().size()) <= kFewUses &&
                 b.lanes_are_pixels;
  }

  const int64_t tasks = Scratch(c, b).tasks();
  // By the shapes alone, never by the number of threads: the same bits with any.
  const int64_t sums = std::clamp(kPartialSums / std::max<int64_t>(nnz, 1), kFewestParts, kMostParts);
  b.parts = summed ? std::min(tasks, sums) : tasks;
  const bool balanced = b.parts >= 2 * threads || b.parts % threads == 0;
  const int64_t chunks = balanced ? 1 : ceil_div(threads, b.parts) * (b.parts > 1 ? 2 : 1);
  b.channel_chunk = ceil_div(c.out.channels, std::min(chunks, c.out.channels));
  return b;
}

}  // namespace lth_sparse
