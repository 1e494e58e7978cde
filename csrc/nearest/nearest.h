// The k nearest gallery entries of every query: parameters and launches. key_tiles.h defines the keys.
//
// An entry is one word of 64 bits: the bits of its key, mapped so that they order like the number, above its
// index. Words are distinct and equal keys order by index, so the k smallest words are the result, whatever
// the algorithm.
//
// Work: Q G D multiply-adds; then about k ln(G / k) entries per query are smaller than the k-th so far.
// Bytes: the features once and 12 Q k for the results; `nearest_block` reads 4 Q G instead of the features.
#pragma once

#include "../common/arithmetic.h"
#include "../key_tiles/key_tiles.h"

namespace autoreid_fast {

constexpr int64_t kMaxNearest = 1000;

using Word = unsigned long long;

// The bits of a key, mapped so that they order like the numbers: those of negatives inverted, the others
// above them; -0 as 0.
HOST_DEVICE inline uint32_t ordered_bits(float key) {
  union {
    float number;
    uint32_t bits;
  } value = {key + 0.0f};
  return value.bits & 0x80000000u ? ~value.bits : value.bits | 0x80000000u;
}

HOST_DEVICE inline float key_of(Word word) {
  const uint32_t ordered = static_cast<uint32_t>(word >> 32);
  union {
    uint32_t bits;
    float number;
  } value = {ordered & 0x80000000u ? ordered & 0x7fffffffu : ~ordered};
  return value.number;
}

HOST_DEVICE inline Word word_of(float key, int64_t index) {
  return static_cast<Word>(ordered_bits(key)) << 32 | static_cast<uint32_t>(index);
}

HOST_DEVICE inline int64_t index_of(Word word) { return static_cast<int64_t>(word & 0xffffffffu); }

struct NearestOut {
  int64_t k;         // 1 .. min(kMaxNearest, G)
  float* keys;       // (Q, k), ascending
  int64_t* indices;  // (Q, k)
};

void nearest_cpu(const KeyProblem& p, const NearestOut& out);
void nearest_block_cpu(const KeyBlock& block, const NearestOut& out);

// On `stream` (a cudaStream_t). `rows` queries are processed at a time; `workspace`: (Q + G + rows G,)
// floats. They return CUDA's error text, or nullptr on success.
const char* nearest_cuda(const KeyProblem& p, const NearestOut& out, int64_t rows, float* workspace,
                         void* stream);
const char* nearest_block_cuda(const KeyBlock& block, const NearestOut& out, void* stream);

}  // namespace autoreid_fast
