#include "panels.h"

#include <algorithm>

namespace lth_sparse {

int64_t all_positions(const Correlation& c) { return c.in.count * c.positions(0) * c.positions(1); }

std::vector<PanelRow> panel_rows(const Correlation& c, int64_t first, int64_t count) {
  const int64_t height = c.positions(0), width = c.positions(1), end = std::min(first + count, all_positions(c));
  std::vector<PanelRow> rows;
  for (int64_t at = first; at < end;) {
    const int64_t row = at / width, column = at % width, here = std::min(width - column, end - at);
    rows.push_back({row / height, row % height, column, here, at - first});
    at += here;
  }
  return rows;
}

}  // namespace lth_sparse
