// The k nearest: argument checks and allocation, compiled into both libraries.
#include <algorithm>
#include <tuple>

#include "../key_tiles/key_tiles_torch.h"
#include "nearest.h"

namespace autoreid_fast {
namespace {

struct Results {
  Tensor keys, indices;  // (Q, k)

  Results(const Tensor& like, int64_t queries, int64_t k)
      : keys(torch::stable::new_empty(like, {queries, k}, ScalarType::Float)),
        indices(torch::stable::new_empty(like, {queries, k}, ScalarType::Long)) {}

  NearestOut out() { return {keys.size(1), data_of<float>(keys), data_of<int64_t>(indices)}; }
};

void check_k(const Checks& check, int64_t k, int64_t entries) {
  check.require(1 <= k && k <= kMaxNearest && k <= entries, "`k` is ", k, "; expected 1 to ",
                std::min(kMaxNearest, entries), ", at most the number of gallery entries");
  check.require(entries < (int64_t{1} << 32), "the gallery has 2^32 entries or more");
}

}  // namespace

std::tuple<Tensor, Tensor> nearest(const Tensor& query, const Tensor& gallery, int64_t k, bool cosine) {
  constexpr Checks check{"nearest"};
  const KeyTensors tensors(check, query, gallery, cosine);
  const KeyProblem& problem = tensors.problem;
  check_k(check, k, problem.gallery.count);
  Results results(tensors.query, problem.query.count, k);
#ifdef USE_CUDA
  const int64_t queries = problem.query.count, entries = problem.gallery.count;
  // A multiple of the kernel's tiles of 128 queries, where that many fit.
  const int64_t most = std::max<int64_t>(1, (int64_t{1} << 26) / entries);  // 256 MB of keys
  const int64_t rows = std::min(queries, most < 128 ? most : most / 128 * 128);
  Tensor workspace =
      torch::stable::new_empty(tensors.query, {queries + entries + rows * entries}, ScalarType::Float);
  launch_on(check, tensors.query, [&](void* stream) {
    return nearest_cuda(problem, results.out(), rows, data_of<float>(workspace), stream);
  });
#else
  nearest_cpu(problem, results.out());
#endif
  return {results.keys, results.indices};
}

std::tuple<Tensor, Tensor> nearest_block(const Tensor& block, int64_t k) {
  constexpr Checks check{"nearest_block"};
  check.shape("block", block, {kAnySize, kAnySize});
  check.dtype("block", block, ScalarType::Float);
  check_k(check, k, block.size(1));
  const Tensor keys = adjacent_columns(block);
  const KeyBlock p{data_of<float>(keys), keys.size(0), keys.size(1), keys.stride(0)};
  Results results(keys, keys.size(0), k);
#ifdef USE_CUDA
  launch_on(check, keys, [&](void* stream) { return nearest_block_cuda(p, results.out(), stream); });
#else
  nearest_block_cpu(p, results.out());
#endif
  return {results.keys, results.indices};
}

REGISTER_KERNELS(library) {
  library.impl("nearest", TORCH_BOX(&nearest));
  library.impl("nearest_block", TORCH_BOX(&nearest_block));
}

}  // namespace autoreid_fast
