// A tile of positions of a thread block: which they are, and what of the input and of the output's gradient they read,
// brought into shared memory by asynchronous copies.
//
// Layout of shared memory: for each buffer the planes of the input, [chunk_channels][plane_pitch], with pairs the same
// again, shifted by an element, then the rows of the gradient, [16 * block_count][gradient_pitch]; then tables, which
// spare the copies all arithmetic on coordinates: where each piece of a plane lies, and where it comes from.
//
// A thread copies the same piece of plane after plane, so that a copy is two additions and itself.
//
// Elements of two bytes that cannot be copied in pieces (channels_last, odd widths) are loaded and stored, which no
// asynchronous copy can do: the threads wait for them before they multiply what came before.
#pragma once

#include <type_traits>

#include "arithmetic.h"

namespace lth_sparse::cuda {

/// A position within a tile, or in an image: three coordinates in one integer.
struct Position {
  int image, row, column;

  LTH_DEVICE int packed() const { return static_cast<int>(static_cast<unsigned>(image) << 24 | row << 12 | column); }
  LTH_DEVICE static Position unpacked(int packed) {
    return {static_cast<int>(static_cast<unsigned>(packed) >> 24), packed >> 12 & 0xFFF, packed & 0xFFF};
  }
};

/// Divides numbers below 2^21 by one of them, in fewer instructions than a division has.
class Divisor {
 public:
  LTH_DEVICE explicit Divisor(int divisor) : divisor_(divisor), inverse_(1.0f / static_cast<float>(divisor)) {}

  LTH_DEVICE int quotient(int number) const { return static_cast<int>((static_cast<float>(number) + 0.5f) * inverse_); }
  /// `number` as a position: its quotient by rows * columns, and the rest by columns.
  LTH_DEVICE static Position position(int number, const Divisor& area, const Divisor& columns) {
    const int image = area.quotient(number), rest = number - image * area.divisor_, row = columns.quotient(rest);
    return {image, row, rest - row * columns.divisor_};
  }

 private:
  int divisor_;
  float inverse_;
};

/// The entries and planes that this thread copies: from its first ones, every so many of both. Neighbouring lanes have
/// neighbouring entries; where memory runs along channels, eight planes by four entries, which fill whole sectors and
/// meet in no bank more than twice.
struct CopyShare {
  int plane, planes, entry, entries;

  /// `most`: of planes, a power of two.
  LTH_DEVICE CopyShare(int most, int count, bool across_planes) {
    const int across = !across_planes ? 0 : most < 8 ? device::log2_of(most) : 3;  // Of the lanes, as a power of two.
    const int all = device::log2_of(device::thread_count()), wanted = count > 1 ? device::log2_of(count - 1) + 1 : 0;
    const int along = wanted < all - across ? wanted : all - across;
    const int rest = device::thread_index() >> across;
    plane = (rest >> along << across) + (device::thread_index() & ((1 << across) - 1));
    planes = 1 << (all - along);
    entry = rest & ((1 << along) - 1);
    entries = 1 << along;
  }
};

template <typename Element>
class Tile {
 public:
  LTH_DEVICE Tile(const Geometry& geometry, const Tiling& tiling, const Grid& grid)
      : geometry_(geometry), tiling_(tiling), grid_(grid) {
    entries_ = tiling.images * tiling.in_rows * entries_per_row();
    buffer_elements_ = tiling.input_elements() + tiling.block_count * kBlockRows * tiling.gradient_pitch;
    unsigned char* const memory = device::shared_memory();
    planes_ = reinterpret_cast<Element*>(memory);
    const int bytes = tiling.buffers * buffer_elements_ * static_cast<int>(sizeof(Element));
    places_ = reinterpret_cast<int*>(memory + (bytes + 15) / 16 * 16);
    corners_ = places_ + entries_;
    offsets_ = corners_ + entries_;
    positions_ = offsets_ + tiling.tile_positions();
    gradient_rows_ = positions_ + tiling.tile_positions();
    sources_ = gradient_rows_ + (tiling.gradient_pitch == 0 ? 0 : tiling.block_count * kBlockRows);
  }

