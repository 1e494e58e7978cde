// V on the CPU: reciprocal sets and weights, local query expansion, and the inverted index. Each row is
// computed in a fixed order, so the result is the same for any number of threads.
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>

#include "../common/arithmetic.h"
#include "../common/vector.h"
#include "k_reciprocal.h"

namespace autoreid_fast {
namespace {

// Whether `other` is among the first `count` neighbours of `image`.
ALWAYS_INLINE bool is_neighbor(const ReciprocalRows& p, int64_t image, int64_t count, int32_t other) {
  const int32_t* list = p.neighbors + image * p.count;
  int found = 0;
  for (int64_t k = 0; k < count; ++k) found |= list[k] == other;
  return found != 0;
}

template <int BYTES>
ALWAYS_INLINE float squared_distance(const float* left, const float* right, int64_t dim) {
  using V = Vector<float, BYTES>;
  constexpr int64_t lanes = BYTES / sizeof(float);
  V sums[4] = {};
  int64_t d = 0;
  for (; d + 4 * lanes <= dim; d += 4 * lanes) {
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      V a, b;
      load(a, left + d + k * lanes);
      load(b, right + d + k * lanes);
      sums[k] += (a - b) * (a - b);
    }
  }
  const V total = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  float sum = 0;
  for (int64_t k = 0; k < lanes; ++k) sum += total[k];
  for (; d < dim; ++d) sum += (left[d] - right[d]) * (left[d] - right[d]);
  return sum;
}

// mutual[i * half + r] = whether neighbour r of image i is in R(i, k1 / 2), for i in [begin, end).
struct HalfSets {
  template <int BYTES>
  ALWAYS_INLINE static void run(const ReciprocalRows& p, int64_t begin, int64_t end, uint8_t* mutual) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t r = 0; r < p.half; ++r) {
        mutual[i * p.half + r] =
            is_neighbor(p, p.neighbors[i * p.count + r], p.half, static_cast<int32_t>(i));
      }
    }
  }
};

// R*(i), ascending. marks[j] == i marks the members of R(i, k1).
ALWAYS_INLINE void expanded_set(const ReciprocalRows& p, const uint8_t* mutual, int64_t i,
                                std::vector<int32_t>& marks, std::vector<int32_t>& members) {
  const int32_t* list = p.neighbors + i * p.count;
  members.clear();
  for (int64_t r = 0; r < p.width; ++r) {
    if (!is_neighbor(p, list[r], p.width, static_cast<int32_t>(i))) continue;
    members.push_back(list[r]);
    marks[list[r]] = static_cast<int32_t>(i);
  }
  const size_t reciprocal = members.size();
  for (size_t k = 0; k < reciprocal; ++k) {
    const int32_t* candidate_list = p.neighbors + members[k] * p.count;
    const uint8_t* in_half = mutual + members[k] * p.half;
    int64_t size = 0, shared = 0;
    for (int64_t r = 0; r < p.half; ++r) {
      size += in_half[r];
      shared += in_half[r] && marks[candidate_list[r]] == i;
    }
    if (3 * shared <= 2 * size) continue;
    for (int64_t r = 0; r < p.half; ++r) {
      if (in_half[r] && marks[candidate_list[r]] != i) members.push_back(candidate_list[r]);
    }
  }
  std::sort(members.begin(), members.end());
  members.erase(std::unique(members.begin(), members.end()), members.end());
}

// Rows [begin, end) of V; the length of row i to lengths[i].
struct Rows {
  template <int BYTES>
  ALWAYS_INLINE static void run(const ReciprocalRows& p, const uint8_t* mutual, int64_t begin, int64_t end,
                                std::vector<int32_t>& marks, int64_t* lengths, SparseRows::Chunk& out) {
    std::vector<int32_t> members;
    for (int64_t i = begin; i < end; ++i) {
      expanded_set(p, mutual, i, marks, members);
      const float scale = p.farthest[i] > 0 ? p.farthest[i] : 1.0f;
      const size_t start = out.values.size();
      float sum = 0;
      for (const int32_t j : members) {
        const float squared = squared_distance<BYTES>(p.features + i * p.dim, p.features + j * p.dim, p.dim);
        const float weight = std::exp(-squared / scale);
        out.columns.push_back(j);
        out.values.push_back(weight);
        sum += weight;
      }
      for (size_t k = start; k < out.values.size(); ++k) out.values[k] /= sum;
      lengths[i] = static_cast<int64_t>(members.size());
    }
  }
};

