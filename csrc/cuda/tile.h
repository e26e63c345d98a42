// A tile of positions of a thread block: which they are, and what of the input and of the output's gradient they read,
// brought into shared memory by asynchronous copies.
//
// Layout of shared memory: for each buffer the planes of the input, [chunk_channels][plane_pitch], with pairs the same
// again, shifted by an element, then the rows of the gradient, [16 * block_count][gradient_pitch]; then tables, worked
// out once a thread block, which spare the copies all arithmetic on coordinates: where each piece of a plane lies, and
// where it comes from.
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
    sources_ = places_ + entries_;
    offsets_ = sources_ + entries_;
    positions_ = offsets_ + tiling.tile_positions();
    gradient_sources_ = positions_ + tiling.tile_positions();
  }

  /// Works out what no tile changes. A barrier has to follow.
  LTH_DEVICE void prepare() {
    const int stride = geometry_.in_stride[1];
    for (int entry = device::thread_index(); entry < entries_; entry += device::thread_count()) {
      const Position at = entry_position(entry);
      const int across = stride == 1 ? at.column * tiling_.piece : at.column % stride * tiling_.split_pitch + at.column / stride;
      places_[entry] = at.image * tiling_.image_pitch + at.row * tiling_.row_pitch + across;
    }
    const int pixels = tiling_.rows * tiling_.columns, all = tiling_.images * pixels;
    for (int index = device::thread_index(); index < tiling_.tile_positions(); index += device::thread_count()) {
      // Positions beyond the last one read what the first one does, and are not stored.
      const int inside = index < all ? index : 0;
      const Position at{inside / pixels, inside % pixels / tiling_.columns, inside % tiling_.columns};
      const int place = at.image * tiling_.image_pitch + at.row * geometry_.in_stride[0] * tiling_.row_pitch + at.column;
      offsets_[index] = place * static_cast<int>(sizeof(Element));
      positions_[index] = index < all ? at.packed() : -1;
    }
  }

  /// Goes to tile `index` of the grid.
  LTH_DEVICE void stand_at(int index) {
    const int across = index % grid_.counts[2], down = index / grid_.counts[2] % grid_.counts[1];
    origin_ = {index / (grid_.counts[2] * grid_.counts[1]) * tiling_.images, down * tiling_.rows,
               across * tiling_.columns};
  }

  /// The same, and finds where its input comes from, in a tensor with these steps. A barrier has to follow.
  LTH_DEVICE void move_to(int index, const Steps& steps) {
    stand_at(index);
    const int first_row = origin_.row * geometry_.in_stride[0] + tiling_.first_row_shift;
    const int first_column = origin_.column * geometry_.in_stride[1] + tiling_.first_column_shift - tiling_.left;
    for (int entry = device::thread_index(); entry < entries_; entry += device::thread_count()) {
      const Position at = entry_position(entry);
      const int image = origin_.image + at.image, row = first_row + at.row;
      const int column = first_column + at.column * tiling_.piece;
      const bool inside = image < grid_.images && row >= 0 && row < geometry_.in_size[0] && column >= 0 &&
                          column < geometry_.in_size[1];
      sources_[entry] = inside ? image * steps.image + row * steps.row + column * steps.column : -1;
    }
  }

  /// The same for the gradient of the output, whose positions are the tile's own.
  LTH_DEVICE void move_gradient(const Steps& steps) {
    const int count = tiling_.tile_positions() / tiling_.gradient_piece;
    for (int entry = device::thread_index(); entry < count; entry += device::thread_count()) {
      const Position at = position(entry * tiling_.gradient_piece);
      gradient_sources_[entry] = at.image < 0 ? -1 : at.image * steps.image + at.row * steps.row + at.column * steps.column;
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

  /// Begins to copy the channels of a chunk, of all `channels`, into a buffer.
  LTH_DEVICE void copy_input(int buffer, const Element* input, int channel_step, int chunk, int channels) {
    const int first = chunk * tiling_.chunk_channels;
    Element* const to = planes(buffer);
    with_elements(tiling_.piece, [&](auto elements) {
      each_piece(tiling_.chunk_channels, entries_, channel_step == 1, [&](int plane, int entry) {
        const int channel = first + plane, source = sources_[entry];
        if (channel >= channels) return;  // No column reads it.
        copy<decltype(elements)::value>(to + plane * tiling_.plane_pitch + places_[entry],
                                        input + (source < 0 ? 0 : channel * channel_step + source), source >= 0);
      });
    });
  }

  /// Begins to copy the gradient in the channels of so many slots into a buffer; empty slots (-1) are zeros.
  LTH_DEVICE void copy_gradient(int buffer, const Element* gradient, int channel_step, const int32_t* slot_rows,
                                int slots) {
    const int count = tiling_.tile_positions() / tiling_.gradient_piece;
    Element* const to = this->gradient(buffer);
    with_elements(tiling_.gradient_piece, [&](auto elements) {
      each_piece(tiling_.block_count * kBlockRows, count, channel_step == 1, [&](int row, int entry) {
        const int channel = row < slots ? slot_rows[row] : -1, source = gradient_sources_[entry];
        const bool exists = channel >= 0 && source >= 0;
        copy<decltype(elements)::value>(to + row * tiling_.gradient_pitch + entry * decltype(elements)::value,
                                        gradient + (exists ? channel * channel_step + source : 0), exists);
      });
    });
  }

  /// Rounds what this thread has copied into a buffer, once it is there.
  template <typename A>
  LTH_DEVICE void round_input(int buffer, int channel_step, int chunk, int channels) {
    if constexpr (std::is_same_v<A, Tf32>) {
      const int first = chunk * tiling_.chunk_channels;
      each_piece(tiling_.chunk_channels, entries_, channel_step == 1, [&](int plane, int entry) {
        if (first + plane < channels)
          round_piece(this->planes(buffer) + plane * tiling_.plane_pitch + places_[entry], tiling_.piece);
      });
    }
  }
  template <typename A>
  LTH_DEVICE void round_gradient(int buffer, int channel_step) {
    if constexpr (std::is_same_v<A, Tf32>) {
      const int count = tiling_.tile_positions() / tiling_.gradient_piece;
      each_piece(tiling_.block_count * kBlockRows, count, channel_step == 1, [&](int row, int entry) {
        round_piece(this->gradient(buffer) + row * tiling_.gradient_pitch + entry * tiling_.gradient_piece,
                    tiling_.gradient_piece);
      });
    }
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
  LTH_DEVICE Position entry_position(int entry) const {
    const int across = entries_per_row(), down = entry / across;
    return {down / tiling_.in_rows, down % tiling_.in_rows, entry % across};
  }

  /// Calls body(plane, entry) for this thread's share; planes are a power of two. Neighbouring lanes have neighbouring
  /// entries; where memory runs along channels, eight planes by four entries, which fill whole sectors and meet in no
  /// bank more than twice.
  template <typename Body>
  LTH_DEVICE static void each_piece(int planes, int entries, bool across_planes, Body body) {
    const int across = across_planes ? (planes < 8 ? device::log2_of(planes) : 3) : 0;  // Of the lanes, as a power of two.
    const int along = 5 - across, groups = device::log2_of(planes) - across;
    const int items = (entries + (1 << along) - 1) >> along << groups;
    const int lane = device::thread_index() % kWarp, warps = device::thread_count() / kWarp;
    const int plane_of_lane = lane & ((1 << across) - 1), entry_of_lane = lane >> across;
    for (int item = device::thread_index() / kWarp; item < items; item += warps) {
      const int plane = ((item & ((1 << groups) - 1)) << across) + plane_of_lane;
      const int entry = (item >> groups << along) + entry_of_lane;
      if (entry < entries) body(plane, entry);
    }
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

  LTH_DEVICE static void round_piece(Element* shared, int elements) {
    if (elements == 4) {
      Several<Element, 4> piece = *reinterpret_cast<const Several<Element, 4>*>(shared);
      for (Element& element : piece.at) element = Tf32::rounded(element);
      *reinterpret_cast<Several<Element, 4>*>(shared) = piece;
    } else {
      for (int i = 0; i < elements; ++i) shared[i] = Tf32::rounded(shared[i]);
    }
  }

  const Geometry& geometry_;
  const Tiling& tiling_;
  const Grid& grid_;
  int entries_, buffer_elements_;
  Position origin_{0, 0, 0};
  Element* planes_;
  int *places_, *sources_, *offsets_, *positions_, *gradient_sources_;
};

}  // namespace lth_sparse::cuda