  /// Works out what no tile changes. A barrier has to follow.
  LTH_DEVICE void prepare() {
    const int stride = geometry_.in_stride[1], across_entries = entries_per_row();
    const Divisor plane(tiling_.in_rows * across_entries), entries_of_row(across_entries);
    for (int entry = device::thread_index(); entry < entries_; entry += device::thread_count()) {
      const Position at = Divisor::position(entry, plane, entries_of_row);
      const int across = stride == 1 ? at.column * tiling_.piece : at.column % stride * tiling_.split_pitch + at.column / stride;
      places_[entry] = at.image * tiling_.image_pitch + at.row * tiling_.row_pitch + across;
      corners_[entry] = Position{at.image, at.row, at.column * tiling_.piece}.packed();
    }
    const int pixels = tiling_.rows * tiling_.columns, all = tiling_.images * pixels;
    const Divisor image(pixels), columns(tiling_.columns);
    for (int index = device::thread_index(); index < tiling_.tile_positions(); index += device::thread_count()) {
      // Positions beyond the last one read what the first one does, and are not stored.
      const Position at = Divisor::position(index < all ? index : 0, image, columns);
      const int place = at.image * tiling_.image_pitch + at.row * geometry_.in_stride[0] * tiling_.row_pitch + at.column;
      offsets_[index] = place * static_cast<int>(sizeof(Element));
      positions_[index] = index < all ? at.packed() : -1;
    }
  }

  /// The same for the gradient: where in an image the channels of so many slots begin.
  LTH_DEVICE void prepare_gradient(int channel_step, const int32_t* slot_rows, int slots) {
    for (int row = device::thread_index(); row < tiling_.block_count * kBlockRows; row += device::thread_count()) {
      const int channel = row < slots ? slot_rows[row] : -1;
      gradient_rows_[row] = channel < 0 ? -1 : channel * channel_step;
    }
  }

  /// Goes to tile `index` of the grid.
  LTH_DEVICE void stand_at(int index) {
    const int above = index / grid_.counts[2], before = above / grid_.counts[1];
    origin_ = {before * tiling_.images, (above - before * grid_.counts[1]) * tiling_.rows,
               (index - above * grid_.counts[2]) * tiling_.columns};
  }

  /// Goes to the next tile of the grid.
  LTH_DEVICE void advance() {
    origin_.column += tiling_.columns;
    if (origin_.column < grid_.counts[2] * tiling_.columns) return;
    origin_.column = 0;
    origin_.row += tiling_.rows;
    if (origin_.row < grid_.counts[1] * tiling_.rows) return;
    origin_.row = 0;
    origin_.image += tiling_.images;
  }

  /// Finds for one of the tables where this tile's input comes from, in a tensor with these steps. A barrier has to
  /// follow, as one has to lie between the last copy by that table and this.
  LTH_DEVICE void find_input(const Steps& steps, int table) {
    int* const sources = this->sources(table);
    const int first_row = origin_.row * geometry_.in_stride[0] + tiling_.first_row_shift;
    const int first_column = origin_.column * geometry_.in_stride[1] + tiling_.first_column_shift - tiling_.left;
    for (int entry = device::thread_index(); entry < entries_; entry += device::thread_count()) {
      const Position at = Position::unpacked(corners_[entry]);
      const int image = origin_.image + at.image, row = first_row + at.row, column = first_column + at.column;
      const bool inside = image < grid_.images && row >= 0 && row < geometry_.in_size[0] && column >= 0 &&
                          column < geometry_.in_size[1];
      sources[entry] = inside ? image * steps.image + row * steps.row + column * steps.column : -1;
    }
  }

