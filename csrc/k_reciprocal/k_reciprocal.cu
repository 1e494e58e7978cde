// k-reciprocal re-ranking on CUDA: kernels and launches.
#include <cuda_runtime.h>

#include "../kernel_facts.cuh"
#include "k_reciprocal_kernel.cuh"

namespace autoreid_fast {
namespace {

__global__ void __launch_bounds__(kThreads) half_sets_kernel(const ReciprocalRows p, uint8_t* mutual) {
  half_sets_block(p, mutual);
}
template <bool FILL>
__global__ void __launch_bounds__(kThreads)
    rows_kernel(const ReciprocalRows p, const uint8_t* mutual, const RowsOut out) {
  reciprocal_rows_block<FILL>(p, mutual, out);
}
template <bool FILL>
__global__ void __launch_bounds__(kThreads) expand_kernel(const Expand p, const RowsOut out) {
  expand_block<FILL>(p, out);
}
__global__ void __launch_bounds__(kThreads) scan_kernel(int64_t* offsets, int64_t total) {
  scan_block(offsets, total);
}
__global__ void __launch_bounds__(kThreads)
    norms_kernel(const float* rows, int64_t count, int64_t dim, float* norms) {
  norms_block(rows, count, dim, norms);
}
__global__ void __launch_bounds__(kThreads) final_kernel(const Block p, const BlockScratch scratch) {
  final_block(p, scratch);
}

unsigned blocks(int64_t work, int64_t each) { return static_cast<unsigned>((work + each - 1) / each); }

const char* words(cudaError_t error) { return error == cudaSuccess ? nullptr : cudaGetErrorString(error); }

// Lengths to offsets, whose last one comes to the host.
const char* scan(const RowsOut& out, int64_t total, int64_t* entries, cudaStream_t stream) {
  scan_kernel<<<1, kThreads, 0, stream>>>(out.offsets, total);
  cudaError_t error =
      cudaMemcpyAsync(entries, out.offsets + total, sizeof(int64_t), cudaMemcpyDeviceToHost, stream);
  if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
  return words(error == cudaSuccess ? cudaGetLastError() : error);
}

}  // namespace

const char* k_reciprocal_rows_count_cuda(const ReciprocalRows& p, uint8_t* mutual, const RowsOut& out,
                                         int64_t* entries, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  half_sets_kernel<<<blocks(p.total * p.half, kThreads), kThreads, 0, on>>>(p, mutual);
  rows_kernel<false><<<static_cast<unsigned>(p.total), kThreads, 0, on>>>(p, mutual, out);
  return scan(out, p.total, entries, on);
}

const char* k_reciprocal_rows_fill_cuda(const ReciprocalRows& p, const uint8_t* mutual, const RowsOut& out,
                                        void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  rows_kernel<true><<<static_cast<unsigned>(p.total), kThreads, 0, on>>>(p, mutual, out);
  return words(cudaGetLastError());
}

const char* k_reciprocal_expand_count_cuda(const Expand& p, const RowsOut& out, int64_t* entries,
                                           void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  expand_kernel<false><<<static_cast<unsigned>(p.total), kThreads, 0, on>>>(p, out);
  return scan(out, p.total, entries, on);
}

const char* k_reciprocal_expand_fill_cuda(const Expand& p, const RowsOut& out, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  expand_kernel<true><<<static_cast<unsigned>(p.total), kThreads, 0, on>>>(p, out);
  return words(cudaGetLastError());
}

const char* k_reciprocal_block_cuda(const Block& p, const BlockScratch& scratch, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  norms_kernel<<<blocks(p.count, kWarps), kThreads, 0, on>>>(p.queries, p.count, p.dim, scratch.query_norms);
  norms_kernel<<<blocks(p.size, kWarps), kThreads, 0, on>>>(p.gallery, p.size, p.dim, scratch.gallery_norms);
  final_kernel<<<static_cast<unsigned>(p.count), kThreads, 0, on>>>(p, scratch);
  return words(cudaGetLastError());
}

void k_reciprocal_kernel_facts(std::vector<KernelFacts>& all) {
  all.push_back(facts_of("k_reciprocal_rows, half sets", half_sets_kernel, kThreads));
  all.push_back(facts_of("k_reciprocal_rows, count", rows_kernel<false>, kThreads));
  all.push_back(facts_of("k_reciprocal_rows, fill", rows_kernel<true>, kThreads));
  all.push_back(facts_of("k_reciprocal_expand, count", expand_kernel<false>, kThreads));
  all.push_back(facts_of("k_reciprocal_expand, fill", expand_kernel<true>, kThreads));
  all.push_back(facts_of("k_reciprocal, scan", scan_kernel, kThreads));
  all.push_back(facts_of("k_reciprocal_block, norms", norms_kernel, kThreads));
  all.push_back(facts_of("k_reciprocal_block", final_kernel, kThreads));
}

}  // namespace autoreid_fast
