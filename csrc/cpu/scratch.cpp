#include "scratch.h"

#include <algorithm>

namespace lth_sparse {

Scratch::Scratch(const Correlation& correlation, const Blocking& blocking)
    : correlation_(correlation), blocking_(blocking) {
  const Blocking& b = blocking;
  if (b.panels) {
    lay_out_panels();
    return;
  }
  unit_ = b.lanes_are_pixels ? 1 : b.groups * b.width;
  strips_ = ceil_div(correlation.positions(0), b.strip);
  local_rows_ = correlation.phases() * b.channel_chunk;

  const int64_t across = b.tile_columns / b.groups;  // positions across a tile, when lanes are images
  const int64_t width = correlation.positions(1);
  const int64_t padded_rows = b.lanes_are_pixels ? b.strip : ceil_div(b.strip, b.tile_rows) * b.tile_rows;
  const int64_t padded_width = b.lanes_are_pixels ? width : ceil_div(width, across) * across;
  const bool beyond = b.by_clip && padded_rows != correlation.positions(0);
  ragged_ = b.lanes_are_pixels ? !b.in_place : padded_width != width || beyond;
  bool reads_padding = !b.by_clip;
  if (!b.lanes_are_pixels && strips_ == 1 && padded_rows == b.tile_rows && padded_width == across)
    for (const auto& shift : correlation.shifts) clips_.push_back(clip(shift, reads_padding));

  const int64_t padded[2] = {padded_rows, padded_width}, size[2] = {correlation.in.height, correlation.in.width};
  int64_t positions[2];  // that the tiles of a strip read
  for (int d = 0; d < 2; ++d) {
    int64_t least = correlation.shifts[0][d], most = least;
    for (const auto& shift : correlation.shifts) {
      least = std::min(least, shift[d]);
      most = std::max(most, shift[d]);
    }
    // What no kernel reads has no place.
    first_[d] = reads_padding ? least : 0;
    positions[d] = reads_padding ? (padded[d] - 1) * correlation.in_stride[d] + most - least + 1 : size[d];
  }
  in_rows_ = positions[0];
  rows_ = ceil_div(positions[0], correlation.in_stride[0]);
  columns_ = ceil_div(positions[1], correlation.in_stride[1]);
  // So that a tap's loads are all at even positions, which lie in one line, or all at odd ones.
  if (b.pairs) columns_ += columns_ % 2;
  const int64_t grid = correlation.in_stride[0] * correlation.in_stride[1] * rows_ * columns_;

  if (b.lanes_are_pixels) {
    const int64_t vectors = ceil_div((b.strip - 1) * columns_ + width, b.width);
    out_row_step_ = vectors * b.width;  // when in place: all pixels of a plane, which vectors divide
    tile_step_ = 0;
    last_tiles_ = tiles_ = tiles_of_pixels(vectors);
    // The last tile reads up to a vector beyond the plane: into zeros of its own channel, not into the next one.
    plane_ = b.in_place ? grid : ceil_div(grid + b.width, 16) * 16;
    out_size_ = local_rows_ * out_row_step_;
  } else {
    out_row_step_ = b.tile_rows * b.tile_columns * b.width;
    tile_step_ = local_rows_ * out_row_step_;
    tiles_across_ = padded_width / across;
    tiles_ = tiles_of_images(b.strip, across, padded_width);
    last_tiles_ = tiles_of_images(correlation.positions(0) - (strips_ - 1) * b.strip, across, padded_width);
    plane_ = grid * unit_;
    // Planes a multiple of sixteen vectors apart meet in the same few sets of L1 (with 64 of 64 bytes: 14 x 14 images, 9 %).
    const int64_t vector = b.pairs ? 2 * b.width : b.width;
    if (!b.by_clip && plane_ / vector % 16 == 0) plane_ += vector;
    out_size_ = static_cast<int64_t>(tiles_.size()) * tile_step_;
  }
  in_size_ = plane_ * b.channel_block;
}

bool Scratch::wasteful(int64_t element_size) const {
  // Strips are cut to stay in the caches, so that neither is reached where an image is larger than what a tap reaches over.
  constexpr int64_t kSmall = int64_t{16} << 20, kTensors = 4;
  if (blocking_.in_place) return false;
  if (std::max(in_size_, out_size_) > INT32_MAX) return true;
  const Images &in = correlation_.in, &out = correlation_.out;
  const int64_t tensors = in.count * in.image_step() + out.count * out.image_step();
  return (in_size_ + out_size_) * element_size > std::max(kSmall, kTensors * tensors * element_size);
}

void Scratch::lay_out_panels() {
  const Blocking& b = blocking_;
  const int64_t positions = all_positions(correlation_);
  unit_ = 1;
  first_[0] = first_[1] = in_rows_ = rows_ = columns_ = tile_step_ = 0;
  ragged_ = false;
  local_rows_ = b.channel_chunk;
  strips_ = ceil_div(positions, b.strip);
  plane_ = out_row_step_ = b.strip;
  in_size_ = plane_ * b.channel_block;
  out_size_ = local_rows_ * out_row_step_;
  tiles_ = tiles_of_pixels(b.strip / b.width);
  last_tiles_ = tiles_of_pixels(ceil_div(positions - (strips_ - 1) * b.strip, b.width));
}

std::vector<Tile> Scratch::tiles_of_pixels(int64_t vectors) const {
  std::vector<Tile> tiles;
  for (int64_t vector = 0; vector < vectors;) {
    // What is left is one tile if it can: to go through the entries once more costs more than an odd width.
    const int64_t left = vectors - vector;
    int64_t count = blocking_.tile_columns;
    while (count > left) count = left <= 8 ? left : count / 2;
    tiles.push_back({vector * blocking_.width, vector * blocking_.width, 1, static_cast<int>(count)});
    vector += count;
  }
  return tiles;
}

std::vector<Tile> Scratch::tiles_of_images(int64_t rows, int64_t across, int64_t padded_width) const {
  std::vector<Tile> tiles;
  for (int64_t row = 0; row < rows; row += blocking_.tile_rows)
    for (int64_t column = 0; column < padded_width; column += across)
      tiles.push_back({(row * columns_ + column) * unit_, static_cast<int64_t>(tiles.size()) * tile_step_,
                       static_cast<int>(std::min<int64_t>(blocking_.tile_rows, rows - row)), blocking_.tile_columns});
  return tiles;
}

int64_t Scratch::position(int64_t row, int64_t column) const {
  const int64_t sy = correlation_.in_stride[0], sx = correlation_.in_stride[1];
  const int64_t y = floor_div(row, sy), x = floor_div(column, sx);
  return (((row - y * sy) * sx + column - x * sx) * rows_ + y) * columns_ + x;
}

Clip Scratch::clip(const std::array<int64_t, 2>& shift, bool& reads_padding) const {
  const int64_t count[2] = {blocking_.tile_rows, blocking_.tile_columns / blocking_.groups};
  const int64_t size[2] = {correlation_.in.height, correlation_.in.width};
  int clips[2];
  for (int d = 0; d < 2; ++d) {
    const auto inside = [&](int64_t k) {
      const int64_t at = k * correlation_.in_stride[d] + shift[d];
      return at >= 0 && at < size[d];
    };
    bool any = false;
    for (int64_t k = 0; k < count[d]; ++k) any = any || inside(k);
    if (!any) return kClipsAll;
    clips[d] = count[d] == 1 || (inside(0) && inside(count[d] - 1)) ? 0 : !inside(0) ? 1 : 2;
    const int64_t begin = clips[d] == 1, end = count[d] - (clips[d] == 2);
    for (int64_t k = begin; k < end; ++k) reads_padding = reads_padding || !inside(k);
  }
  return static_cast<Clip>(3 * clips[0] + clips[1]);
}

double Scratch::clipped() const {
  const double rows = blocking_.tile_rows, columns = static_cast<double>(blocking_.tile_columns / blocking_.groups);
  double left = 0;
  for (const Clip clip : clips_)
    if (clip != kClipsAll) left += (rows - (clip / 3 > 0)) * (columns - (clip % 3 > 0));
  return clips_.empty() ? 0 : 1 - left / (rows * columns * static_cast<double>(clips_.size()));
}

std::vector<int32_t> Scratch::column_offsets() const {
  std::vector<int64_t> of_tap;
  for (const auto& shift : correlation_.shifts)
    of_tap.push_back(position(shift[0] - first_[0], shift[1] - first_[1]) * unit_);
  std::vector<int32_t> offsets;
  offsets.reserve(correlation_.in.channels * correlation_.taps());
  for (int64_t channel = 0; channel < correlation_.in.channels; ++channel)
    for (const int64_t offset : of_tap)
      offsets.push_back(static_cast<int32_t>(channel % blocking_.channel_block * plane_ + offset));
  return offsets;
}

Placement Scratch::panel(int64_t strip, const std::array<int64_t, 2>& stride) const {
  Placement result{};
  result.channel_step = blocking_.strip;
  result.rows = panel_rows(correlation_, strip * blocking_.strip, blocking_.strip);
  result.stride = stride;
  return result;
}

Placement Scratch::in(int64_t strip) const {
  if (blocking_.panels) return panel(strip, correlation_.in_stride);
  const Images& in = correlation_.in;
  const int64_t origin = strip * blocking_.strip * correlation_.in_stride[0] + first_[0];
  const int64_t begin = std::clamp<int64_t>(origin, 0, in.height);
  const int64_t end = std::clamp<int64_t>(origin + in_rows_, 0, in.height);
  const int64_t sx = correlation_.in_stride[1];
  Placement result{};
  result.channel_step = plane_;
  std::vector<char> covered(plane_ / unit_, 0);
  if (blocking_.lanes_are_pixels) {
    for (int64_t y = begin; y < end; ++y)
      for (int64_t x0 = 0; x0 < std::min(sx, in.width); ++x0) {
        // Columns x0, x0 + sx, ... lie together, from the first that the strip holds to the last.
        int64_t x = x0;
        while (x - first_[1] < 0) x += sx;
        const int64_t last = std::min(in.width, first_[1] + columns_ * sx);
        if (x >= last) continue;
        const int64_t at = position(y - origin, x - first_[1]), count = ceil_div(last - x, sx);
        result.runs.push_back({y * in.width + x, at, count, sx});
        std::fill_n(covered.begin() + at, count, 1);
      }
    for (int64_t at = 0; at < plane_;) {
      const int64_t start = at;
      while (at < plane_ && !covered[at]) ++at;
      if (at > start) result.gaps.push_back({0, start, at - start, 1});
      while (at < plane_ && covered[at]) ++at;
    }
    return result;
  }
  result.first_pixel = begin * in.width;
  for (int64_t y = begin; y < end; ++y)
    for (int64_t x = 0; x < in.width; ++x) {
      const int64_t column = x - first_[1];
      const bool held = column >= 0 && column < columns_ * sx;
      const int64_t at = held ? position(y - origin, column) : -1;
      result.position.push_back(static_cast<int32_t>(at * unit_));
      if (held) covered[at] = 1;
    }
  for (int64_t at = 0; at < static_cast<int64_t>(covered.size()); ++at)
    if (!covered[at]) result.padding.push_back(static_cast<int32_t>(at * unit_));
  return result;
}

Placement Scratch::out(int64_t strip) const {
  if (blocking_.panels) return panel(strip, correlation_.out_stride);
  const Images& out = correlation_.out;
  const Blocking& b = blocking_;
  const int64_t sy = correlation_.out_stride[0], sx = correlation_.out_stride[1];
  const int64_t first = strip * b.strip, begin = first * sy, end = std::min(out.height, (first + b.strip) * sy);
  Placement result{};
  result.channel_step = out_row_step_;
  if (b.lanes_are_pixels) {
    for (int64_t y = begin; y < end; ++y)
      for (int64_t x = 0; x < std::min(sx, out.width); ++x) {
        const int64_t phase = y % sy * sx + x;
        result.runs.push_back({y * out.width + x,
                               phase * b.channel_chunk * out_row_step_ + (y / sy - first) * columns_,
                               ceil_div(out.width - x, sx), sx});
      }
    // Only grad_weight reads these zeros, and it has one phase.
    for (int64_t row = 0, at = 0; at < out_row_step_; ++row) {
      const int64_t held = first * sy + row < end ? row * columns_ : out_row_step_;
      if (held > at) result.gaps.push_back({0, at, std::min(held, out_row_step_) - at, 1});
      at = held + out.width;
    }
    return result;
  }
  const int64_t across = b.tile_columns / b.groups;
  std::vector<char> covered(static_cast<size_t>(tiles_.size()) * b.tile_rows * across, 0);
  result.first_pixel = begin * out.width;
  for (int64_t y = begin; y < end; ++y)
    for (int64_t x = 0; x < out.width; ++x) {
      const int64_t row = y / sy - first, column = x / sx;
      const int64_t tile = row / b.tile_rows * tiles_across_ + column / across;
      const int64_t within = row % b.tile_rows * across + column % across;
      const int64_t phase = y % sy * sx + x % sx;
      result.position.push_back(static_cast<int32_t>(tile * tile_step_ + phase * b.channel_chunk * out_row_step_ +
                                                     within * unit_));
      covered[tile * b.tile_rows * across + within] = 1;
    }
  for (int64_t k = 0; k < static_cast<int64_t>(covered.size()); ++k)
    if (!covered[k])
      result.padding.push_back(static_cast<int32_t>(k / (b.tile_rows * across) * tile_step_ +
                                                    k % (b.tile_rows * across) * unit_));
  return result;
}

}  // namespace lth_sparse
