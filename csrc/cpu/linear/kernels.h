// Linear layers: x [batch, in_features] -> y [batch, out_features].
//
// Neither blocks of features nor a list of entries pays for itself here: values and columns are read where they are, once for each
// group of rows of the batch.
//
//     a batch of one    single.h    live weights in the lanes, and one row, which L1 holds
//     more              lanes.h     rows in the lanes, in groups of one to four vectors, [feature][vectors], in L2 or L3
//
// grad_input of up to a vector of rows adds each live weight's products to those of its input feature: so values are read in
// order, where those of the transposed matrix are all over memory. With more vectors that many additions in memory take longer
// than to put the values in the order of the transposed matrix.
//
// What bounds them. A live weight is read in 8 bytes, and costs a load and a product for each vector. Measured on two Zen 5 cores,
// 4096 x 4096, 5 % live, 6.7 MB that L3 holds: a row 0.14 ms, 47 GB/s, where a copy has 45; 8 rows 0.19; 16 rows, which L1 does not
// hold, 0.23; 64 rows 0.86, of 6.7 cycles for four products, which is what L2 delivers. The engine (../engine.h) took 1.5 ms for 1 to
// 16 rows. Of a pass in PyTorch it takes 1.6 to 1.8 times as long for 60 rows of 784 to 300, for 128 rows of 1024 to 4096 and 4096
// to 256 mostly 1.05 to 1.5 (at 98 % grad_input, most of whose time is rows in and out, 0.9), for 1576 of 768 to 3072 as long.
//
// Elements of 16 bits stay so in the lanes, which is half of what L2 has to deliver, and become floats where they are loaded.
//
// Where a group does not fit L3 with the rest, the engine's blocks do better. No result depends on the number of threads.
#pragma once

#include <cstdint>

#include "../correlation.h"
#include "../element.h"
#include "../parallel.h"

namespace lth_sparse {

struct LinearLayer {
  SparseRows weights;     // a row for each output feature
  SparseRows transposed;  // a row for each input feature; only grad_input reads it
  int64_t in_features, out_features, batch;
  int64_t threads;        // for how many to cut the work up, which does not change the bits
};

/// Tensors are of the elements that the kernels were asked for.
struct LinearKernels {
  /// y = the output for x, with bias [out_features] or null; what is below 0 becomes 0 if `relu`.
  void (*forward)(const LinearLayer&, const void* x, const void* values, const void* bias, bool relu, void* y, const Parallel&);
  void (*grad_input)(const LinearLayer&, const void* grad_out, const void* values, void* grad_x, const Parallel&);
  void (*grad_weight)(const LinearLayer&, const void* x, const void* grad_out, void* grad_values, const Parallel&);
};

/// Those for a batch of this size, 1 or more, with at most so many features on either side; null where it is for the engine, or
/// this build has none. Doubles are for linear_doubles, all else for the others.
const LinearKernels* linear_avx512(Element element, int64_t batch, int64_t features);
const LinearKernels* linear_avx2(Element element, int64_t batch, int64_t features);
const LinearKernels* linear_portable(Element element, int64_t batch, int64_t features);
const LinearKernels* linear_doubles(int64_t batch, int64_t features);

}  // namespace lth_sparse
