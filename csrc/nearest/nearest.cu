// The k nearest on CUDA: kernels and launches. The keys of some queries and the whole gallery are written to
// the workspace (256 MB at most), then the smallest of each row are selected.
#include "../common/kernel_facts.cuh"
#include "../key_tiles/key_tiles_launch.cuh"
#include "nearest_kernel.cuh"

namespace autoreid_fast {
namespace {

// Stores keys as a matrix.
struct StoreSink {
  float* block;
  unsigned row_stride;  // 32 bits: saves a register

  struct Row {
    float* row;
    __device__ __forceinline__ void operator()(int64_t column, float key) const { row[column] = key; }
  };
  __device__ Row row(int64_t query) const { return {block + query * row_stride}; }
};

template <typename T>
__global__ void __launch_bounds__(kKeyThreads, 2)
    store_keys_kernel(const KeyProblem problem, const KeyTerms terms, const StoreSink sink) {
  key_tile_block<T>(problem, terms, sink);
}

__global__ void __launch_bounds__(kSelectThreads) nearest_row_kernel(const KeyBlock p, const NearestOut out) {
  nearest_row_block(p, out);
}

void list_kernels(std::vector<KernelFacts>& kernels) {
  kernels.push_back(facts_of("nearest, keys, float32", store_keys_kernel<float>, kKeyThreads));
  kernels.push_back(facts_of("nearest, selection", nearest_row_kernel, kSelectThreads));
}
const RegisterKernelFacts kRegistered(list_kernels);

}  // namespace

const char* nearest_block_cuda(const KeyBlock& block, const NearestOut& out, void* stream) {
  if (block.query_count == 0) return nullptr;
  nearest_row_kernel<<<static_cast<unsigned>(block.query_count), kSelectThreads, 0,
                       static_cast<cudaStream_t>(stream)>>>(block, out);
  return launch_error();
}

const char* nearest_cuda(const KeyProblem& p, const NearestOut& out, int64_t rows, float* workspace,
                         void* stream) {
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  const int64_t gallery_count = p.gallery.count;
  float* block = workspace + p.query.count + gallery_count;
  return dispatch_cuda(p.query.element, [&]<typename T>() -> const char* {
    const KeyTerms terms = launch_terms<T>(p, workspace, cuda_stream);
    for (int64_t first = 0; first < p.query.count; first += rows) {
      KeyProblem part = p;
      part.query.data = static_cast<const T*>(p.query.data) + first * p.query.row_stride;
      part.query.count = p.query.count - first < rows ? p.query.count - first : rows;
      store_keys_kernel<T><<<key_grid(part), kKeyThreads, 0, cuda_stream>>>(
          part, {terms.query + first, terms.gallery}, {block, static_cast<unsigned>(gallery_count)});
      const KeyBlock keys{block, part.query.count, gallery_count, gallery_count};
      const NearestOut part_out{out.k, out.keys + first * out.k, out.indices + first * out.k};
      if (const char* error = nearest_block_cuda(keys, part_out, stream)) return error;
    }
    return nullptr;
  });
}

}  // namespace autoreid_fast