// Calls compute(begin, end, lengths, chunk, scratch) for all chunks of rows, in parallel; each thread has its
// own scratch = make_scratch().
template <typename MakeScratch, typename Compute>
SparseRows in_chunks(int64_t total, const MakeScratch& make_scratch, const Compute& compute) {
  SparseRows result;
  result.offsets.assign(total + 1, 0);
  result.chunks.resize(ceil_div(total, SparseRows::kChunk));
  torch::stable::parallel_for(0, static_cast<int64_t>(result.chunks.size()), 1,
                              [&](int64_t first, int64_t last) {
                                auto scratch = make_scratch();
                                for (int64_t k = first; k < last; ++k) {
                                  const int64_t begin = k * SparseRows::kChunk;
                                  compute(begin, std::min(begin + SparseRows::kChunk, total),
                                          result.offsets.data() + 1, result.chunks[k], scratch);
                                }
                              });
  for (int64_t i = 0; i < total; ++i) result.offsets[i + 1] += result.offsets[i];
  return result;
}

}  // namespace

SparseRows k_reciprocal_rows_cpu(const ReciprocalRows& p) {
  const auto half_sets = variant<HalfSets>();
  const auto compute_rows = variant<Rows>();
  std::vector<uint8_t> mutual(p.total * p.half);
  torch::stable::parallel_for(0, p.total, SparseRows::kChunk,
                              [&](int64_t begin, int64_t end) { half_sets(p, begin, end, mutual.data()); });
  return in_chunks(
      p.total, [&] { return std::vector<int32_t>(p.total, -1); },
      [&](int64_t begin, int64_t end, int64_t* lengths, SparseRows::Chunk& out, std::vector<int32_t>& marks) {
        compute_rows(p, mutual.data(), begin, end, marks, lengths, out);
      });
}

SparseRows k_reciprocal_expand_cpu(const Expand& p) {
  struct Scratch {
    std::vector<float> sums;  // (total,) zero between rows
    std::vector<int32_t> columns;
  };
  return in_chunks(
      p.total, [&] { return Scratch{std::vector<float>(p.total), {}}; },
      [&](int64_t begin, int64_t end, int64_t* lengths, SparseRows::Chunk& out, Scratch& scratch) {
        for (int64_t i = begin; i < end; ++i) {
          scratch.columns.clear();
          for (int64_t r = 0; r < p.k2; ++r) {
            const int32_t row = p.neighbors[i * p.count + r];
            for (int64_t k = p.rows.offsets[row]; k < p.rows.offsets[row + 1]; ++k) {
              const int32_t column = p.rows.columns[k];
              // 0 means not seen: values of V are positive, exp(-1) at least, over their sum.
              if (scratch.sums[column] == 0) scratch.columns.push_back(column);
              scratch.sums[column] += p.rows.values[k];
            }
          }
          std::sort(scratch.columns.begin(), scratch.columns.end());
          for (const int32_t column : scratch.columns) {
            out.columns.push_back(column);
            out.values.push_back(scratch.sums[column] / static_cast<float>(p.k2));
            scratch.sums[column] = 0;
          }
          lengths[i] = static_cast<int64_t>(scratch.columns.size());
        }
      });
}

void k_reciprocal_invert_cpu(const Invert& p) {
  const int64_t begin = p.rows.offsets[p.first], end = p.rows.offsets[p.total];
  std::fill_n(p.offsets, p.total + 1, 0);
  for (int64_t k = begin; k < end; ++k) ++p.offsets[p.rows.columns[k] + 1];
  for (int64_t c = 0; c < p.total; ++c) p.offsets[c + 1] += p.offsets[c];
  std::vector<int64_t> next(p.offsets, p.offsets + p.total);
  for (int64_t row = p.first; row < p.total; ++row) {
    for (int64_t k = p.rows.offsets[row]; k < p.rows.offsets[row + 1]; ++k) {
      const int64_t entry = next[p.rows.columns[k]]++;
      p.inverse_rows[entry] = static_cast<int32_t>(row - p.first);
      p.values[entry] = p.rows.values[k];
    }
  }
}

}  // namespace autoreid_fast
