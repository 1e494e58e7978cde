// Ranks of the matches by counting closer entries: parameters and launches. key_tiles.h defines the keys.
//
// For a threshold (key t, gallery index i) of query q:
//   count(q, t, i) = #{entries j of the gallery that q ranks: key(q, j) < t, or key(q, j) = t and j < i}
// The match itself is not before itself, so its rank is 1 + count; counts add up over shards of a gallery.
//
// Work: Q G D multiply-adds for the keys; per key one comparison with the query's largest threshold, and only
// for those below it the search for their place among the thresholds. Traffic: features once; no matrix of
// keys exists (`Block` variants read the one that is given once).
#pragma once

#include "key_tiles.h"

namespace autoreid_fast {

// Which entries are counted, and before what.
struct Counting {
  int64_t query_count;              // Q
  const bool* valid;                // (G,) false: nobody ranks the entry
  const int64_t* excluded_offsets;  // (Q + 1,)
  const int64_t* excluded;  // query i does not rank entries excluded[excluded_offsets[i]...], ascending
  const int64_t* offsets;   // (Q + 1,) query i owns the thresholds offsets[i]...
  const float* keys;        // (M,) ascending within a query
  const int64_t* indices;   // (M,) in the whole gallery, ascending among equal keys
  int64_t threshold_count;  // M
  int64_t excluded_count;   // X
  int64_t gallery_offset;   // index of entry 0 in the whole gallery
  int64_t* counts;          // (M,) out
};

// Keys that are given: (Q, G), columns adjacent.
struct KeyBlock {
  const float* keys;
  int64_t gallery_count;  // G
  int64_t row_stride;     // in elements
};

struct PairKeys {
  KeyProblem problem;
  const int64_t* offsets;  // (Q + 1,)
  const int64_t* matches;  // (M,) gallery indices of query i: matches[offsets[i]...]
  int64_t match_count;     // M
  float* keys;             // (M,) out
};

// In `problem`, `valid` is null for the CPU and CUDA alike: Counting has it.
void count_closer_cpu(const KeyProblem& problem, const Counting& p);
void count_closer_block_cpu(const KeyBlock& block, const Counting& p);

// On `stream` (a cudaStream_t). `workspace`: Q + G floats. They return nullptr, or CUDA's words for what went
// wrong.
const char* match_keys_cuda(const PairKeys& p, float* workspace, void* stream);
const char* count_closer_cuda(const KeyProblem& problem, const Counting& p, float* workspace, void* stream);
const char* count_closer_block_cuda(const KeyBlock& block, const Counting& p, void* stream);

}  // namespace autoreid_fast
