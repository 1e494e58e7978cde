// The k nearest: argument checks and allocation, compiled once into each library. The schemas are defined in
// autoreid_fast/ops/nearest.py.
#include <algorithm>
#include <tuple>

#include "../rank_gallery/key_problem.h"
#include "nearest.h"

namespace autoreid_fast {
namespace {

struct Results {
  Tensor keys, indices;

  Results(const Tensor& like, int64_t rows, int64_t k)
      : keys(torch::stable::new_empty(like, {rows, k}, ScalarType::Float)),
        indices(torch::stable::new_empty(like, {rows, k}, ScalarType::Long)) {}

  NearestOut out(int64_t k) {
    return {k, static_cast<float*>(keys.mutable_data_ptr()),
            static_cast<int64_t*>(indices.mutable_data_ptr())};
  }
};

void check(int64_t k, int64_t entries, const char* op) {
  STD_TORCH_CHECK(1 <= k && k <= kMaxNearest && k <= entries, op, ": k must be from 1 to ", kMaxNearest,
                  " and at most the number of entries");
  STD_TORCH_CHECK(entries < (int64_t{1} << 32), op, ": more than 2^32 entries");
}

}  // namespace

std::tuple<Tensor, Tensor> nearest(const Tensor& query, const Tensor& gallery, int64_t k, bool cosine) {
  const char* op = "nearest";
  const Tensor q = readable_features(query, op, "query"), g = readable_features(gallery, op, "gallery");
  const KeyProblem problem = key_problem(q, g, cosine, op);
  check(k, g.size(0), op);
  Results results(q, q.size(0), k);
#ifdef USE_CUDA
  const torch::stable::accelerator::DeviceGuard guard(q.get_device_index());
  const int64_t most = std::max<int64_t>(1, (int64_t{1} << 26) / g.size(0));  // 256 MB of keys
  const int64_t rows = std::min(q.size(0), most < 128 ? most : most / 128 * 128);
  Tensor workspace =
      torch::stable::new_empty(q, {q.size(0) + g.size(0) + rows * g.size(0)}, ScalarType::Float);
  const char* error = nearest_cuda(problem, results.out(k), static_cast<float*>(workspace.mutable_data_ptr()),
                                   rows, current_stream(q));
  STD_TORCH_CHECK(error == nullptr, op, ": ", error);
#else
  nearest_cpu(problem, results.out(k));
#endif
  return {results.keys, results.indices};
}

std::tuple<Tensor, Tensor> nearest_block(const Tensor& block, int64_t k) {
  const char* op = "nearest_block";
  STD_TORCH_CHECK(block.dim() == 2 && block.scalar_type() == ScalarType::Float, op,
                  ": block must be (Q, G) float32");
  check(k, block.size(1), op);
  const Tensor b = block.stride(1) == 1 || block.size(1) == 1 ? block : torch::stable::contiguous(block);
  const NearestBlock given{static_cast<const float*>(b.const_data_ptr()), b.size(0), b.size(1), b.stride(0)};
  Results results(b, b.size(0), k);
#ifdef USE_CUDA
  const torch::stable::accelerator::DeviceGuard guard(b.get_device_index());
  const char* error = nearest_block_cuda(given, results.out(k), current_stream(b));
  STD_TORCH_CHECK(error == nullptr, op, ": ", error);
#else
  nearest_block_cpu(given, results.out(k));
#endif
  return {results.keys, results.indices};
}

#ifdef USE_CUDA
STABLE_TORCH_LIBRARY_IMPL(autoreid_fast, CUDA, library) {
#else
STABLE_TORCH_LIBRARY_IMPL(autoreid_fast, CPU, library) {
#endif
  library.impl("nearest", TORCH_BOX(&nearest));
  library.impl("nearest_block", TORCH_BOX(&nearest_block));
}

}  // namespace autoreid_fast
