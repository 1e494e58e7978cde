// The rows of V on the CPU: reciprocal sets and weights, local query expansion, and the inverted index.
// Chunks of rows are computed on their own, each row in a fixed order: the same for any number of threads.
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "../instruction_set.h"
#include "k_reciprocal.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

namespace autoreid_fast {
namespace {

template <int BYTES>
using Floats __attribute__((vector_size(BYTES))) = float;

// Whether the first `count` neighbours of `image` include `other`.
ALWAYS_INLINE bool has(const ReciprocalRows& p, int64_t image, int64_t count, int32_t other) {
  const int32_t* list = p.neighbors + image * p.count;
  int found = 0;
  for (int64_t k = 0; k < count; ++k) found |= list[k] == other;
  return found != 0;
}

template <int BYTES>
ALWAYS_INLINE float squared_distance(const float* left, const float* right, int64_t dim) {
  using V = Floats<BYTES>;
  constexpr int64_t lanes = BYTES / sizeof(float);
  V sums[4] = {};
  int64_t d = 0;
  for (; d + 4 * lanes <= dim; d += 4 * lanes) {
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      V a, b;
      std::memcpy(&a, left + d + k * lanes, sizeof(V));
      std::memcpy(&b, right + d + k * lanes, sizeof(V));
      sums[k] += (a - b) * (a - b);
    }
  }
  const V total = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  float sum = 0;
  for (int64_t k = 0; k < lanes; ++k) sum += total[k];
  for (; d < dim; ++d) sum += (left[d] - right[d]) * (left[d] - right[d]);
  return sum;
}

// mutual[i][r] = whether the r-th neighbour of image i is in its half set.
ALWAYS_INLINE void half_sets(const ReciprocalRows& p, int64_t begin, int64_t end, uint8_t* mutual) {
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t r = 0; r < p.half; ++r) {
      mutual[i * p.half + r] = has(p, p.neighbors[i * p.count + r], p.half, static_cast<int32_t>(i));
    }
  }
}

// Rows [begin, end) of V; member[j] == i marks j as one of R(i, k1).
template <int BYTES>
ALWAYS_INLINE void reciprocal_rows(const ReciprocalRows& p, const uint8_t* mutual, int64_t begin, int64_t end,
                                   std::vector<int32_t>& member, int64_t* lengths, SparseRows::Chunk& out) {
  std::vector<int32_t> near, expanded;
  for (int64_t i = begin; i < end; ++i) {
    const int32_t* list = p.neighbors + i * p.count;
    near.clear();
    for (int64_t r = 0; r < p.width; ++r) {
      if (!has(p, list[r], p.width, static_cast<int32_t>(i))) continue;
      near.push_back(list[r]);
      member[list[r]] = static_cast<int32_t>(i);
    }
    expanded = near;
    for (const int32_t candidate : near) {
      const int32_t* theirs = p.neighbors + candidate * p.count;
      const uint8_t* in_half = mutual + candidate * p.half;
      int64_t size = 0, shared = 0;
      for (int64_t r = 0; r < p.half; ++r) {
        size += in_half[r];
        shared += in_half[r] && member[theirs[r]] == i;
      }
      if (3 * shared <= 2 * size) continue;
      for (int64_t r = 0; r < p.half; ++r) {
        if (in_half[r] && member[theirs[r]] != i) expanded.push_back(theirs[r]);
      }
    }
    std::sort(expanded.begin(), expanded.end());
    expanded.erase(std::unique(expanded.begin(), expanded.end()), expanded.end());
    const float scale = p.farthest[i] > 0 ? p.farthest[i] : 1.0f;
    const size_t start = out.values.size();
    float sum = 0;
    for (const int32_t j : expanded) {
      const float squared = squared_distance<BYTES>(p.features + i * p.dim, p.features + j * p.dim, p.dim);
      const float weight = std::exp(-squared / scale);
      out.columns.push_back(j);
      out.values.push_back(weight);
      sum += weight;
    }
    for (size_t k = start; k < out.values.size(); ++k) out.values[k] /= sum;
    lengths[i] = static_cast<int64_t>(expanded.size());
  }
}