  /// The same for the gradient of the output, whose positions are the tile's own.
  LTH_DEVICE void find_gradient(const Steps& steps, int table) {
    int* const sources = this->sources(table) + entries_;
    for (int entry = device::thread_index(); entry < gradient_entries(); entry += device::thread_count()) {
      const Position at = position(entry * tiling_.gradient_piece);
      sources[entry] = at.image < 0 ? -1 : at.image * steps.image + at.row * steps.row + at.column * steps.column;
    }
  }

  /// Position `index` of the tile as image, row and column of the whole; image -1 where there is none.
  LTH_DEVICE Position position(int index) const {
    if (positions_[index] == -1) return {-1, 0, 0};
    Position at = Position::unpacked(positions_[index]);
    at.image += origin_.image;
    at.row += origin_.row;
    at.column += origin_.column;
    if (at.image >= grid_.images || at.row >= geometry_.positions[0] || at.column >= geometry_.positions[1])
      at.image = -1;
    return at;
  }

  /// Whether every position of the tile exists.
  LTH_DEVICE bool whole() const {
    return tiling_.images * tiling_.rows * tiling_.columns == tiling_.tile_positions() &&
           origin_.image + tiling_.images <= grid_.images && origin_.row + tiling_.rows <= geometry_.positions[0] &&
           origin_.column + tiling_.columns <= geometry_.positions[1];
  }

  /// What this thread copies of a chunk, and of the gradient.
  LTH_DEVICE CopyShare input_share(int channel_step) const { return {tiling_.chunk_channels, entries_, channel_step == 1}; }
  LTH_DEVICE CopyShare gradient_share(int channel_step) const {
    return {tiling_.block_count * kBlockRows, gradient_entries(), channel_step == 1};
  }

  /// Begins to copy the channels of a chunk, of all `channels`, into a buffer, by a table of sources.
  LTH_DEVICE void copy_input(const CopyShare& share, int buffer, int table, const Element* input, int channel_step, int chunk,
                             int channels) {
    const int first = chunk * tiling_.chunk_channels, left = channels - first;
    const int planes = left < tiling_.chunk_channels ? left : tiling_.chunk_channels;  // No column reads the others.
    const int* const sources = this->sources(table);
    with_elements(tiling_.piece, [&](auto elements) {
      for (int entry = share.entry; entry < entries_; entry += share.entries) {
        const int source = sources[entry];
        const Element* from = input + (source < 0 ? 0 : (first + share.plane) * channel_step + source);
        Element* to = this->planes(buffer) + share.plane * tiling_.plane_pitch + places_[entry];
        const int from_step = source < 0 ? 0 : share.planes * channel_step, to_step = share.planes * tiling_.plane_pitch;
#pragma unroll 4
        for (int plane = share.plane; plane < planes; plane += share.planes) {
          copy<decltype(elements)::value>(to, from, source >= 0);
          from += from_step;
          to += to_step;
        }
      }
    });
  }

  /// Begins to copy the gradient into a buffer, by a table of sources; empty slots are zeros.
  LTH_DEVICE void copy_gradient(const CopyShare& share, int buffer, int table, const Element* gradient) {
    const int rows = tiling_.block_count * kBlockRows;
    const int* const sources = this->sources(table) + entries_;
    with_elements(tiling_.gradient_piece, [&](auto elements) {
      for (int entry = share.entry; entry < gradient_entries(); entry += share.entries) {
        const int source = sources[entry];
        Element* to = this->gradient(buffer) + share.plane * tiling_.gradient_pitch + entry * decltype(elements)::value;
#pragma unroll 4
        for (int row = share.plane; row < rows; row += share.planes) {
          const int begin = gradient_rows_[row];
          const bool exists = begin >= 0 && source >= 0;
          copy<decltype(elements)::value>(to, gradient + (exists ? begin + source : 0), exists);
          to += share.planes * tiling_.gradient_pitch;
        }
      }
    });
  }

