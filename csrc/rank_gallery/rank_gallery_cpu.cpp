// Counting closer entries on the CPU; rank_gallery.h has the maths.
//
// A row of up to 256 keys, still in L1, is first counted against the query's largest threshold: for most rows
// no key is below it, and nothing else is done. Otherwise, either every threshold counts the row, from the
// largest down to the first without a smaller key (16 keys per instruction), or, where few keys are below
// many thresholds, each of these keys searches for its place among them. Either way only differences between
// successive thresholds are kept, and added up at the end: sums of integers, the same for any number of
// threads.
#include "rank_gallery.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "../common/instruction_set.h"

namespace autoreid_fast {
namespace {

constexpr float kNoKey = std::numeric_limits<float>::quiet_NaN();  // every comparison with it is false
constexpr int64_t kSearchCost = 256;  // of one key's search, in comparisons with a threshold

// Keys of adjacent gallery entries.
struct Row {
  const float* keys;
  int64_t count;
  int64_t first_index;  // of keys[0] in the whole gallery
};

// The number of entries before (key, index) in the order of the ranking.
ALWAYS_INLINE int64_t count_before(const Row& row, float key, int64_t index) {
  const int64_t split = std::clamp<int64_t>(index - row.first_index, 0, row.count);
  int count = 0;
  for (int64_t j = 0; j < split; ++j) count += row.keys[j] <= key ? 1 : 0;
  for (int64_t j = split; j < row.count; ++j) count += row.keys[j] < key ? 1 : 0;
  return count;
}

// Adds each key below the largest threshold to the difference of the first threshold that it is before.
ALWAYS_INLINE void search_thresholds(const Counting& p, int64_t first, int64_t last, const Row& row,
                                     int64_t* differences) {
  constexpr int64_t step = 16;
  for (int64_t start = 0; start < row.count; start += step) {
    const int64_t stop = std::min(start + step, row.count);
    bool any = false;
    for (int64_t j = start; j < stop; ++j) any |= row.keys[j] <= p.keys[last];
    if (!any) continue;
    for (int64_t j = start; j < stop; ++j) {
      const float key = row.keys[j];
      int64_t low = first, high = last + 1;
      while (low < high) {
        const int64_t middle = (low + high) / 2;
        const bool after =
            p.keys[middle] > key || (p.keys[middle] == key && p.indices[middle] > row.first_index + j);
        (after ? high : low) = after ? middle : middle + 1;
      }
      if (low <= last) ++differences[low];
    }
  }
}

// differences[t] += the number of keys of the row between threshold t - 1 and threshold t of the query.
struct CountRow {
  template <int BYTES>
  ALWAYS_INLINE static void run(const Counting& p, int64_t query, const Row& row, int64_t* differences) {
    const int64_t first = p.offsets[query], last = p.offsets[query + 1] - 1;
    const int64_t below = count_before(row, p.keys[last], p.indices[last]);
    if (below == 0) return;
    if (below * kSearchCost < (last - first + 1) * row.count) {
      search_thresholds(p, first, last, row, differences);
      return;
    }
    int64_t before = below;
    for (int64_t t = last; t > first && before > 0; --t) {
      const int64_t count = count_before(row, p.keys[t - 1], p.indices[t - 1]);
      differences[t] += before - count;
      before = count;
    }
    differences[first] += before;
  }
};

// Replaces the keys of the query's excluded entries by kNoKey; `keys` are those of entries column .. column +
// count - 1.
void exclude(const Counting& p, int64_t query, int64_t column, int64_t count, float* keys) {
  const int64_t* end = p.excluded + p.excluded_offsets[query + 1];
  const int64_t* entry = std::lower_bound(p.excluded + p.excluded_offsets[query], end, column);
  for (; entry != end && *entry < column + count; ++entry) {
    keys[*entry - column] = kNoKey;
  }
}

// Adds up the differences of all parts: the counts.
void finish(const Counting& p, const std::vector<int64_t>& differences, int64_t parts) {
  for (int64_t query = 0; query < p.query_count; ++query) {
    int64_t count = 0;
    for (int64_t t = p.offsets[query]; t < p.offsets[query + 1]; ++t) {
      for (int64_t part = 0; part < parts; ++part) count += differences[part * p.threshold_count + t];
      p.counts[t] = count;
    }
  }
}

class Counter final : public TileVisitor {
 public:
  Counter(const Counting& p, int64_t parts) : p_(p), differences_(p.threshold_count * parts) {}

  void visit(const KeyTile& tile) override {
    int64_t* differences = differences_.data() + tile.part * p_.threshold_count;
    for (int64_t i = 0; i < tile.rows; ++i) {
      const int64_t query = tile.row + i;
      if (p_.offsets[query] == p_.offsets[query + 1]) continue;
      float* keys = tile.keys + i * tile.stride;
      exclude(p_, query, tile.column, tile.columns, keys);
      count_row_(p_, query, {keys, tile.columns, p_.gallery_offset + tile.column}, differences);
    }
  }

  const std::vector<int64_t>& differences() const { return differences_; }

 private:
  const Counting& p_;
  const decltype(variant<CountRow>()) count_row_ = variant<CountRow>();
  std::vector<int64_t> differences_;  // (parts, M)
};

}  // namespace

void count_closer_cpu(const KeyProblem& problem, const Counting& p) {
  KeyProblem ranked = problem;
  ranked.valid = p.valid;
  const int64_t parts = key_parts(ranked);
  Counter counter(p, parts);
  visit_keys(ranked, parts, counter);
  finish(p, counter.differences(), parts);
}

void count_closer_block_cpu(const KeyBlock& block, const Counting& p) {
  const auto count_row = variant<CountRow>();
  std::vector<int64_t> differences(p.threshold_count);
  torch::stable::parallel_for(0, p.query_count, 1, [&](int64_t begin, int64_t end) {
    float keys[1024];
    for (int64_t query = begin; query < end; ++query) {
      if (p.offsets[query] == p.offsets[query + 1]) continue;
      const float* row = block.keys + query * block.row_stride;
      for (int64_t column = 0; column < block.gallery_count; column += std::size(keys)) {
        const int64_t count = std::min<int64_t>(std::size(keys), block.gallery_count - column);
        for (int64_t j = 0; j < count; ++j) {
          keys[j] = p.valid[column + j] ? row[column + j] : kNoKey;
        }
        exclude(p, query, column, count, keys);
        count_row(p, query, {keys, count, p.gallery_offset + column}, differences.data());
      }
    }
  });
  finish(p, differences, 1);
}

}  // namespace autoreid_fast
