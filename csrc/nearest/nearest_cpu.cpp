// The k nearest on the CPU; nearest.h has the maths.
//
// Every query keeps a buffer of candidates: the keys of a tile, still in L1, are compared with the k-th so
// far (16 an instruction; nearly all fail), those below it are appended, and a full buffer is cut back to its
// k smallest. Where a query's columns are dealt to several parts, each has a buffer of its own, merged at the
// end.
#include "nearest.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "../instruction_set.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

namespace autoreid_fast {
namespace {

constexpr int64_t kRows = 4096;  // queries with buffers at a time: 64 MB at k = 1000

// The smallest entries of a row so far; `words` has room for `capacity`.
struct Candidates {
  Word* words;
  int64_t count;
  float limit;  // an entry of this key or more is none of the k smallest; NaN: nothing is known yet
};

void cut(Candidates& found, int64_t k) {
  std::nth_element(found.words, found.words + k - 1, found.words + found.count);
  found.count = k;
  found.limit = key_of(found.words[k - 1]);
}

ALWAYS_INLINE void collect(Candidates& found, int64_t k, int64_t capacity, const float* keys, int64_t count,
                           int64_t first_index) {
  constexpr int64_t step = 16;
  for (int64_t start = 0; start < count; start += step) {
    const int64_t stop = std::min(start + step, count);
    const float limit = found.limit;
    bool any = false;
    if (stop - start == step) {
      for (int64_t j = 0; j < step; ++j) any |= !(keys[start + j] >= limit);
    } else {
      any = true;
    }
    if (!any) continue;
    for (int64_t j = start; j < stop; ++j) {
      if (keys[j] >= found.limit) continue;
      found.words[found.count++] = word_of(keys[j], first_index + j);
      if (found.count == capacity) cut(found, k);
    }
  }
}

AUTOREID_FAST_AVX512 void collect_avx512(Candidates& found, int64_t k, int64_t capacity, const float* keys,
                                         int64_t count, int64_t first_index) {
  collect(found, k, capacity, keys, count, first_index);
}
AUTOREID_FAST_AVX2 void collect_avx2(Candidates& found, int64_t k, int64_t capacity, const float* keys,
                                     int64_t count, int64_t first_index) {
  collect(found, k, capacity, keys, count, first_index);
}
void collect_portable(Candidates& found, int64_t k, int64_t capacity, const float* keys, int64_t count,
                      int64_t first_index) {
  collect(found, k, capacity, keys, count, first_index);
}

auto row_code() {
  const InstructionSet set = instruction_set();
  return set == InstructionSet::avx512 ? collect_avx512
         : set == InstructionSet::avx2 ? collect_avx2
                                       : collect_portable;
}

class Collector final : public TileVisitor {
 public:
  Collector(int64_t rows, int64_t parts, int64_t k)
      : rows_(rows),
        parts_(parts),
        k_(k),
        capacity_(2 * k + 64),
        row_code_(row_code()),
        words_(rows * parts * capacity_),
        found_(rows * parts) {
    for (int64_t i = 0; i < rows * parts; ++i) {
      found_[i] = {words_.data() + i * capacity_, 0, std::numeric_limits<float>::quiet_NaN()};
    }
  }

  void visit(const KeyTile& tile) override {
    for (int64_t i = 0; i < tile.rows; ++i) {
      row_code_(found_[tile.part * rows_ + tile.row + i], k_, capacity_, tile.keys + i * tile.stride,
                tile.columns, tile.column);
    }
  }

  // The answer of all rows, as rows from `first` on of the output.
  void finish(const NearestOut& out, int64_t first) {
    torch::stable::parallel_for(0, rows_, 16, [&](int64_t begin, int64_t end) {
      std::vector<Word> merged;
      for (int64_t row = begin; row < end; ++row) {
        merged.clear();
        for (int64_t part = 0; part < parts_; ++part) {
          const Candidates& found = found_[part * rows_ + row];
          merged.insert(merged.end(), found.words, found.words + found.count);
        }
        std::partial_sort(merged.begin(), merged.begin() + k_, merged.end());
        for (int64_t j = 0; j < k_; ++j) {
          out.keys[(first + row) * k_ + j] = key_of(merged[j]);
          out.indices[(first + row) * k_ + j] = index_of(merged[j]);
        }
      }
    });
  }

 private:
  int64_t rows_, parts_, k_, capacity_;
  decltype(row_code()) row_code_;
  std::vector<Word> words_;
  std::vector<Candidates> found_;
};

}  // namespace

void nearest_cpu(const KeyProblem& p, const NearestOut& out) {
  static const int64_t sizes[] = {4, 2, 2, 8};  // bytes of an Element
  for (int64_t first = 0; first < p.query.count; first += kRows) {
    KeyProblem rows = p;
    const int64_t bytes = first * p.query.row_stride * sizes[static_cast<int>(p.query.element)];
    rows.query.data = static_cast<const char*>(p.query.data) + bytes;
    rows.query.count = std::min(kRows, p.query.count - first);
    const int64_t parts = key_parts(rows);
    Collector collector(rows.query.count, parts, out.k);
    visit_keys(rows, parts, collector);
    collector.finish(out, first);
  }
}

void nearest_block_cpu(const NearestBlock& block, const NearestOut& out) {
  for (int64_t first = 0; first < block.query_count; first += kRows) {
    const int64_t rows = std::min(kRows, block.query_count - first);
    Collector collector(rows, 1, out.k);
    torch::stable::parallel_for(0, rows, 1, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        // The visitor only reads.
        float* keys = const_cast<float*>(block.block) + (first + row) * block.row_stride;
        collector.visit({0, row, 1, 0, block.gallery_count, keys, 0});
      }
    });
    collector.finish(out, first);
  }
}

}  // namespace autoreid_fast
