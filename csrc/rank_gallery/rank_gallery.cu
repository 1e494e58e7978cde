// Counting closer entries on CUDA: kernels and launches.
#include "../common/kernel_facts.cuh"
#include "../key_tiles/key_tiles_launch.cuh"
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
__global__ void __launch_bounds__(kKeyThreads) match_keys_kernel(const MatchKeys p, const KeyTerms terms) {
  match_key_thread<T>(p, terms);
}

__global__ void __launch_bounds__(kKeyThreads)
    count_closer_block_kernel(const KeyBlock block, const Counting p) {
  count_closer_given_block(block, p);
}

__global__ void __launch_bounds__(kKeyThreads)
    take_back_given_kernel(const KeyBlock block, const Counting p) {
  take_back_given_thread(block, p);
}

__global__ void __launch_bounds__(kKeyThreads) add_up_kernel(const Counting p) { add_up_thread(p); }

const char* clear_counts(const Counting& p, cudaStream_t stream) {
  return error_text(cudaMemsetAsync(p.counts, 0, p.threshold_count * sizeof(Count), stream));
}

void add_up(const Counting& p, cudaStream_t stream) {
  add_up_kernel<<<block_count(p.query_count, kKeyThreads), kKeyThreads, 0, stream>>>(p);
}

void list_kernels(std::vector<KernelFacts>& kernels) {
  const auto add = [&](const char* name, auto* kernel) {
    kernels.push_back(facts_of(name, kernel, kKeyThreads));
  };
  add("count_closer, float32", count_closer_kernel<float>);
  add("count_closer, bfloat16", count_closer_kernel<__nv_bfloat16>);
  add("count_closer_block", count_closer_block_kernel);
  add("match_keys, float32", match_keys_kernel<float>);
}
const RegisterKernelFacts kRegistered(list_kernels);

}  // namespace

const char* match_keys_cuda(const MatchKeys& p, float* workspace, void* stream) {
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  if (p.match_count == 0) return nullptr;
  return dispatch_cuda(p.problem.query.element, [&]<typename T>() {
    const KeyTerms terms = launch_terms<T>(p.problem, workspace, cuda_stream);
    match_keys_kernel<T><<<block_count(p.match_count, kKeyThreads), kKeyThreads, 0, cuda_stream>>>(p, terms);
    return launch_error();
  });
}

const char* count_closer_cuda(const KeyProblem& problem, const Counting& p, float* workspace, void* stream) {
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  if (p.threshold_count == 0) return nullptr;
  if (const char* error = clear_counts(p, cuda_stream)) return error;
  if (problem.gallery.count == 0) return nullptr;
  return dispatch_cuda(problem.query.element, [&]<typename T>() {
    const KeyTerms terms = launch_terms<T>(problem, workspace, cuda_stream);
    count_closer_kernel<T><<<key_grid(problem), kKeyThreads, 0, cuda_stream>>>(problem, terms, p);
    if (p.excluded_count > 0) {
      take_back_kernel<T>
          <<<block_count(p.excluded_count, kKeyThreads), kKeyThreads, 0, cuda_stream>>>(problem, terms, p);
    }
    add_up(p, cuda_stream);
    return launch_error();
  });
}

const char* count_closer_block_cuda(const KeyBlock& block, const Counting& p, void* stream) {
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  if (p.threshold_count == 0) return nullptr;
  if (const char* error = clear_counts(p, cuda_stream)) return error;
  if (block.gallery_count == 0) return nullptr;
  const dim3 grid(static_cast<unsigned>(p.query_count), block_count(block.gallery_count, kBlockEntries));
  count_closer_block_kernel<<<grid, kKeyThreads, 0, cuda_stream>>>(block, p);
  if (p.excluded_count > 0) {
    take_back_given_kernel<<<block_count(p.excluded_count, kKeyThreads), kKeyThreads, 0, cuda_stream>>>(block,
                                                                                                        p);
  }
  add_up(p, cuda_stream);
  return launch_error();
}

}  // namespace autoreid_fast
