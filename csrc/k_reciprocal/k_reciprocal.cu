// k-reciprocal re-ranking on CUDA: kernels and launches.
#include "../common/kernel_facts.cuh"
#include "../common/launch.cuh"
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

// Turns lengths into offsets and copies the last one, the number of entries, to the host.
const char* scan(const RowsOut& out, int64_t total, int64_t* entries, cudaStream_t stream) {
  scan_kernel<<<1, kThreads, 0, stream>>>(out.offsets, total);
  cudaError_t error =
      cudaMemcpyAsync(entries, out.offsets + total, sizeof(int64_t), cudaMemcpyDeviceToHost, stream);
  if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
  return error == cudaSuccess ? launch_error() : error_text(error);
}

void list_kernels(std::vector<KernelFacts>& kernels) {
  const auto add = [&](const char* name, auto* kernel) {
    kernels.push_back(facts_of(name, kernel, kThreads));
  };
  add("k_reciprocal_rows, half sets", half_sets_kernel);
  add("k_reciprocal_rows, count", rows_kernel<false>);
  add("k_reciprocal_rows, fill", rows_kernel<true>);
  add("k_reciprocal_expand, count", expand_kernel<false>);
  add("k_reciprocal_expand, fill", expand_kernel<true>);
  add("k_reciprocal, scan", scan_kernel);
  add("k_reciprocal_block, norms", norms_kernel);
  add("k_reciprocal_block", final_kernel);
}
const RegisterKernelFacts kRegistered(list_kernels);

}  // namespace

const char* k_reciprocal_rows_count_cuda(const ReciprocalRows& p, uint8_t* mutual, const RowsOut& out,
                                         int64_t* entries, void* stream) {
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  half_sets_kernel<<<block_count(p.total * p.half, kThreads), kThreads, 0, cuda_stream>>>(p, mutual);
  rows_kernel<false><<<static_cast<unsigned>(p.total), kThreads, 0, cuda_stream>>>(p, mutual, out);
  return scan(out, p.total, entries, cuda_stream);
}

const char* k_reciprocal_rows_fill_cuda(const ReciprocalRows& p, const uint8_t* mutual, const RowsOut& out,
                                        void* stream) {
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  rows_kernel<true><<<static_cast<unsigned>(p.total), kThreads, 0, cuda_stream>>>(p, mutual, out);
  return launch_error();
}

const char* k_reciprocal_expand_count_cuda(const Expand& p, const RowsOut& out, int64_t* entries,
                                           void* stream) {
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  expand_kernel<false><<<static_cast<unsigned>(p.total), kThreads, 0, cuda_stream>>>(p, out);
  return scan(out, p.total, entries, cuda_stream);
}

const char* k_reciprocal_expand_fill_cuda(const Expand& p, const RowsOut& out, void* stream) {
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  expand_kernel<true><<<static_cast<unsigned>(p.total), kThreads, 0, cuda_stream>>>(p, out);
  return launch_error();
}

const char* k_reciprocal_block_cuda(const Block& p, const BlockScratch& scratch, void* stream) {
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  norms_kernel<<<block_count(p.count, kWarps), kThreads, 0, cuda_stream>>>(p.queries, p.count, p.dim,
                                                                           scratch.query_norms);
  norms_kernel<<<block_count(p.size, kWarps), kThreads, 0, cuda_stream>>>(p.gallery, p.size, p.dim,
                                                                          scratch.gallery_norms);
  final_kernel<<<static_cast<unsigned>(p.count), kThreads, 0, cuda_stream>>>(p, scratch);
  return launch_error();
}

}  // namespace autoreid_fast
