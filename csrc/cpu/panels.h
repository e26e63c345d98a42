// The layout of a 1 x 1 convolution without padding: which pixels are neighbours does not matter to it, so the positions of
// all images follow each other, row by row, and a task has a panel of them: some vectors of each channel.
//
// So no lanes are empty but some of the last vector, whatever the number of images and of pixels; and pixels between those
// that a strided convolution visits have no place.
#pragma once

#include <cstdint>
#include <vector>

#include "correlation.h"

namespace lth_sparse {

/// Positions next to each other in a row of an image, and in a panel, from `at` on.
struct PanelRow {
  int64_t image, row, column, count, at;
};

/// The positions of all images.
int64_t all_positions(const Correlation& correlation);

/// Those from `first` on, `count` of them or as many as there are.
std::vector<PanelRow> panel_rows(const Correlation& correlation, int64_t first, int64_t count);

}  // namespace lth_sparse
