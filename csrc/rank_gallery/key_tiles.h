// Keys of all pairs of queries and gallery entries, handed out tile by tile while they are in the cache.
//
// The key is what an order compares, a float32:
//   squared Euclidean distance   max(0, (|q|^2 + |g|^2) - 2 q.g)
//   cosine                       -(q / |q|) . (g / |g|), a zero vector staying zero
// Norms and products are single chains of fused multiply-adds over the columns, from the first to the last,
// so a key's bits depend on the two vectors alone: not on tile, block, thread count, instruction set or
// device. Equal vectors have distance 0 and tie with each other.
#pragma once

#include <cstdint>

#include "../element.h"

namespace autoreid_fast {

struct Features {
  const void* data;    // (count, dim) of `element`, columns adjacent, rows `row_stride` elements apart
  Element element;     // float32, float16 or bfloat16
  int64_t count;       // N
  int64_t row_stride;  // in elements
};

struct KeyProblem {
  Features query;     // (Q, dim)
  Features gallery;   // (G, dim)
  int64_t dim;        // D, >= 1
  bool cosine;        // keys are minus cosine similarities, not squared distances
  const bool* valid;  // (G,), false: the entry's keys are NaN; or null: all are valid
};

// CPU only from here on.

struct KeyTile {
  int64_t part;
  int64_t row, rows;        // queries row .. row + rows
  int64_t column, columns;  // gallery entries column .. column + columns
  float* keys;              // (rows, columns), rows `stride` apart; the visitor may overwrite them
  int64_t stride;
};

class TileVisitor {
 public:
  // Whether the tile is to be computed at all.
  virtual bool wants(int64_t /*row*/, int64_t /*rows*/, int64_t /*column*/, int64_t /*columns*/) const {
    return true;
  }
  virtual void visit(const KeyTile& tile) = 0;

 protected:
  ~TileVisitor() = default;
};

// How many parts the gallery's columns are dealt to, so that few queries still keep every thread busy.
int64_t key_parts(const KeyProblem& p);

// Every pair that is wanted, once. The tiles of one row and part come one after another, in the order of
// their columns; tiles of different rows or parts may come at the same time.
void visit_keys(const KeyProblem& p, int64_t parts, TileVisitor& visitor);

// keys[t] = key of query i and gallery entry matches[t], t from offsets[i] to offsets[i + 1].
void pair_keys(const KeyProblem& p, const int64_t* offsets, const int64_t* matches, float* keys);

}  // namespace autoreid_fast
