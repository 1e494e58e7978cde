// Counting closer entries on CUDA: kernels and launches.
#include "../kernel_facts.cuh"
#include "key_launch.cuh"
#include "rank_gallery_kernel.cuh"

namespace autoreid_fast {
namespace {

template <typename T>
__global__ void __launch_bounds__(kKeyThreads, 2)
    count_closer_kernel(const KeyProblem problem, const KeyTerms terms, const Counting p) {
  key_tile_block<T>(problem, terms, CountSink{p});
}

template <typename T>
__global__ void __launch_bounds__(kKeyThreads)
    take_back_kernel(const KeyProblem problem, const KeyTerms terms, const Counting p) {
  take_back_thread<T>(problem, terms, p);
}

template <typename T>
__global__ void __launch_bounds__(kKeyThreads) match_keys_kernel(const PairKeys p, const KeyTerms terms) {
  match_key_thread<T>(p, terms);
}

__global__ void __launch_bounds__(kKeyThreads)
    count_closer_block_kernel(const KeyBlock block, const Counting p) {
  count_given_block(block, p);
}

__global__ void __launch_bounds__(kKeyThreads)
    take_back_given_kernel(const KeyBlock block, const Counting p) {
  take_back_given_thread(block, p);
}

__global__ void __launch_bounds__(kKeyThreads) add_up_kernel(const Counting p) { add_up_thread(p); }

cudaError_t clear(const Counting& p, cudaStream_t stream) {
  return cudaMemsetAsync(p.counts, 0, p.threshold_count * sizeof(Count), stream);
}

void add_up(const Counting& p, cudaStream_t stream) {
  add_up_kernel<<<blocks_of(p.query_count), kKeyThreads, 0, stream>>>(p);
}

}  // namespace

const char* match_keys_cuda(const PairKeys& p, float* workspace, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  if (p.match_count == 0) return nullptr;
  return by_element(p.problem.query.element, [&]<typename T>() {
    const KeyTerms terms = launch_terms<T>(p.problem, workspace, on);
    match_keys_kernel<T><<<blocks_of(p.match_count), kKeyThreads, 0, on>>>(p, terms);
    return words_of(cudaGetLastError());
  });
}

const char* count_closer_cuda(const KeyProblem& problem, const Counting& p, float* workspace, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  if (p.threshold_count == 0) return nullptr;
  if (const char* error = words_of(clear(p, on))) return error;
  if (problem.gallery.count == 0) return nullptr;
  return by_element(problem.query.element, [&]<typename T>() {
    const KeyTerms terms = launch_terms<T>(problem, workspace, on);
    count_closer_kernel<T><<<tiles_of(problem), kKeyThreads, 0, on>>>(problem, terms, p);
    if (p.excluded_count > 0) {
      take_back_kernel<T><<<blocks_of(p.excluded_count), kKeyThreads, 0, on>>>(problem, terms, p);
    }
    add_up(p, on);
    return words_of(cudaGetLastError());
  });
}

const char* count_closer_block_cuda(const KeyBlock& block, const Counting& p, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  if (p.threshold_count == 0) return nullptr;
  if (const char* error = words_of(clear(p, on))) return error;
  if (block.gallery_count == 0) return nullptr;
  const dim3 grid(static_cast<unsigned>(p.query_count),
                  static_cast<unsigned>((block.gallery_count + kBlockEntries - 1) / kBlockEntries));
  count_closer_block_kernel<<<grid, kKeyThreads, 0, on>>>(block, p);
  if (p.excluded_count > 0) {
    take_back_given_kernel<<<blocks_of(p.excluded_count), kKeyThreads, 0, on>>>(block, p);
  }
  add_up(p, on);
  return words_of(cudaGetLastError());
}

void rank_gallery_kernel_facts(std::vector<KernelFacts>& all) {
  all.push_back(facts_of("count_closer, float32", count_closer_kernel<float>, kKeyThreads));
  all.push_back(facts_of("count_closer, bfloat16", count_closer_kernel<__nv_bfloat16>, kKeyThreads));
  all.push_back(facts_of("count_closer_block", count_closer_block_kernel, kKeyThreads));
  all.push_back(facts_of("match_keys, float32", match_keys_kernel<float>, kKeyThreads));
}

}  // namespace autoreid_fast