  /// Makes the shifted input of a buffer, once all threads' copies are there. A barrier has to be before and after.
  LTH_DEVICE void shift_input(int buffer) {
    const int elements = tiling_.input_elements() / 2;
    Element* const from = planes(buffer);
    for (int i = 2 * device::thread_index(); i < elements; i += 2 * device::thread_count()) {
      from[elements + i] = from[i + 1];
      if (i + 2 < elements) from[elements + i + 1] = from[i + 2];
    }
  }

  LTH_DEVICE Element* planes(int buffer) const { return planes_ + buffer * buffer_elements_; }
  LTH_DEVICE Element* gradient(int buffer) const {
    return planes(buffer) + tiling_.input_elements();
  }

  /// Where in a plane each position of the tile reads with the first of all shifts, in bytes.
  LTH_DEVICE const int* offsets() const { return offsets_; }

 private:
  LTH_DEVICE int entries_per_row() const {
    return geometry_.in_stride[1] == 1 ? (tiling_.left + tiling_.in_columns + tiling_.piece - 1) / tiling_.piece
                                       : tiling_.in_columns;
  }

  LTH_DEVICE int gradient_entries() const { return tiling_.tile_positions() / tiling_.gradient_piece; }

  /// Of the input, then of the gradient. With a gradient there is a table for each buffer.
  LTH_DEVICE int* sources(int table) const {
    return sources_ + (tiling_.gradient_pitch == 0 ? 0 : table * (entries_ + gradient_entries()));
  }

  /// Calls body with the number of elements that a copy brings in as a constant: 1, or up to 16 bytes of them.
  template <typename Body>
  LTH_DEVICE static void with_elements(int elements, Body body) {
    if (elements * sizeof(Element) == 16) return body(std::integral_constant<int, 16 / sizeof(Element)>{});
    if constexpr (sizeof(Element) <= 4)
      if (elements * sizeof(Element) == 8) return body(std::integral_constant<int, 8 / sizeof(Element)>{});
    if constexpr (sizeof(Element) <= 2)
      if (elements * sizeof(Element) == 4) return body(std::integral_constant<int, 4 / sizeof(Element)>{});
    body(std::integral_constant<int, 1>{});
  }

  template <int kElements>
  LTH_DEVICE static void copy(Element* shared, const Element* global, bool valid) {
    if constexpr (kElements * sizeof(Element) >= 4)
      device::copy_async<static_cast<int>(kElements * sizeof(Element))>(shared, global, valid);
    else  // Two bytes, which is less than an asynchronous copy can do.
      *shared = valid ? *global : Element{};
  }

  const Geometry& geometry_;
  const Tiling& tiling_;
  const Grid& grid_;
  int entries_, buffer_elements_;
  Position origin_{0, 0, 0};
  Element* planes_;
  int *places_, *corners_, *offsets_, *positions_, *gradient_rows_, *sources_;
};

/// Adds up, in the first `stride` warps, what warps have that follow each other by `stride`, `count` of them, where the
/// tile was: the sums(i) of kSums. A barrier has to be before it.
template <typename Sums>
LTH_DEVICE void add_up(Sums& sums, int warp, int stride, int count) {
  using Sum = std::remove_reference_t<decltype(sums.sum(0))>;
  Sum* const room = reinterpret_cast<Sum*>(device::shared_memory());
  const int lane = device::thread_index() % kWarp;
  if (warp >= stride) {
#pragma unroll
    for (int i = 0; i < Sums::kSums; ++i) room[((warp - stride) * Sums::kSums + i) * kWarp + lane] = sums.sum(i);
  }
  device::sync_threads();
  if (warp >= stride) return;
  for (int other = 0; other < count - 1; ++other) {
#pragma unroll
    for (int i = 0; i < Sums::kSums; ++i) sums.sum(i) += room[((other * stride + warp) * Sums::kSums + i) * kWarp + lane];
  }
}

}  // namespace lth_sparse::cuda