AUTOREID_FAST_AVX512 void half_sets_avx512(const ReciprocalRows& p, int64_t b, int64_t e, uint8_t* mutual) {
  half_sets(p, b, e, mutual);
}
AUTOREID_FAST_AVX2 void half_sets_avx2(const ReciprocalRows& p, int64_t b, int64_t e, uint8_t* mutual) {
  half_sets(p, b, e, mutual);
}
void half_sets_portable(const ReciprocalRows& p, int64_t b, int64_t e, uint8_t* mutual) {
  half_sets(p, b, e, mutual);
}
AUTOREID_FAST_AVX512 void rows_avx512(const ReciprocalRows& p, const uint8_t* mutual, int64_t begin,
                                      int64_t end, std::vector<int32_t>& member, int64_t* lengths,
                                      SparseRows::Chunk& out) {
  reciprocal_rows<64>(p, mutual, begin, end, member, lengths, out);
}
AUTOREID_FAST_AVX2 void rows_avx2(const ReciprocalRows& p, const uint8_t* mutual, int64_t begin, int64_t end,
                                  std::vector<int32_t>& member, int64_t* lengths, SparseRows::Chunk& out) {
  reciprocal_rows<32>(p, mutual, begin, end, member, lengths, out);
}
void rows_portable(const ReciprocalRows& p, const uint8_t* mutual, int64_t begin, int64_t end,
                   std::vector<int32_t>& member, int64_t* lengths, SparseRows::Chunk& out) {
  reciprocal_rows<16>(p, mutual, begin, end, member, lengths, out);
}

// Calls compute(begin, end, lengths, chunk, scratch) for all chunks of rows, in parallel; `scratch` is one
// per thread, made by make_scratch().
template <typename MakeScratch, typename Compute>
SparseRows in_chunks(int64_t total, const MakeScratch& make_scratch, const Compute& compute) {
  SparseRows result;
  result.offsets.assign(total + 1, 0);
  result.chunks.resize((total + SparseRows::kChunk - 1) / SparseRows::kChunk);
  torch::stable::parallel_for(0, static_cast<int64_t>(result.chunks.size()), 1, [&](int64_t b, int64_t e) {
    auto scratch = make_scratch();
    for (int64_t k = b; k < e; ++k) {
      const int64_t begin = k * SparseRows::kChunk;
      compute(begin, std::min(begin + SparseRows::kChunk, total), result.offsets.data() + 1, result.chunks[k],
              scratch);
    }
  });
  for (int64_t i = 0; i < total; ++i) result.offsets[i + 1] += result.offsets[i];
  return result;
}

}  // namespace

SparseRows k_reciprocal_rows_cpu(const ReciprocalRows& p) {
  const InstructionSet set = instruction_set();
  const auto half = set == InstructionSet::avx512 ? half_sets_avx512
                    : set == InstructionSet::avx2 ? half_sets_avx2
                                                  : half_sets_portable;
  const auto rows = set == InstructionSet::avx512 ? rows_avx512
                    : set == InstructionSet::avx2 ? rows_avx2
                                                  : rows_portable;
  std::vector<uint8_t> mutual(p.total * p.half);
  torch::stable::parallel_for(0, p.total, SparseRows::kChunk,
                              [&](int64_t begin, int64_t end) { half(p, begin, end, mutual.data()); });
  return in_chunks(
      p.total, [&] { return std::vector<int32_t>(p.total, -1); },
      [&](int64_t begin, int64_t end, int64_t* lengths, SparseRows::Chunk& out,
          std::vector<int32_t>& member) { rows(p, mutual.data(), begin, end, member, lengths, out); });
}

SparseRows k_reciprocal_expand_cpu(const Expand& p) {
  struct Scratch {
    std::vector<float> sums;  // (total,) zeros between rows
    std::vector<int32_t> columns;
  };
  return in_chunks(
      p.total, [&] { return Scratch{std::vector<float>(p.total), {}}; },
      [&](int64_t begin, int64_t end, int64_t* lengths, SparseRows::Chunk& out, Scratch& scratch) {
        for (int64_t i = begin; i < end; ++i) {
          scratch.columns.clear();
          for (int64_t r = 0; r < p.k2; ++r) {
            const int32_t source = p.neighbors[i * p.count + r];
            for (int64_t k = p.rows.offsets[source]; k < p.rows.offsets[source + 1]; ++k) {
              const int32_t column = p.rows.columns[k];
              // a weight is never 0: exp of -1 at least, over their sum
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
      const int64_t at = next[p.rows.columns[k]]++;
      p.inverse_rows[at] = static_cast<int32_t>(row - p.first);
      p.values[at] = p.rows.values[k];
    }
  }
}

}  // namespace autoreid_fast
