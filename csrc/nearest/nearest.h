// The k nearest gallery entries of every query: parameters and launches. key_tiles.h defines the keys.
//
// An entry is one word of 64 bits: its key's bits, made to order like the number, above its index. So equal
// keys go by index, no two words are equal, and the k smallest words are the answer, however they are found.
//
// Work: Q G D multiply-adds; then about k ln(G / k) entries a query pass the filter of the k-th so far.
#pragma once

#include <cstdint>

#include "../rank_gallery/key_tiles.h"

#ifdef __CUDACC__
#define AUTOREID_FAST_BOTH __host__ __device__
#else
#define AUTOREID_FAST_BOTH
#endif

namespace autoreid_fast {

constexpr int64_t kMaxNearest = 1000;

using Word = unsigned long long;

// The bits of a key in the order of the numbers: negatives flipped, the rest above them; -0 as 0.
AUTOREID_FAST_BOTH inline uint32_t ordered_bits(float key) {
  union {
    float number;
    uint32_t bits;
  } value = {key + 0.0f};
  return value.bits & 0x80000000u ? ~value.bits : value.bits | 0x80000000u;
}

AUTOREID_FAST_BOTH inline float key_of(Word word) {
  const uint32_t ordered = static_cast<uint32_t>(word >> 32);
  union {
    uint32_t bits;
    float number;
  } value = {ordered & 0x80000000u ? ordered & 0x7fffffffu : ~ordered};
  return value.number;
}

AUTOREID_FAST_BOTH inline Word word_of(float key, int64_t index) {
  return static_cast<Word>(ordered_bits(key)) << 32 | static_cast<uint32_t>(index);
}

AUTOREID_FAST_BOTH inline int64_t index_of(Word word) { return static_cast<int64_t>(word & 0xffffffffu); }

// Keys that are given: (query_count, gallery_count), columns adjacent.
struct NearestBlock {
  const float* block;
  int64_t query_count;    // Q
  int64_t gallery_count;  // G, < 2^32
  int64_t row_stride;     // in elements
};

struct NearestOut {
  int64_t k;         // 1 .. kMaxNearest, <= G
  float* keys;       // (Q, k), ascending
  int64_t* indices;  // (Q, k)
};

void nearest_cpu(const KeyProblem& p, const NearestOut& out);
void nearest_block_cpu(const NearestBlock& block, const NearestOut& out);

// On `stream` (a cudaStream_t). `workspace`: Q + G floats, then `rows` times G: queries that are taken at
// once. They return nullptr, or CUDA's words for what went wrong.
const char* nearest_cuda(const KeyProblem& p, const NearestOut& out, float* workspace, int64_t rows,
                         void* stream);
const char* nearest_block_cuda(const NearestBlock& block, const NearestOut& out, void* stream);

}  // namespace autoreid_fast
