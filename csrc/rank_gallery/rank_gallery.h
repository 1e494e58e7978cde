// Ranks of the matches, by counting closer gallery entries: parameters and launches. key_tiles.h defines the
// keys.
//
// For a threshold (key t, gallery index i) of query q:
//   count(q, t, i) = #{entries j of the gallery that q ranks: key(q, j) < t, or key(q, j) = t and j < i}
// A match is not closer than itself, so its rank is 1 + count. Counts add up over the shards of a gallery.
//
// Work: Q G D multiply-adds for the keys; per key one comparison with the query's largest threshold, and only
// below it a search among the thresholds. Bytes: the features once, and no matrix of keys is stored;
// count_closer_block reads its block of keys once, 4 Q G.
#pragma once

#include "../key_tiles/key_tiles.h"

namespace autoreid_fast {

// The entries to count and the thresholds to compare them with; names as in the ops' schemas. Lists per
// query: query q has the entries (or thresholds) from offsets[q] to offsets[q + 1] - 1.
struct Counting {
  int64_t query_count;              // Q
  const bool* valid;                // (G,) false: no query ranks the entry
  const int64_t* excluded_offsets;  // (Q + 1,)
  const int64_t* excluded;          // (X,) entries that the query does not rank, ascending per query
  const int64_t* offsets;           // (Q + 1,) of the thresholds
  const float* keys;                // (M,) of the thresholds, ascending per query
  const int64_t* indices;           // (M,) of the thresholds in the whole gallery, ascending among equal keys
  int64_t threshold_count;          // M
  int64_t excluded_count;           // X
  int64_t gallery_offset;           // index of this shard's entry 0 in the whole gallery
  int64_t* counts;                  // (M,) result
};

// The keys of matches, for CUDA; on the CPU `pair_keys` computes them.
struct MatchKeys {
  KeyProblem problem;
  const int64_t* offsets;  // (Q + 1,) of the matches
  const int64_t* matches;  // (M,) gallery indices
  int64_t match_count;     // M
  float* keys;             // (M,) result
};

// Counting::valid is used, not KeyProblem::valid.
void count_closer_cpu(const KeyProblem& problem, const Counting& p);
void count_closer_block_cpu(const KeyBlock& block, const Counting& p);

// On `stream` (a cudaStream_t). `workspace`: (Q + G,) floats. They return CUDA's error text, or nullptr on
// success.
const char* match_keys_cuda(const MatchKeys& p, float* workspace, void* stream);
const char* count_closer_cuda(const KeyProblem& problem, const Counting& p, float* workspace, void* stream);
const char* count_closer_block_cuda(const KeyBlock& block, const Counting& p, void* stream);

}  // namespace autoreid_fast
