// The final distances of some queries to the gallery, on the CPU.
//
// First the original distances, tile by tile: each final distance is written once, as if there were no
// overlap. Then each query's overlaps with gallery rows are found through the inverted index and subtracted:
// some 10^3-10^4 additions per query, without a pass over the row.
#include <torch/csrc/stable/ops.h>

#include <algorithm>

#include "../key_tiles/key_tiles.h"
#include "k_reciprocal.h"

namespace autoreid_fast {
namespace {

// final[q][g] = lambda d_qg / farthest_q + (1 - lambda)
class OriginalDistances final : public TileVisitor {
 public:
  explicit OriginalDistances(const Block& p) : p_(p) {}

  void visit(const KeyTile& tile) override {
    for (int64_t i = 0; i < tile.rows; ++i) {
      const float* squared = tile.keys + i * tile.stride;
      const float farthest = p_.farthest[tile.row + i], scale = farthest > 0 ? farthest : 1.0f;
      float* out = p_.final_distance + (tile.row + i) * p_.size + tile.column;
      for (int64_t c = 0; c < tile.columns; ++c) {
        out[c] = p_.lambda_value * (squared[c] / scale) + (1.0f - p_.lambda_value);
      }
    }
  }

 private:
  const Block& p_;
};

// Replaces (1 - lambda) by (1 - lambda) (1 - t / (2 - t)) where the overlap t is not 0. `overlaps` (size,) is
// 0 before and after; `touched` is scratch.
void subtract_overlaps(const Block& p, int64_t query, std::vector<float>& overlaps,
                       std::vector<int32_t>& touched) {
  touched.clear();
  for (int64_t k = p.rows.offsets[query]; k < p.rows.offsets[query + 1]; ++k) {
    const float query_value = p.rows.values[k];
    const int32_t column = p.rows.columns[k];
    for (int64_t e = p.inverse.offsets[column]; e < p.inverse.offsets[column + 1]; ++e) {
      float& overlap = overlaps[p.inverse.columns[e]];
      if (overlap == 0) touched.push_back(p.inverse.columns[e]);
      overlap += std::min(query_value, p.inverse.values[e]);
    }
  }
  float* out = p.final_distance + query * p.size;
  for (const int32_t g : touched) {
    out[g] -= (1.0f - p.lambda_value) * (overlaps[g] / (2.0f - overlaps[g]));
    overlaps[g] = 0;
  }
}

}  // namespace

void k_reciprocal_block_cpu(const Block& p) {
  const KeyProblem problem{.query = {p.queries, Element::float32, p.count, p.dim},
                           .gallery = {p.gallery, Element::float32, p.size, p.dim},
                           .dim = p.dim,
                           .cosine = false,
                           .valid = nullptr};
  OriginalDistances original(p);
  visit_keys(problem, key_parts(problem), original);
  torch::stable::parallel_for(0, p.count, 16, [&](int64_t begin, int64_t end) {
    std::vector<float> overlaps(p.size);
    std::vector<int32_t> touched;
    for (int64_t query = begin; query < end; ++query) subtract_overlaps(p, query, overlaps, touched);
  });
}

}  // namespace autoreid_fast
