// The k nearest on CUDA: kernels and launches. Keys of some queries and the whole gallery go to the workspace
// (256 MB at most), then each row is selected from.
#include "../kernel_facts.cuh"
#include "../rank_gallery/key_launch.cuh"
#include "nearest_kernel.cuh"

namespace autoreid_fast {
namespace {

// Keys as a dense block.
struct StoreSink {
  float* block;
  unsigned row_stride;  // 32 bits spare a register

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

__global__ void __launch_bounds__(kSelectThreads)
    nearest_row_kernel(const NearestBlock p, const NearestOut out) {
  nearest_row_block(p, out);
}

}  // namespace

const char* nearest_block_cuda(const NearestBlock& block, const NearestOut& out, void* stream) {
  if (block.query_count == 0) return nullptr;
  const auto on = static_cast<cudaStream_t>(stream);
  nearest_row_kernel<<<static_cast<unsigned>(block.query_count), kSelectThreads, 0, on>>>(block, out);
  return words_of(cudaGetLastError());
}

const char* nearest_cuda(const KeyProblem& p, const NearestOut& out, float* workspace, int64_t rows,
                         void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  const int64_t gallery_count = p.gallery.count;
  float* block = workspace + p.query.count + gallery_count;
  return by_element(p.query.element, [&]<typename T>() -> const char* {
    const KeyTerms terms = launch_terms<T>(p, workspace, on);
    for (int64_t first = 0; first < p.query.count; first += rows) {
      KeyProblem some = p;
      some.query.data = static_cast<const T*>(p.query.data) + first * p.query.row_stride;
      some.query.count = p.query.count - first < rows ? p.query.count - first : rows;
      store_keys_kernel<T><<<tiles_of(some), kKeyThreads, 0, on>>>(
          some, {terms.query + first, terms.gallery}, {block, static_cast<unsigned>(gallery_count)});
      const NearestBlock given{block, some.query.count, gallery_count, gallery_count};
      const NearestOut part{out.k, out.keys + first * out.k, out.indices + first * out.k};
      if (const char* error = nearest_block_cuda(given, part, on)) return error;
    }
    return nullptr;
  });
}

void nearest_kernel_facts(std::vector<KernelFacts>& all) {
  all.push_back(facts_of("nearest, keys, float32", store_keys_kernel<float>, kKeyThreads));
  all.push_back(facts_of("nearest, selection", nearest_row_kernel, kSelectThreads));
}

}  // namespace autoreid_fast
