// The final distances of some queries to the gallery, on the CPU.
//
// First the original distances, tile by tile of the gallery, each written once with all but the overlap of
// the final value; then each query's row takes off what its overlaps with gallery rows, found through the
// inverted index, are worth: some 10^4 additions a query, and no pass over the row.
#include <torch/csrc/stable/ops.h>

#include "distance_tile.h"
#include "k_reciprocal.h"

namespace autoreid_fast {
namespace {

// final[q][g] = lambda d_qg / farthest_q + (1 - lambda), for the tile of the gallery from `first` on.
template <typename S>
ALWAYS_INLINE void original(const Block& p, const float* query_norms, int64_t first, float* packed) {
  const int64_t size = std::min(kTile, p.size - first);
  float norms[kTile] = {}, squared[kMaxStrip][kTile];
  norms_of(p.gallery + first * p.dim, p.dim, 0, size, norms);
  pack<S>(p.gallery, p.size, p.dim, first, packed);
  for (int64_t row = 0; row < p.count; row += S::rows) {
    const float* rows[kMaxStrip];
    float row_norms[kMaxStrip];
    for (int64_t r = 0; r < S::rows; ++r) {
      const int64_t query = std::min(row + r, p.count - 1);
      rows[r] = p.queries + query * p.dim;
      row_norms[r] = query_norms[query];
    }
    strip_distances<S>(rows, row_norms, packed, norms, p.dim, squared);
    for (int64_t q = row; q < std::min(row + S::rows, p.count); ++q) {
      const float scale = p.farthest[q] > 0 ? p.farthest[q] : 1.0f;
      float* out = p.final + q * p.size + first;
      for (int64_t c = 0; c < size; ++c)
        out[c] = p.lambda * (squared[q - row][c] / scale) + (1.0f - p.lambda);
    }
  }
}

AUTOREID_FAST_AVX512 void original_avx512(const Block& p, const float* norms, int64_t first, float* packed) {
  original<Avx512Shape>(p, norms, first, packed);
}
AUTOREID_FAST_AVX2 void original_avx2(const Block& p, const float* norms, int64_t first, float* packed) {
  original<Avx2Shape>(p, norms, first, packed);
}
void original_portable(const Block& p, const float* norms, int64_t first, float* packed) {
  original<PortableShape>(p, norms, first, packed);
}
AUTOREID_FAST_AVX512 void norms_avx512(const Block& p, float* norms) {
  norms_of(p.queries, p.dim, 0, p.count, norms);
}
AUTOREID_FAST_AVX2 void norms_avx2(const Block& p, float* norms) {
  norms_of(p.queries, p.dim, 0, p.count, norms);
}
void norms_portable(const Block& p, float* norms) { norms_of(p.queries, p.dim, 0, p.count, norms); }

// (1 - lambda) (1 - t / (2 - t)) instead of (1 - lambda) where the overlap t is not 0.
void take_off_overlaps(const Block& p, int64_t query, std::vector<float>& overlaps,
                       std::vector<int32_t>& touched) {
  touched.clear();
  for (int64_t k = p.rows.offsets[query]; k < p.rows.offsets[query + 1]; ++k) {
    const float own = p.rows.values[k];
    const int32_t column = p.rows.columns[k];
    for (int64_t e = p.inverse.offsets[column]; e < p.inverse.offsets[column + 1]; ++e) {
      float& overlap = overlaps[p.inverse.columns[e]];
      if (overlap == 0) touched.push_back(p.inverse.columns[e]);
      overlap += std::min(own, p.inverse.values[e]);
    }
  }
  float* out = p.final + query * p.size;
  for (const int32_t g : touched) {
    out[g] -= (1.0f - p.lambda) * (overlaps[g] / (2.0f - overlaps[g]));
    overlaps[g] = 0;
  }
}

}  // namespace

void k_reciprocal_block_cpu(const Block& p) {
  const InstructionSet set = instruction_set();
  const auto norms = set == InstructionSet::avx512 ? norms_avx512
                     : set == InstructionSet::avx2 ? norms_avx2
                                                   : norms_portable;
  const auto run = set == InstructionSet::avx512 ? original_avx512
                   : set == InstructionSet::avx2 ? original_avx2
                                                 : original_portable;
  std::vector<float> query_norms(p.count);
  norms(p, query_norms.data());
  torch::stable::parallel_for(0, (p.size + kTile - 1) / kTile, 1, [&](int64_t begin, int64_t end) {
    PackedTile packed(p.dim);
    for (int64_t tile = begin; tile < end; ++tile) run(p, query_norms.data(), tile * kTile, packed.data());
  });
  torch::stable::parallel_for(0, p.count, 16, [&](int64_t begin, int64_t end) {
    std::vector<float> overlaps(p.size);
    std::vector<int32_t> touched;
    for (int64_t query = begin; query < end; ++query) take_off_overlaps(p, query, overlaps, touched);
  });
}

}  // namespace autoreid_fast
