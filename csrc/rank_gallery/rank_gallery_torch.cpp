// Keys of matches and counts of closer entries: argument checks and allocation, compiled into both libraries.
#include "../key_tiles/key_tiles_torch.h"
#include "rank_gallery.h"

namespace autoreid_fast {
namespace {

// (count,) of this dtype on the device of `like`, contiguous.
Tensor column(const Checks& check, const char* name, const Tensor& tensor, int64_t count, ScalarType type,
              const Tensor& like, const char* like_name) {
  check.shape(name, tensor, {count});
  check.dtype(name, tensor, type);
  check.device(name, tensor, like, like_name);
  return torch::stable::contiguous(tensor);
}

// The arguments that both ways of counting share; names as in the schemas.
struct CountingTensors {
  Tensor valid, excluded_offsets, excluded, offsets, keys, indices, counts;
  Counting counting;
};

CountingTensors counting_tensors(const Checks& check, const Tensor& like, const char* like_name,
                                 int64_t query_count, int64_t gallery_count, const Tensor& valid,
                                 const Tensor& excluded_offsets, const Tensor& excluded,
                                 const Tensor& offsets, const Tensor& keys, const Tensor& indices,
                                 int64_t gallery_offset) {
  const auto checked = [&](const char* name, const Tensor& tensor, int64_t count, ScalarType type) {
    return column(check, name, tensor, count, type, like, like_name);
  };
  CountingTensors t{
      .valid = checked("valid", valid, gallery_count, ScalarType::Bool),
      .excluded_offsets = checked("excluded_offsets", excluded_offsets, query_count + 1, ScalarType::Long),
      .excluded = checked("excluded", excluded, kAnySize, ScalarType::Long),
      .offsets = checked("offsets", offsets, query_count + 1, ScalarType::Long),
      .keys = checked("keys", keys, kAnySize, ScalarType::Float),
      .indices = checked("indices", indices, keys.numel(), ScalarType::Long),
      .counts = torch::stable::new_empty(like, {keys.numel()}, ScalarType::Long),
      .counting = {}};
#ifndef USE_CUDA
  check.offsets("excluded_offsets", t.excluded_offsets, t.excluded.size(0));
  check.indices<int64_t>("excluded", t.excluded, gallery_count);
  check.offsets("offsets", t.offsets, t.indices.size(0));
#endif
  t.counting = {.query_count = query_count,
                .valid = data_of<bool>(t.valid),
                .excluded_offsets = data_of<int64_t>(t.excluded_offsets),
                .excluded = data_of<int64_t>(t.excluded),
                .offsets = data_of<int64_t>(t.offsets),
                .keys = data_of<float>(t.keys),
                .indices = data_of<int64_t>(t.indices),
                .threshold_count = t.keys.size(0),
                .excluded_count = t.excluded.size(0),
                .gallery_offset = gallery_offset,
                .counts = data_of<int64_t>(t.counts)};
  return t;
}

}  // namespace

Tensor match_keys(const Tensor& query, const Tensor& gallery, const Tensor& offsets, const Tensor& matches,
                  bool cosine) {
  constexpr Checks check{"match_keys"};
  const KeyTensors tensors(check, query, gallery, cosine);
  const KeyProblem& problem = tensors.problem;
  const Tensor bounds =
      column(check, "offsets", offsets, problem.query.count + 1, ScalarType::Long, query, "query");
  const Tensor entries = column(check, "matches", matches, kAnySize, ScalarType::Long, query, "query");
  Tensor keys = torch::stable::new_empty(query, {entries.size(0)}, ScalarType::Float);
#ifdef USE_CUDA
  Tensor workspace =
      torch::stable::new_empty(query, {problem.query.count + problem.gallery.count}, ScalarType::Float);
  const MatchKeys p{problem, data_of<int64_t>(bounds), data_of<int64_t>(entries), entries.size(0),
                    data_of<float>(keys)};
  launch_on(check, query,
            [&](void* stream) { return match_keys_cuda(p, data_of<float>(workspace), stream); });
#else
  check.offsets("offsets", bounds, entries.size(0));
  check.indices<int64_t>("matches", entries, problem.gallery.count);
  pair_keys(problem, data_of<int64_t>(bounds), data_of<int64_t>(entries), data_of<float>(keys));
#endif
  return keys;
}

Tensor count_closer(const Tensor& query, const Tensor& gallery, const Tensor& valid,
                    const Tensor& excluded_offsets, const Tensor& excluded, const Tensor& offsets,
                    const Tensor& keys, const Tensor& indices, int64_t gallery_offset, bool cosine) {
  constexpr Checks check{"count_closer"};
  const KeyTensors tensors(check, query, gallery, cosine);
  const KeyProblem& problem = tensors.problem;
  const CountingTensors t =
      counting_tensors(check, query, "query", problem.query.count, problem.gallery.count, valid,
                       excluded_offsets, excluded, offsets, keys, indices, gallery_offset);
#ifdef USE_CUDA
  Tensor workspace =
      torch::stable::new_empty(query, {problem.query.count + problem.gallery.count}, ScalarType::Float);
  launch_on(check, query, [&](void* stream) {
    return count_closer_cuda(problem, t.counting, data_of<float>(workspace), stream);
  });
#else
  count_closer_cpu(problem, t.counting);
#endif
  return t.counts;
}

Tensor count_closer_block(const Tensor& block, const Tensor& valid, const Tensor& excluded_offsets,
                          const Tensor& excluded, const Tensor& offsets, const Tensor& keys,
                          const Tensor& indices, int64_t gallery_offset) {
  constexpr Checks check{"count_closer_block"};
  check.shape("block", block, {kAnySize, kAnySize});
  check.dtype("block", block, ScalarType::Float);
  const Tensor given = adjacent_columns(block);
  const KeyBlock p{data_of<float>(given), given.size(0), given.size(1), given.stride(0)};
  const CountingTensors t =
      counting_tensors(check, block, "block", p.query_count, p.gallery_count, valid, excluded_offsets,
                       excluded, offsets, keys, indices, gallery_offset);
#ifdef USE_CUDA
  launch_on(check, block, [&](void* stream) { return count_closer_block_cuda(p, t.counting, stream); });
#else
  count_closer_block_cpu(p, t.counting);
#endif
  return t.counts;
}

REGISTER_KERNELS(library) {
  library.impl("match_keys", TORCH_BOX(&match_keys));
  library.impl("count_closer", TORCH_BOX(&count_closer));
  library.impl("count_closer_block", TORCH_BOX(&count_closer_block));
}

}  // namespace autoreid_fast
