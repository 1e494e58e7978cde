// Counting closer entries: argument checks and allocation, compiled once into each library. The schemas are
// defined in autoreid_fast/ops/rank_gallery.py.
#include "key_problem.h"
#include "rank_gallery.h"

namespace autoreid_fast {
namespace {

Tensor column(const Tensor& tensor, int64_t count, ScalarType type, const Tensor& like, const char* op,
              const char* name) {
  STD_TORCH_CHECK(tensor.dim() == 1 && tensor.size(0) == count, op, ": ", name, " must have ", count,
                  " entries");
  STD_TORCH_CHECK(tensor.scalar_type() == type, op, ": ", name, " has the wrong dtype");
  STD_TORCH_CHECK(tensor.device() == like.device(), op, ": ", name, " must be on the device of the keys");
  return torch::stable::contiguous(tensor);
}

const int64_t* integers(const Tensor& tensor) { return static_cast<const int64_t*>(tensor.const_data_ptr()); }

// On the CPU an offset or an index out of range is an error; on CUDA finding it would be a host sync.
void check_lists([[maybe_unused]] const Tensor& offsets, [[maybe_unused]] const Tensor& entries,
                 [[maybe_unused]] int64_t below, [[maybe_unused]] const char* op,
                 [[maybe_unused]] const char* name) {
#ifndef USE_CUDA
  const int64_t* bounds = integers(offsets);
  bool good = bounds[0] == 0 && bounds[offsets.size(0) - 1] == entries.size(0);
  for (int64_t i = 0; i + 1 < offsets.size(0); ++i) good &= bounds[i] <= bounds[i + 1];
  for (int64_t i = 0; i < entries.size(0) && below >= 0; ++i) {
    good &= 0 <= integers(entries)[i] && integers(entries)[i] < below;
  }
  STD_TORCH_CHECK(good, op, ": the lists of ", name, " do not fit the queries and the gallery");
#endif
}

// The arguments that both ways of counting share, held as tensors.
struct Lists {
  Tensor valid, excluded_offsets, excluded, offsets, keys, indices, counts;

  Lists(const Tensor& like, int64_t query_count, int64_t gallery_count, const Tensor& valid_,
        const Tensor& excluded_offsets_, const Tensor& excluded_, const Tensor& offsets_, const Tensor& keys_,
        const Tensor& indices_, const char* op)
      : valid(column(valid_, gallery_count, ScalarType::Bool, like, op, "valid")),
        excluded_offsets(
            column(excluded_offsets_, query_count + 1, ScalarType::Long, like, op, "excluded_offsets")),
        excluded(column(excluded_, excluded_.size(0), ScalarType::Long, like, op, "excluded")),
        offsets(column(offsets_, query_count + 1, ScalarType::Long, like, op, "offsets")),
        keys(column(keys_, keys_.size(0), ScalarType::Float, like, op, "keys")),
        indices(column(indices_, keys_.size(0), ScalarType::Long, like, op, "indices")),
        counts(torch::stable::new_empty(indices, {indices.size(0)})) {
    check_lists(excluded_offsets, excluded, gallery_count, op, "excluded entries");
    check_lists(offsets, indices, -1, op, "thresholds");
  }

