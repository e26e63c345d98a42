// The operators of the CUDA kernels: schemas, checks of what Python gives, and which arithmetic is meant.
//
// `geometry` is a lth_sparse.plans.correlation.Geometry as 16 integers, `tiling` a lth_sparse.staging.Tiling as 22, `grid` the
// images and the tiles along images, rows and columns; `blocks` are the tensors of a ChunkedBlocks. What a call needs
// while it runs comes as tensors too: whoever calls allocates.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>
#include <vector>

#include "correlation.h"
#include "grad_weight.h"

namespace lth_sparse::cuda {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

/// A struct of int32 fields, filled in their order.
template <typename Fields>
Fields filled(const std::vector<int64_t>& numbers, const char* name) {
  constexpr size_t kCount = sizeof(Fields) / sizeof(int32_t);
  STD_TORCH_CHECK(numbers.size() == kCount, name, ": got ", numbers.size(), " integers, expected ", kCount);
  Fields fields;
  for (size_t i = 0; i < kCount; ++i) reinterpret_cast<int32_t*>(&fields)[i] = static_cast<int32_t>(numbers[i]);
  return fields;
}

void check(const Tensor& tensor, const char* name, ScalarType dtype, const Tensor& like) {
  STD_TORCH_CHECK(tensor.is_cuda() == like.is_cuda() && tensor.get_device_index() == like.get_device_index(), name,
                  ": expected a tensor on the device of the input");
  STD_TORCH_CHECK(tensor.scalar_type() == dtype, name, ": got another dtype than expected");
}

void check_flat(const Tensor& tensor, const char* name, ScalarType dtype, const Tensor& like, int64_t least) {
  check(tensor, name, dtype, like);
  STD_TORCH_CHECK(tensor.is_contiguous() && tensor.numel() >= least, name, ": got ", tensor.numel(),
                  " elements, expected ", least, " without gaps");
}

Blocks blocks_of(const std::vector<Tensor>& tensors, const Geometry& geometry, const Tiling& tiling,
                 const Tensor& like) {
  STD_TORCH_CHECK(tensors.size() == 8, "blocks: got ", tensors.size(), " tensors, expected 8");
  for (const Tensor& tensor : tensors) check_flat(tensor, "blocks", ScalarType::Int, like, 0);
  const auto data = [&](int i) { return tensors[i].const_data_ptr<int32_t>(); };
  // slot_rows, step_offsets, step_blocks, columns, live, starts, order, chunk_offsets
  const Tensor &slots = tensors[0], &columns = tensors[3], &order = tensors[6], &chunks = tensors[7];
  const int32_t channels = static_cast<int32_t>(like.size(1)), count = static_cast<int32_t>(slots.size(0));
  const int32_t column_count = static_cast<int32_t>(columns.numel());
  const int32_t chunk_count = (channels + tiling.chunk_channels - 1) / tiling.chunk_channels;
  STD_TORCH_CHECK(slots.size(1) == kBlockRows && chunks.size(0) == count && chunks.size(1) == chunk_count + 1,
                  "blocks: got ", count, " x ", slots.size(1), " slots and ", chunks.size(1) - 1,
                  " chunks, expected blocks of ", kBlockRows, " rows and ", chunk_count, " chunks");
  STD_TORCH_CHECK(tensors[4].numel() == column_count / kWord * kBlockRows && tensors[5].numel() == tensors[4].numel() &&
                      count % geometry.phases() == 0,
                  "blocks: their tensors do not belong together");
  return {data(0), data(3), data(4), data(5), order.numel() == 0 ? nullptr : data(6), data(7), count, chunk_count,
          column_count, channels};
}

/// Whether a tensor has these images; one of a linear layer has images of one pixel.
void check_images(const Tensor& tensor, const char* name, int32_t images, const int32_t (&size)[2]) {
  const bool linear = tensor.dim() == 2;
  STD_TORCH_CHECK(tensor.size(0) == images && (linear ? 1 : tensor.size(2)) == size[0] &&
                      (linear ? 1 : tensor.size(3)) == size[1],
                  name, ": expected ", images, " images of ", size[0], " x ", size[1]);
}

/// What both operators are told, and that the input is what it says.
struct Description {
  Geometry geometry;
  Tiling tiling;
  Grid grid;
  Blocks blocks;
};

Description described(const Tensor& input, const std::vector<Tensor>& blocks, const std::vector<int64_t>& geometry_numbers,
                      const std::vector<int64_t>& tiling_numbers, const std::vector<int64_t>& grid_numbers) {
  const auto geometry = filled<Geometry>(geometry_numbers, "geometry");
  const auto tiling = filled<Tiling>(tiling_numbers, "tiling");
  const auto grid = filled<Grid>(grid_numbers, "grid");
  check_images(input, "input", grid.images, geometry.in_size);
  return {geometry, tiling, grid, blocks_of(blocks, geometry, tiling, input)};
}

Steps steps_of(const Tensor& tensor) {
  STD_TORCH_CHECK(tensor.dim() == 2 || tensor.dim() == 4, "got a tensor of ", tensor.dim(), " dimensions, expected 2 or 4");
  const auto step = [&](int d) { return d < tensor.dim() ? static_cast<int32_t>(tensor.stride(d)) : 0; };
  return {step(0), step(1), step(2), step(3)};
}

/// Calls body(A{}) with the arithmetic for a dtype.
template <typename Body>
void with_arithmetic(ScalarType dtype, bool tf32, bool pairs, Body body) {
  switch (dtype) {
    case ScalarType::Float: tf32 ? body(Tf32{}) : body(Float32{}); break;
    case ScalarType::Double: body(Float64{}); break;
    case ScalarType::Half: pairs ? body(Paired<Float16>{}) : body(Float16{}); break;
    case ScalarType::BFloat16: pairs ? body(Paired<Bfloat16>{}) : body(Bfloat16{}); break;
    default: STD_TORCH_CHECK(false, "input: expected float16, bfloat16, float32 or float64");
  }
}

template <typename Element>
const Element* read(const Tensor& tensor) { return static_cast<const Element*>(tensor.const_data_ptr()); }
template <typename Element>
Element* written(const Tensor& tensor) { return static_cast<Element*>(tensor.mutable_data_ptr()); }

void correlate_operator(const Tensor& input, const Tensor& values, const std::optional<Tensor>& bias, Tensor output,
                        Tensor weight, Tensor codes, const std::vector<Tensor>& block_tensors,
                        const std::vector<int64_t>& geometry_numbers, const std::vector<int64_t>& tiling_numbers,
                        const std::vector<int64_t>& grid_numbers, bool tf32) {
  const auto [geometry, tiling, grid, blocks] =
      described(input, block_tensors, geometry_numbers, tiling_numbers, grid_numbers);
  const ScalarType dtype = input.scalar_type();
  check(output, "output", dtype, input);
  check_images(output, "output", grid.images, geometry.out_size);
  check_flat(values, "values", dtype, input, 0);
  check_flat(weight, "weight", dtype, input, blocks.slots() + kColumnsAhead * kBlockRows);
  check_flat(codes, "codes", ScalarType::Int, input, blocks.column_count + kColumnsAhead);
  if (bias.has_value()) check_flat(*bias, "bias", dtype, input, output.size(1));
  const device::Stream stream(input.get_device_index());
  with_arithmetic(dtype, tf32, tiling.pairs != 0, [&](auto arithmetic) {
    using A = decltype(arithmetic);
    using Element = typename A::Element;
    pack_weight<A>(geometry, tiling, blocks, read<Element>(values), written<Element>(weight),
                   written<int32_t>(codes), stream);
    correlate<A>(geometry, tiling, grid, blocks, read<Element>(input), steps_of(input), read<Element>(weight),
                 read<int32_t>(codes), bias.has_value() ? read<Element>(*bias) : nullptr, written<Element>(output),
                 steps_of(output), stream);
  });
}

void grad_weight_operator(const Tensor& input, const Tensor& gradient, Tensor grad_values, Tensor partial, Tensor codes,
                          const std::vector<Tensor>& block_tensors, const std::vector<int64_t>& geometry_numbers,
                          const std::vector<int64_t>& tiling_numbers, const std::vector<int64_t>& grid_numbers,
                          int64_t part_count, int64_t tiles_each, bool tf32) {
  const auto [geometry, tiling, grid, blocks] =
      described(input, block_tensors, geometry_numbers, tiling_numbers, grid_numbers);
  const ScalarType dtype = input.scalar_type();
  check(gradient, "grad_out", dtype, input);
  check_images(gradient, "grad_out", grid.images, geometry.out_size);
  check_flat(grad_values, "grad_values", dtype, input, 0);
  check_flat(partial, "partial", dtype == ScalarType::Double ? ScalarType::Double : ScalarType::Float, input,
             part_count * blocks.slots());
  check_flat(codes, "codes", ScalarType::Int, input, blocks.column_count);
  STD_TORCH_CHECK(part_count > 0 && (part_count - 1) * tiles_each < grid.tiles() && part_count * tiles_each >= grid.tiles(),
                  "parts: got ", part_count, " of ", tiles_each, " tiles, expected no empty ones of ", grid.tiles());
  const device::Stream stream(input.get_device_index());
  with_arithmetic(dtype, tf32, tiling.pairs != 0, [&](auto arithmetic) {
    using A = decltype(arithmetic);
    using Element = typename A::Element;
    grad_weight<A>(geometry, tiling, grid, blocks,
                   {static_cast<int32_t>(part_count), static_cast<int32_t>(tiles_each)}, read<Element>(input),
                   steps_of(input), read<Element>(gradient), steps_of(gradient), written<int32_t>(codes),
                   written<typename A::Sum>(partial), written<Element>(grad_values), stream);
  });
}

}  // namespace

#define LTH_TORCH_LIBRARY(name, library) STABLE_TORCH_LIBRARY(name, library)
#define LTH_TORCH_LIBRARY_IMPL(name, key, library) STABLE_TORCH_LIBRARY_IMPL(name, key, library)

LTH_TORCH_LIBRARY(LTH_LIBRARY, library) {
  library.def(
      "correlate(Tensor input, Tensor values, Tensor? bias, Tensor(a!) output, Tensor(b!) weight, Tensor(c!) codes, "
      "Tensor[] blocks, int[] geometry, int[] tiling, int[] grid, bool tf32) -> ()");
  library.def(
      "grad_weight(Tensor input, Tensor grad_out, Tensor(a!) grad_values, Tensor(b!) partial, Tensor(c!) codes, "
      "Tensor[] blocks, int[] geometry, int[] tiling, int[] grid, int parts, int tiles_each, bool tf32) -> ()");
}

LTH_TORCH_LIBRARY_IMPL(LTH_LIBRARY, LTH_DISPATCH_KEY, library) {
  library.impl("correlate", TORCH_BOX(&correlate_operator));
  library.impl("grad_weight", TORCH_BOX(&grad_weight_operator));
}

}  // namespace lth_sparse::cuda
