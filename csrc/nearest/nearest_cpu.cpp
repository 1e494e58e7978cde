// The k nearest on the CPU; nearest.h has the maths.
//
// Every query keeps a buffer of candidates. The keys of a tile, still in L1, are compared with the k-th
// smallest so far (16 per instruction; nearly all fail), smaller ones are appended, and a full buffer is cut
// back to its k smallest. Where the gallery is divided into parts, each query has a buffer per part, merged
// at the end.
#include "nearest.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "../common/instruction_set.h"

namespace autoreid_fast {
namespace {

constexpr int64_t kRows = 4096;  // queries with buffers at a time: 64 MB at k = 1000

// The smallest entries of one query so far.
struct Candidates {
  Word* words;  // room for `capacity` of them
  int64_t count;
  float limit;  // entries with this key or a larger one are not among the k smallest; NaN: no limit yet
};

void keep_smallest(Candidates& candidates, int64_t k) {
  std::nth_element(candidates.words, candidates.words + k - 1, candidates.words + candidates.count);
  candidates.count = k;
  candidates.limit = key_of(candidates.words[k - 1]);
}

// Keys of `count` adjacent gallery entries, the first with index `first_index`.
struct KeyRow {
  const float* keys;
  int64_t count, first_index;
};

struct Collect {
  template <int BYTES>
  ALWAYS_INLINE static void run(Candidates& candidates, int64_t k, int64_t capacity, const KeyRow& row) {
    constexpr int64_t step = 16;
    for (int64_t start = 0; start < row.count; start += step) {
      const int64_t stop = std::min(start + step, row.count);
      const float limit = candidates.limit;
      bool any = false;
      if (stop - start == step) {
        for (int64_t j = 0; j < step; ++j) any |= !(row.keys[start + j] >= limit);
      } else {
        any = true;
      }
      if (!any) continue;
      for (int64_t j = start; j < stop; ++j) {
        if (row.keys[j] >= candidates.limit) continue;
        candidates.words[candidates.count++] = word_of(row.keys[j], row.first_index + j);
        if (candidates.count == capacity) keep_smallest(candidates, k);
      }
    }
  }
};

// Collects the candidates of `rows` queries from tiles of keys.
class Collector final : public TileVisitor {
 public:
  Collector(int64_t rows, int64_t parts, int64_t k)
      : rows_(rows),
        parts_(parts),
        k_(k),
        capacity_(2 * k + 64),
        words_(rows * parts * capacity_),
        candidates_(rows * parts) {
    for (int64_t i = 0; i < rows * parts; ++i) {
      candidates_[i] = {words_.data() + i * capacity_, 0, std::numeric_limits<float>::quiet_NaN()};
    }
  }

  void visit(const KeyTile& tile) override {
    for (int64_t i = 0; i < tile.rows; ++i) {
      add(tile.part, tile.row + i, {tile.keys + i * tile.stride, tile.columns, tile.column});
    }
  }

  void add(int64_t part, int64_t row, const KeyRow& keys) {
    collect_(candidates_[part * rows_ + row], k_, capacity_, keys);
  }

  // Writes the results of all rows, from row `first` of the output on.
  void finish(const NearestOut& out, int64_t first) {
    torch::stable::parallel_for(0, rows_, 16, [&](int64_t begin, int64_t end) {
      std::vector<Word> merged;
      for (int64_t row = begin; row < end; ++row) {
        merged.clear();
        for (int64_t part = 0; part < parts_; ++part) {
          const Candidates& candidates = candidates_[part * rows_ + row];
          merged.insert(merged.end(), candidates.words, candidates.words + candidates.count);
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
  const int64_t rows_, parts_, k_, capacity_;
  const decltype(variant<Collect>()) collect_ = variant<Collect>();
  std::vector<Word> words_;             // (parts, rows, capacity)
  std::vector<Candidates> candidates_;  // (parts, rows)
};

}  // namespace

void nearest_cpu(const KeyProblem& p, const NearestOut& out) {
  const int64_t row_bytes = p.query.row_stride * element_bytes(p.query.element);
  for (int64_t first = 0; first < p.query.count; first += kRows) {
    KeyProblem rows = p;
    rows.query.data = static_cast<const char*>(p.query.data) + first * row_bytes;
    rows.query.count = std::min(kRows, p.query.count - first);
    const int64_t parts = key_parts(rows);
    Collector collector(rows.query.count, parts, out.k);
    visit_keys(rows, parts, collector);
    collector.finish(out, first);
  }
}

void nearest_block_cpu(const KeyBlock& block, const NearestOut& out) {
  for (int64_t first = 0; first < block.query_count; first += kRows) {
    const int64_t rows = std::min(kRows, block.query_count - first);
    Collector collector(rows, 1, out.k);
    torch::stable::parallel_for(0, rows, 1, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        collector.add(0, row, {block.keys + (first + row) * block.row_stride, block.gallery_count, 0});
      }
    });
    collector.finish(out, first);
  }
}

}  // namespace autoreid_fast
