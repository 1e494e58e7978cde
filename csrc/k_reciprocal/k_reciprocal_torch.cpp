// k-reciprocal re-ranking: argument checks and allocation, compiled into both libraries. On CUDA
// k_reciprocal_neighbors and k_reciprocal_invert are the references: a matrix product and a selection, a
// sort.
#include <tuple>

#include "../common/torch_tensor.h"
#include "k_reciprocal.h"

namespace autoreid_fast {
namespace {

using SparseTensors = std::tuple<Tensor, Tensor, Tensor>;  // offsets, columns, values

constexpr Checks kCheck{"k_reciprocal"};

// A contiguous tensor of this dtype and shape.
Tensor checked(const char* name, const Tensor& tensor, ScalarType type, const std::vector<int64_t>& shape) {
  kCheck.shape(name, tensor, shape);
  kCheck.dtype(name, tensor, type);
  return torch::stable::contiguous(tensor);
}

// (N, count) indices of images.
Tensor checked_neighbors(const Tensor& neighbors, int64_t total) {
  const Tensor lists = checked("neighbors", neighbors, ScalarType::Int, {total, kPositiveSize});
#ifndef USE_CUDA
  kCheck.indices<int32_t>("neighbors", lists, total);
#endif
  return lists;
}

// CSR of some or all rows of a matrix with `width` columns, and the tensors that its pointers refer to.
struct CsrTensors {
  Tensor offsets, columns, values;

