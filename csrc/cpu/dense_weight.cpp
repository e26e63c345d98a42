#include "dense_weight.h"

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <vector>

namespace lth_sparse {
namespace {

/// Calls take(row, first, count) with the values of each row; it returns whether the row is what the offsets say.
template <typename Take>
void for_each_row(const LiveWeights& live, const Parallel& parallel, const Take& take) {
  std::atomic<bool> damaged = false;
  parallel(live.rows, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int32_t first = live.row_offsets[row], last = live.row_offsets[row + 1];
      if (first < 0 || first > last || last > live.nnz() || !take(row, first, last - first)) damaged = true;
    }
  });
  if (damaged) throw std::runtime_error("mask, row_offsets, columns: not those of one mask of this weight");
}

}  // namespace

template <typename T>
void scatter(const LiveWeights& live, const T* values, T* weight, const Parallel& parallel) {
  const int64_t channel_step = live.channels_last ? 1 : live.taps, tap_step = live.channels_last ? live.channels : 1;
  const int64_t mask_channel_step = live.mask_channels_last ? 1 : live.taps;
  const int64_t mask_tap_step = live.mask_channels_last ? live.channels : 1;
  for_each_row(live, parallel, [&](int64_t row, int32_t first, int32_t count) {
    const bool* alive = live.mask + row * live.row_size();
    T* to = weight + row * live.row_size();
    if (count == 0) {
      std::fill_n(to, live.row_size(), T(0));
      return std::find(alive, alive + live.row_size(), true) == alive + live.row_size();
    }
    const T* const from = values + first;
    int32_t next = 0;
    for (int64_t channel = 0; channel < live.channels; ++channel, to += channel_step, alive += mask_channel_step)
      for (int64_t tap = 0; tap < live.taps; ++tap) {
        const bool here = alive[tap * mask_tap_step];
        to[tap * tap_step] = from[std::min(next, count - 1)] & -static_cast<T>(here);
        next += here;
      }
    return next == count;
  });
}

template <typename T>
void gather(const LiveWeights& live, const T* weight, T* values, const Parallel& parallel) {
  std::vector<int32_t> places;  // of each column in a row of the weight
  for (int64_t column = 0; column < live.row_size(); ++column)
    places.push_back(static_cast<int32_t>(
        live.channels_last ? column % live.taps * live.channels + column / live.taps : column));
  for_each_row(live, parallel, [&](int64_t row, int32_t first, int32_t count) {
    const T* const from = weight + row * live.row_size();
    const int32_t* const columns = live.columns + first;
    T* const to = values + first;
    bool inside = true;
    for (int32_t k = 0; k < count; ++k) {
      if (static_cast<uint32_t>(columns[k]) < static_cast<uint32_t>(live.row_size()))
        to[k] = from[places[columns[k]]];
      else
        inside = false;
    }
    return inside;
  });
}

#define LTH_SPARSE_INSTANTIATE(T)                                            \
  template void scatter<T>(const LiveWeights&, const T*, T*, const Parallel&); \
  template void gather<T>(const LiveWeights&, const T*, T*, const Parallel&)
LTH_SPARSE_INSTANTIATE(uint16_t);
LTH_SPARSE_INSTANTIATE(uint32_t);
LTH_SPARSE_INSTANTIATE(uint64_t);
#undef LTH_SPARSE_INSTANTIATE

}  // namespace lth_sparse
