// k-reciprocal re-ranking: argument checks and allocation, compiled once into each library. The schemas are
// defined in autoreid_fast/ops/k_reciprocal.py. On CUDA neighbors and invert are the twins (a matrix product
// and a selection, a sort): torch's own kernels.
#include <tuple>

#include "../torch_tensor.h"
#include "k_reciprocal.h"

namespace autoreid_fast {
namespace {

using Sparse = std::tuple<Tensor, Tensor, Tensor>;

#define CHECK(condition, ...) STD_TORCH_CHECK(condition, "k_reciprocal: ", __VA_ARGS__)

// A contiguous tensor of the given type and dimensions.
Tensor checked(const Tensor& tensor, ScalarType type, int64_t dims, const char* name) {
  CHECK(tensor.dim() == dims && tensor.scalar_type() == type, name, " must have ", dims,
        " dimensions and the dtype of the schema");
  return torch::stable::contiguous(tensor);
}

Tensor features_of(const Tensor& tensor, const char* name) {
  CHECK(tensor.numel() > 0, name, " must not be empty");
  return checked(tensor, ScalarType::Float, 2, name);
}

// CSR with `rows` rows, kept alive beside its pointers.
struct CsrTensors {
  Tensor offsets, columns, values;

  CsrTensors(const Tensor& o, const Tensor& c, const Tensor& v, int64_t rows)
      : offsets(checked(o, ScalarType::Long, 1, "offsets")),
        columns(checked(c, ScalarType::Int, 1, "columns")),
        values(checked(v, ScalarType::Float, 1, "values")) {
    CHECK(offsets.size(0) == rows + 1, "offsets must have one entry a row and one more");
    CHECK(columns.size(0) == values.size(0), "columns and values must be as many");
  }
  Csr csr() const {
    return {static_cast<const int64_t*>(offsets.const_data_ptr()),
            static_cast<const int32_t*>(columns.const_data_ptr()),
            static_cast<const float*>(values.const_data_ptr())};
  }
};

#ifdef USE_CUDA
// Counts the entries, allocates them and fills them in; the work comes as count(out, entries), fill(out).
template <typename Count, typename Fill>
Sparse two_passes(int64_t total, const Tensor& like, const Count& count, const Fill& fill) {
  Tensor offsets = torch::stable::new_empty(like, {total + 1}, ScalarType::Long);
  RowsOut out{static_cast<int64_t*>(offsets.mutable_data_ptr()), nullptr, nullptr};
  int64_t entries = 0;
  const char* error = count(out, &entries);
  CHECK(error == nullptr, error);
  CHECK(entries >= 0, "the rows to add up have more than ", kMaxSumKeys, " entries: a smaller k1 or k2");
  Tensor columns = torch::stable::new_empty(like, {entries}, ScalarType::Int);
  Tensor values = torch::stable::new_empty(like, {entries}, ScalarType::Float);
  out.columns = static_cast<int32_t*>(columns.mutable_data_ptr());
  out.values = static_cast<float*>(values.mutable_data_ptr());
  error = fill(out);
  CHECK(error == nullptr, error);
  return {offsets, columns, values};
}
#else
Sparse to_tensors(const SparseRows& rows, const Tensor& like) {
  const int64_t total = static_cast<int64_t>(rows.offsets.size()) - 1;
  Tensor offsets = torch::stable::new_empty(like, {total + 1}, ScalarType::Long);
  Tensor columns = torch::stable::new_empty(like, {rows.offsets.back()}, ScalarType::Int);
  Tensor values = torch::stable::new_empty(like, {rows.offsets.back()}, ScalarType::Float);
  std::copy(rows.offsets.begin(), rows.offsets.end(), static_cast<int64_t*>(offsets.mutable_data_ptr()));
  for (size_t k = 0; k < rows.chunks.size(); ++k) {
    const SparseRows::Chunk& chunk = rows.chunks[k];
    const int64_t at = rows.offsets[k * SparseRows::kChunk];
    std::copy(chunk.columns.begin(), chunk.columns.end(),
              static_cast<int32_t*>(columns.mutable_data_ptr()) + at);
    std::copy(chunk.values.begin(), chunk.values.end(), static_cast<float*>(values.mutable_data_ptr()) + at);
  }
  return {offsets, columns, values};
}

std::tuple<Tensor, Tensor> neighbors(const Tensor& features, int64_t count) {
  const Tensor x = features_of(features, "features");
  const int64_t total = x.size(0);
  CHECK(1 <= count && count <= total, "count must be from 1 to the number of images");
  Tensor near = torch::stable::new_empty(x, {total, count}, ScalarType::Int);
  Tensor farthest = torch::stable::new_empty(x, {total});
  k_reciprocal_neighbors_cpu({.features = static_cast<const float*>(x.const_data_ptr()),
                              .total = total,
                              .dim = x.size(1),
                              .count = count,
                              .neighbors = static_cast<int32_t*>(near.mutable_data_ptr()),
                              .farthest = static_cast<float*>(farthest.mutable_data_ptr())});
  return {near, farthest};
}

Sparse invert(const Tensor& offsets, const Tensor& columns, const Tensor& values, int64_t first) {
  const int64_t total = offsets.size(0) - 1;
  const CsrTensors rows(offsets, columns, values, total);
  CHECK(0 <= first && first <= total, "first must be a row");
  const int64_t entries = rows.csr().offsets[total] - rows.csr().offsets[first];
  Tensor inverse_offsets = torch::stable::new_empty(rows.offsets, {total + 1});
  Tensor inverse_rows = torch::stable::new_empty(rows.columns, {entries});
  Tensor inverse_values = torch::stable::new_empty(rows.values, {entries});
  k_reciprocal_invert_cpu({.rows = rows.csr(),
                           .total = total,
                           .first = first,
                           .offsets = static_cast<int64_t*>(inverse_offsets.mutable_data_ptr()),
                           .inverse_rows = static_cast<int32_t*>(inverse_rows.mutable_data_ptr()),
                           .values = static_cast<float*>(inverse_values.mutable_data_ptr())});
  return {inverse_offsets, inverse_rows, inverse_values};
}
#endif

Sparse rows(const Tensor& features, const Tensor& neighbors, const Tensor& farthest, int64_t k1) {
  const Tensor x = features_of(features, "features");
  const Tensor near = checked(neighbors, ScalarType::Int, 2, "neighbors");
  const Tensor far = checked(farthest, ScalarType::Float, 1, "farthest");
  const int64_t total = x.size(0), count = near.size(1);
  CHECK(near.size(0) == total && far.size(0) == total,
        "neighbors and farthest must be one a row of features");
  CHECK(k1 >= 1 && count >= 1, "k1 and the number of neighbors must be at least 1");
  // k1 / 2 rounded half to even, and the image itself
  const int64_t half = k1 / 2 + (k1 % 4 == 3 ? 1 : 0) + 1;
  const ReciprocalRows p{.features = static_cast<const float*>(x.const_data_ptr()),
                         .neighbors = static_cast<const int32_t*>(near.const_data_ptr()),
                         .farthest = static_cast<const float*>(far.const_data_ptr()),
                         .total = total,
                         .dim = x.size(1),
                         .count = count,
                         .width = std::min(k1 + 1, count),
                         .half = std::min(half, count)};
#ifdef USE_CUDA
  CHECK(p.width * (1 + p.half) <= kMaxRowKeys && p.half <= 32, "k1 is too large for the CUDA kernel");
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  void* stream = current_stream(x);
  Tensor flags = torch::stable::new_empty(x, {total, p.half}, ScalarType::Byte);
  uint8_t* mutual = static_cast<uint8_t*>(flags.mutable_data_ptr());
  return two_passes(
      total, x,
      [&](const RowsOut& out, int64_t* entries) {
        return k_reciprocal_rows_count_cuda(p, mutual, out, entries, stream);
      },
      [&](const RowsOut& out) { return k_reciprocal_rows_fill_cuda(p, mutual, out, stream); });
#else
  return to_tensors(k_reciprocal_rows_cpu(p), x);
#endif
}

Sparse expand(const Tensor& offsets, const Tensor& columns, const Tensor& values, const Tensor& neighbors,
              int64_t k2) {
  const Tensor near = checked(neighbors, ScalarType::Int, 2, "neighbors");
  const CsrTensors v(offsets, columns, values, near.size(0));
  CHECK(k2 >= 1, "k2 must be at least 1");
  const Expand p{.rows = v.csr(),
                 .neighbors = static_cast<const int32_t*>(near.const_data_ptr()),
                 .total = near.size(0),
                 .count = near.size(1),
                 .k2 = std::min(k2, near.size(1))};
#ifdef USE_CUDA
  const torch::stable::accelerator::DeviceGuard guard(near.get_device_index());
  void* stream = current_stream(near);
  return two_passes(
      p.total, near,
      [&](const RowsOut& out, int64_t* entries) {
        return k_reciprocal_expand_count_cuda(p, out, entries, stream);
      },
      [&](const RowsOut& out) { return k_reciprocal_expand_fill_cuda(p, out, stream); });
#else
  return to_tensors(k_reciprocal_expand_cpu(p), near);
#endif
}

Tensor block(const Tensor& queries, const Tensor& gallery, const Tensor& farthest, const Tensor& offsets,
             const Tensor& columns, const Tensor& values, const Tensor& inverse_offsets,
             const Tensor& inverse_rows, const Tensor& inverse_values, double lambda) {
  const Tensor x = features_of(queries, "queries"), y = features_of(gallery, "gallery");
  const Tensor far = checked(farthest, ScalarType::Float, 1, "farthest");
  CHECK(x.size(1) == y.size(1), "queries and gallery must have as many columns");
  CHECK(far.size(0) == x.size(0), "farthest must be one a query");
  const CsrTensors rows(offsets, columns, values, x.size(0));
  const CsrTensors inverse(inverse_offsets, inverse_rows, inverse_values, inverse_offsets.size(0) - 1);
#ifdef USE_CUDA
  const torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  Tensor final = torch::stable::matmul(x, torch::stable::transpose(y, 0, 1));
#else
  Tensor final = torch::stable::new_empty(x, {x.size(0), y.size(0)});
#endif
  const Block p{.queries = static_cast<const float*>(x.const_data_ptr()),
                .gallery = static_cast<const float*>(y.const_data_ptr()),
                .farthest = static_cast<const float*>(far.const_data_ptr()),
                .count = x.size(0),
                .size = y.size(0),
                .dim = x.size(1),
                .rows = rows.csr(),
                .inverse = inverse.csr(),
                .lambda = static_cast<float>(lambda),
                .final = static_cast<float*>(final.mutable_data_ptr())};
#ifdef USE_CUDA
  Tensor query_norms = torch::stable::new_empty(x, {p.count});
  Tensor gallery_norms = torch::stable::new_empty(x, {p.size});
  Tensor overlaps = torch::stable::new_empty(x, {p.count, p.size});
  const BlockScratch scratch{static_cast<float*>(query_norms.mutable_data_ptr()),
                             static_cast<float*>(gallery_norms.mutable_data_ptr()),
                             static_cast<float*>(overlaps.mutable_data_ptr())};
  const char* error = k_reciprocal_block_cuda(p, scratch, current_stream(x));
  CHECK(error == nullptr, error);
#else
  k_reciprocal_block_cpu(p);
#endif
  return final;
}

}  // namespace

#ifdef USE_CUDA
STABLE_TORCH_LIBRARY_IMPL(autoreid_fast, CUDA, library) {
#else
STABLE_TORCH_LIBRARY_IMPL(autoreid_fast, CPU, library) {
  library.impl("k_reciprocal_neighbors", TORCH_BOX(&neighbors));
  library.impl("k_reciprocal_invert", TORCH_BOX(&invert));
#endif
  library.impl("k_reciprocal_rows", TORCH_BOX(&rows));
  library.impl("k_reciprocal_expand", TORCH_BOX(&expand));
  library.impl("k_reciprocal_block", TORCH_BOX(&block));
}

}  // namespace autoreid_fast