  CsrTensors(const Tensor& offsets, const Tensor& columns, const Tensor& values, int64_t rows,
             [[maybe_unused]] int64_t width)
      : offsets(checked("offsets", offsets, ScalarType::Long, {rows + 1})),
        columns(checked("columns", columns, ScalarType::Int, {kAnySize})),
        values(checked("values", values, ScalarType::Float, {columns.numel()})) {
#ifndef USE_CUDA
    kCheck.ranges("offsets", this->offsets, columns.numel());
    kCheck.indices<int32_t>("columns", this->columns, width);
#endif
  }
  Csr csr() const { return {data_of<int64_t>(offsets), data_of<int32_t>(columns), data_of<float>(values)}; }
};

#ifdef USE_CUDA
// Calls count(out, &entries), allocates the entries, and calls fill(out).
template <typename Count, typename Fill>
SparseTensors two_passes(int64_t total, const Tensor& like, const Count& count, const Fill& fill) {
  Tensor offsets = torch::stable::new_empty(like, {total + 1}, ScalarType::Long);
  RowsOut out{data_of<int64_t>(offsets), nullptr, nullptr};
  int64_t entries = 0;
  launch_on(kCheck, like, [&](void* stream) { return count(out, &entries, stream); });
  kCheck.require(entries >= 0, "the k2 rows of an image have more than ", kMaxSumKeys,
                 " entries; choose a smaller k1 or k2");
  Tensor columns = torch::stable::new_empty(like, {entries}, ScalarType::Int);
  Tensor values = torch::stable::new_empty(like, {entries}, ScalarType::Float);
  out.columns = data_of<int32_t>(columns);
  out.values = data_of<float>(values);
  launch_on(kCheck, like, [&](void* stream) { return fill(out, stream); });
  return {offsets, columns, values};
}
#else
SparseTensors to_tensors(const SparseRows& rows, const Tensor& like) {
  const int64_t total = static_cast<int64_t>(rows.offsets.size()) - 1;
  Tensor offsets = torch::stable::new_empty(like, {total + 1}, ScalarType::Long);
  Tensor columns = torch::stable::new_empty(like, {rows.offsets.back()}, ScalarType::Int);
  Tensor values = torch::stable::new_empty(like, {rows.offsets.back()}, ScalarType::Float);
  std::copy(rows.offsets.begin(), rows.offsets.end(), data_of<int64_t>(offsets));
  for (size_t k = 0; k < rows.chunks.size(); ++k) {
    const SparseRows::Chunk& chunk = rows.chunks[k];
    const int64_t first = rows.offsets[k * SparseRows::kChunk];
    std::copy(chunk.columns.begin(), chunk.columns.end(), data_of<int32_t>(columns) + first);
    std::copy(chunk.values.begin(), chunk.values.end(), data_of<float>(values) + first);
  }
  return {offsets, columns, values};
}

std::tuple<Tensor, Tensor> neighbors(const Tensor& features, int64_t count) {
  const Tensor x = checked("features", features, ScalarType::Float, {kPositiveSize, kPositiveSize});
  const int64_t total = x.size(0);
  kCheck.require(1 <= count && count <= total, "`count` is ", count, "; expected 1 to ", total);
  Tensor neighbors = torch::stable::new_empty(x, {total, count}, ScalarType::Int);
  Tensor farthest = torch::stable::new_empty(x, {total});
  k_reciprocal_neighbors_cpu({.features = data_of<float>(x),
                              .total = total,
                              .dim = x.size(1),
                              .count = count,
                              .neighbors = data_of<int32_t>(neighbors),
                              .farthest = data_of<float>(farthest)});
  return {neighbors, farthest};
}

SparseTensors invert(const Tensor& offsets, const Tensor& columns, const Tensor& values, int64_t first) {
  const int64_t total = offsets.numel() - 1;
  const CsrTensors rows(offsets, columns, values, total, total);
  kCheck.require(0 <= first && first <= total, "`first` is ", first, "; expected 0 to ", total);
  const int64_t entries = rows.csr().offsets[total] - rows.csr().offsets[first];
  Tensor inverse_offsets = torch::stable::new_empty(rows.offsets, {total + 1});
  Tensor inverse_rows = torch::stable::new_empty(rows.columns, {entries});
  Tensor inverse_values = torch::stable::new_empty(rows.values, {entries});
  k_reciprocal_invert_cpu({.rows = rows.csr(),
                           .total = total,
                           .first = first,
                           .offsets = data_of<int64_t>(inverse_offsets),
                           .inverse_rows = data_of<int32_t>(inverse_rows),
                           .values = data_of<float>(inverse_values)});
  return {inverse_offsets, inverse_rows, inverse_values};
}
#endif

SparseTensors rows(const Tensor& features, const Tensor& neighbors, const Tensor& farthest, int64_t k1) {
  const Tensor x = checked("features", features, ScalarType::Float, {kPositiveSize, kPositiveSize});
  const int64_t total = x.size(0);
  const Tensor lists = checked_neighbors(neighbors, total);
  const Tensor greatest = checked("farthest", farthest, ScalarType::Float, {total});
  kCheck.require(k1 >= 1, "`k1` is ", k1, "; expected at least 1");
  const int64_t count = lists.size(1);
  const int64_t half = k1 / 2 + (k1 % 4 == 3 ? 1 : 0);  // k1 / 2, rounded half to even as in Python
  const ReciprocalRows p{.features = data_of<float>(x),
                         .neighbors = data_of<int32_t>(lists),
                         .farthest = data_of<float>(greatest),
                         .total = total,
                         .dim = x.size(1),
                         .count = count,
                         .width = std::min(k1 + 1, count),
                         .half = std::min(half + 1, count)};
#ifdef USE_CUDA
  kCheck.require(p.width * (1 + p.half) <= kMaxRowKeys && p.half <= kMaxHalf, "`k1` is ", k1,
                 ", too large for the CUDA kernel");
  Tensor flags = torch::stable::new_empty(x, {total, p.half}, ScalarType::Byte);
  uint8_t* mutual = data_of<uint8_t>(flags);
  return two_passes(
      total, x,
      [&](const RowsOut& out, int64_t* entries, void* stream) {
        return k_reciprocal_rows_count_cuda(p, mutual, out, entries, stream);
      },
      [&](const RowsOut& out, void* stream) { return k_reciprocal_rows_fill_cuda(p, mutual, out, stream); });
#else
  return to_tensors(k_reciprocal_rows_cpu(p), x);
#endif
}

SparseTensors expand(const Tensor& offsets, const Tensor& columns, const Tensor& values,
                     const Tensor& neighbors, int64_t k2) {
  const int64_t total = offsets.numel() - 1;
  const Tensor lists = checked_neighbors(neighbors, total);
  const CsrTensors rows(offsets, columns, values, total, total);
  kCheck.require(k2 >= 1, "`k2` is ", k2, "; expected at least 1");
  const Expand p{.rows = rows.csr(),
                 .neighbors = data_of<int32_t>(lists),
                 .total = total,
                 .count = lists.size(1),
                 .k2 = std::min(k2, lists.size(1))};
#ifdef USE_CUDA
  return two_passes(
      total, lists,
      [&](const RowsOut& out, int64_t* entries, void* stream) {
        return k_reciprocal_expand_count_cuda(p, out, entries, stream);
      },
      [&](const RowsOut& out, void* stream) { return k_reciprocal_expand_fill_cuda(p, out, stream); });
#else
  return to_tensors(k_reciprocal_expand_cpu(p), lists);
#endif
}

Tensor block(const Tensor& queries, const Tensor& gallery, const Tensor& farthest, const Tensor& offsets,
             const Tensor& columns, const Tensor& values, const Tensor& inverse_offsets,
             const Tensor& inverse_rows, const Tensor& inverse_values, double lambda_value) {
  const Tensor x = checked("queries", queries, ScalarType::Float, {kPositiveSize, kPositiveSize});
  const Tensor y = checked("gallery", gallery, ScalarType::Float, {kPositiveSize, x.size(1)});
  const Tensor greatest = checked("farthest", farthest, ScalarType::Float, {x.size(0)});
  const int64_t total = inverse_offsets.numel() - 1;
  const CsrTensors rows(offsets, columns, values, x.size(0), total);
  const CsrTensors inverse(inverse_offsets, inverse_rows, inverse_values, total, y.size(0));
  Tensor final_distance = kOnCuda ? torch::stable::matmul(x, torch::stable::transpose(y, 0, 1))
                                  : torch::stable::new_empty(x, {x.size(0), y.size(0)});
  const Block p{.queries = data_of<float>(x),
                .gallery = data_of<float>(y),
                .farthest = data_of<float>(greatest),
                .count = x.size(0),
                .size = y.size(0),
                .dim = x.size(1),
                .rows = rows.csr(),
                .inverse = inverse.csr(),
                .lambda_value = static_cast<float>(lambda_value),
                .final_distance = data_of<float>(final_distance)};
#ifdef USE_CUDA
  Tensor query_norms = torch::stable::new_empty(x, {p.count});
  Tensor gallery_norms = torch::stable::new_empty(x, {p.size});
  Tensor overlaps = torch::stable::new_empty(x, {p.count, p.size});
  const BlockScratch scratch{data_of<float>(query_norms), data_of<float>(gallery_norms),
                             data_of<float>(overlaps)};
  launch_on(kCheck, x, [&](void* stream) { return k_reciprocal_block_cuda(p, scratch, stream); });
#else
  k_reciprocal_block_cpu(p);
#endif
  return final_distance;
}

}  // namespace

REGISTER_KERNELS(library) {
#ifndef USE_CUDA
  library.impl("k_reciprocal_neighbors", TORCH_BOX(&neighbors));
  library.impl("k_reciprocal_invert", TORCH_BOX(&invert));
#endif
  library.impl("k_reciprocal_rows", TORCH_BOX(&rows));
  library.impl("k_reciprocal_expand", TORCH_BOX(&expand));
  library.impl("k_reciprocal_block", TORCH_BOX(&block));
}

}  // namespace autoreid_fast