  Counting counting(int64_t gallery_offset) const {
    return {.query_count = offsets.size(0) - 1,
            .valid = static_cast<const bool*>(valid.const_data_ptr()),
            .excluded_offsets = integers(excluded_offsets),
            .excluded = integers(excluded),
            .offsets = integers(offsets),
            .keys = static_cast<const float*>(keys.const_data_ptr()),
            .indices = integers(indices),
            .threshold_count = keys.size(0),
            .excluded_count = excluded.size(0),
            .gallery_offset = gallery_offset,
            .counts = static_cast<int64_t*>(counts.mutable_data_ptr())};
  }
};

#ifdef USE_CUDA
Tensor workspace_of(const KeyProblem& problem, const Tensor& query) {
  return torch::stable::new_empty(query, {problem.query.count + problem.gallery.count}, ScalarType::Float);
}
float* floats(Tensor& tensor) { return static_cast<float*>(tensor.mutable_data_ptr()); }
#endif

}  // namespace

Tensor match_keys(const Tensor& query, const Tensor& gallery, const Tensor& offsets, const Tensor& matches,
                  bool cosine) {
  const char* op = "match_keys";
  const Tensor q = readable_features(query, op, "query"), g = readable_features(gallery, op, "gallery");
  const KeyProblem problem = key_problem(q, g, cosine, op);
  const Tensor own = column(offsets, q.size(0) + 1, ScalarType::Long, q, op, "offsets");
  const Tensor entries = column(matches, matches.size(0), ScalarType::Long, q, op, "matches");
  check_lists(own, entries, g.size(0), op, "matches");
  Tensor keys = torch::stable::new_empty(q, {entries.size(0)}, ScalarType::Float);
  float* out = static_cast<float*>(keys.mutable_data_ptr());
#ifdef USE_CUDA
  const torch::stable::accelerator::DeviceGuard guard(q.get_device_index());
  Tensor workspace = workspace_of(problem, q);
  const PairKeys p{problem, integers(own), integers(entries), entries.size(0), out};
  const char* error = match_keys_cuda(p, floats(workspace), current_stream(q));
  STD_TORCH_CHECK(error == nullptr, op, ": ", error);
#else
  pair_keys(problem, integers(own), integers(entries), out);
#endif
  return keys;
}

Tensor count_closer(const Tensor& query, const Tensor& gallery, const Tensor& valid,
                    const Tensor& excluded_offsets, const Tensor& excluded, const Tensor& offsets,
                    const Tensor& keys, const Tensor& indices, int64_t gallery_offset, bool cosine) {
  const char* op = "count_closer";
  const Tensor q = readable_features(query, op, "query"), g = readable_features(gallery, op, "gallery");
  const KeyProblem problem = key_problem(q, g, cosine, op);
  const Lists lists(q, q.size(0), g.size(0), valid, excluded_offsets, excluded, offsets, keys, indices, op);
#ifdef USE_CUDA
  const torch::stable::accelerator::DeviceGuard guard(q.get_device_index());
  Tensor workspace = workspace_of(problem, q);
  const char* error =
      count_closer_cuda(problem, lists.counting(gallery_offset), floats(workspace), current_stream(q));
  STD_TORCH_CHECK(error == nullptr, op, ": ", error);
#else
  count_closer_cpu(problem, lists.counting(gallery_offset));
#endif
  return lists.counts;
}

Tensor count_closer_block(const Tensor& block, const Tensor& valid, const Tensor& excluded_offsets,
                          const Tensor& excluded, const Tensor& offsets, const Tensor& keys,
                          const Tensor& indices, int64_t gallery_offset) {
  const char* op = "count_closer_block";
  STD_TORCH_CHECK(block.dim() == 2 && block.scalar_type() == ScalarType::Float, op,
                  ": block must be (Q, G) float32");
  const Tensor b = block.stride(1) == 1 || block.size(1) == 1 ? block : torch::stable::contiguous(block);
  const Lists lists(b, b.size(0), b.size(1), valid, excluded_offsets, excluded, offsets, keys, indices, op);
  const KeyBlock given{static_cast<const float*>(b.const_data_ptr()), b.size(1), b.stride(0)};
#ifdef USE_CUDA
  const torch::stable::accelerator::DeviceGuard guard(b.get_device_index());
  const char* error = count_closer_block_cuda(given, lists.counting(gallery_offset), current_stream(b));
  STD_TORCH_CHECK(error == nullptr, op, ": ", error);
#else
  count_closer_block_cpu(given, lists.counting(gallery_offset));
#endif
  return lists.counts;
}

#ifdef USE_CUDA
STABLE_TORCH_LIBRARY_IMPL(autoreid_fast, CUDA, library) {
#else
STABLE_TORCH_LIBRARY_IMPL(autoreid_fast, CPU, library) {
#endif
  library.impl("match_keys", TORCH_BOX(&match_keys));
  library.impl("count_closer", TORCH_BOX(&count_closer));
  library.impl("count_closer_block", TORCH_BOX(&count_closer_block));
}

}  // namespace autoreid_fast
