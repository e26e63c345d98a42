#include "weights.h"

#include <stdexcept>

namespace lth_sparse {
namespace {

/// body(entry, place in the table) for each live weight.
template <class Body>
void each_live(const SparseRows& rows, const TapTable& table, const Body& body) {
  if (!rows.offsets_ascend(0, rows.rows) || any_outside(rows.columns, 0, rows.nnz(), table.taps))
    throw std::runtime_error(kNoMask);
  for (int64_t channel = 0; channel < table.channels; ++channel)
    for (int32_t e = rows.row_offsets[channel]; e < rows.row_offsets[channel + 1]; ++e)
      body(e, table.at(channel, rows.columns[e]));
}

}  // namespace

void scatter_taps(const SparseRows& rows, const float* values, const TapTable& table, float* weights) {
  each_live(rows, table, [&](int32_t entry, int64_t place) { weights[place] = values[entry]; });
}

void gather_taps(const SparseRows& rows, const float* weights, const TapTable& table, float* values) {
  each_live(rows, table, [&](int32_t entry, int64_t place) { values[entry] = weights[place]; });
}

}  // namespace lth_sparse
