// Keys of pairs of queries and gallery entries, computed in tiles: parameters, CPU functions. Used by
// rank_gallery, nearest and k_reciprocal.
//
// Rankings compare keys, one float32 per pair:
//   squared Euclidean distance   max(0, (|q|^2 + |g|^2) - 2 q.g)
//   cosine                       -(q / |q|) . (g / |g|), where a zero vector stays zero
// Norms and products are single chains of fused multiply-adds over the columns, from the first to the last.
// So the bits of a key depend only on the two vectors, not on tile, block, thread count, instruction set or
// device; equal vectors have distance 0, and equal pairs tie.
//
// Work: Q G D multiply-adds. Bytes: the features once; no matrix of keys is stored.
#pragma once

#include "../common/element.h"

namespace autoreid_fast {

struct Features {
  const void* data;    // (count, dim) of `element`, columns adjacent, rows `row_stride` elements apart
  Element element;     // float32, float16 or bfloat16
  int64_t count;       // Q or G
  int64_t row_stride;  // in elements
};

struct KeyProblem {
  Features query;     // (Q, dim)
  Features gallery;   // (G, dim)
  int64_t dim;        // D, >= 1
  bool cosine;        // false: squared Euclidean distance
  const bool* valid;  // (G,) the keys of entries that are not valid are NaN; null: all are valid. CPU only
};

// Keys that the caller has computed: the `block` of count_closer_block and nearest_block.
struct KeyBlock {
  const float* keys;      // (query_count, gallery_count), columns adjacent, rows `row_stride` elements apart
  int64_t query_count;    // Q
  int64_t gallery_count;  // G
  int64_t row_stride;     // in elements
};

// The rest is for the CPU.

struct KeyTile {
  int64_t part;             // of the gallery; see visit_keys
  int64_t row, rows;        // queries row .. row + rows - 1
  int64_t column, columns;  // gallery entries column .. column + columns - 1
  float* keys;              // (rows, columns), rows `stride` elements apart; the visitor may overwrite them
  int64_t stride;
};

class TileVisitor {
 public:
  // Whether to compute this tile.
  virtual bool wants(int64_t /*row*/, int64_t /*rows*/, int64_t /*column*/, int64_t /*columns*/) const {
    return true;
  }
  virtual void visit(const KeyTile& tile) = 0;

 protected:
  ~TileVisitor() = default;
};

// The number of parts into which to divide the gallery, so that few queries still keep every thread busy.
int64_t key_parts(const KeyProblem& p);

// Visits every wanted pair once, while its tile is in the L1 cache. The tiles of one query and part come one
// after another, in the order of their columns; tiles of different queries or parts may come in parallel.
void visit_keys(const KeyProblem& p, int64_t parts, TileVisitor& visitor);

// keys[t] = the key of query i and gallery entry matches[t], for offsets[i] <= t < offsets[i + 1].
void pair_keys(const KeyProblem& p, const int64_t* offsets, const int64_t* matches, float* keys);

}  // namespace autoreid_fast
