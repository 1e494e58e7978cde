// The nearest neighbours of every image among all, and its greatest distance, on the CPU.
//
// Distances are symmetric, so only the tiles with an i < j are computed, and none is stored: a tile offers
// its entries to the lists of its rows and of its columns at once. A list is sorted by (distance, index), so
// it does not depend on the order of the offers, and so on the threads. Work: N (N - 1) / 2 x D
// multiply-adds, half of what a search row by row needs; about 2 k ln(N / k) entries an image pass the filter
// of its last neighbour so far. Memory: N lists.
#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <vector>

#include "../instruction_set.h"
#include "../rank_gallery/key_tiles.h"
#include "k_reciprocal.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

namespace autoreid_fast {
namespace {

constexpr int64_t kLocked = 256;  // images whose lists share a lock
constexpr int64_t kGroup = 64;    // entries of which one vector test tells whether any has to be looked at

template <int BYTES>
using Floats __attribute__((vector_size(BYTES))) = float;

class Search;
using Scan = void (*)(Search& search, const KeyTile& tile);

class Search final : public TileVisitor {
 public:
  Search(const Neighbors& p, Scan scan)
      : p(p),
        limits(p.total, p.count > 1 ? std::numeric_limits<float>::infinity() : -1.0f),
        locks(new std::mutex[(p.total + kLocked - 1) / kLocked]),
        scan_(scan),
        capacity_(p.count - 1),
        sizes_(p.total),
        distances_(p.total * capacity_) {}

  bool wants(int64_t row, int64_t, int64_t column, int64_t columns) const override {
    return column + columns - 1 > row;
  }
  void visit(const KeyTile& tile) override { scan_(*this, tile); }

  // Takes `other` into the list of `image`, whose limit the distance does not exceed.
  void offer(int64_t image, float distance, int64_t other) {
    float* own = distances_.data() + image * capacity_;
    int32_t* images = p.neighbors + image * p.count + 1;
    int32_t& size = sizes_[image];
    int64_t at = size;
    if (size == capacity_) {
      at = capacity_ - 1;
      if (distance == own[at] && other > images[at]) return;
    } else {
      ++size;
    }
    for (; at > 0 && (own[at - 1] > distance || (own[at - 1] == distance && images[at - 1] > other)); --at) {
      own[at] = own[at - 1];
      images[at] = images[at - 1];
    }
    own[at] = distance;
    images[at] = static_cast<int32_t>(other);
    if (size == capacity_) limits[image] = own[capacity_ - 1];
  }

  const Neighbors& p;
  std::vector<float> limits;  // (total,) the last distance of a full list; infinity before
  std::unique_ptr<std::mutex[]> locks;

 private:
  Scan scan_;
  int64_t capacity_;              // entries of a list: all but the image itself
  std::vector<int32_t> sizes_;    // (total,)
  std::vector<float> distances_;  // (total, capacity) ascending
};

ALWAYS_INLINE int64_t end_of_lock(int64_t image, int64_t stop) {
  return std::min((image / kLocked + 1) * kLocked, stop);
}

// Entries with row >= column are another tile's, or an image and itself.
template <int BYTES>
ALWAYS_INLINE void scan(Search& s, const KeyTile& tile) {
  using V = Floats<BYTES>;
  constexpr int64_t lanes = BYTES / sizeof(float);
  constexpr float none = std::numeric_limits<float>::quiet_NaN();  // neither near nor far
  const int64_t last_row = tile.row + tile.rows, last_column = tile.column + tile.columns;
  const int64_t padded = (tile.columns + kGroup - 1) / kGroup * kGroup;
  float* farthest = s.p.farthest;
  for (int64_t i = tile.row; i < last_row; ++i) {
    float* own = tile.keys + (i - tile.row) * tile.stride;
    std::fill(own, own + std::clamp<int64_t>(i - tile.column + 1, 0, tile.columns), none);
    std::fill(own + tile.columns, own + padded, none);
  }
  for (int64_t begin = tile.row, end; begin < last_row; begin = end) {
    end = end_of_lock(begin, last_row);
    const std::lock_guard lock(s.locks[begin / kLocked]);
    for (int64_t i = begin; i < end; ++i) {
      const float* own = tile.keys + (i - tile.row) * tile.stride;
      V far{};
      for (int64_t c = 0; c < padded; c += lanes) {
        V values;
        std::memcpy(&values, own + c, sizeof(V));
        far = values > far ? values : far;
      }
      for (int64_t k = 0; k < lanes; ++k) farthest[i] = std::max(farthest[i], far[k]);
      for (int64_t group = 0; group < padded; group += kGroup) {
        int any = 0;
        for (int64_t c = group; c < group + kGroup; ++c) any |= own[c] <= s.limits[i];
        if (!any) continue;
        for (int64_t c = group; c < group + kGroup; ++c) {
          if (own[c] <= s.limits[i]) s.offer(i, own[c], tile.column + c);
        }
      }
    }
  }
  for (int64_t begin = tile.column, end; begin < last_column; begin = end) {
    end = end_of_lock(begin, last_column);
    const std::lock_guard lock(s.locks[begin / kLocked]);
    for (int64_t i = tile.row; i < last_row; ++i) {
      const float* own = tile.keys + (i - tile.row) * tile.stride - tile.column;
      for (int64_t j = begin; j < end; ++j) farthest[j] = own[j] > farthest[j] ? own[j] : farthest[j];
      for (int64_t group = begin; group < end; group += kGroup) {
        const int64_t stop = std::min(group + kGroup, end);
        int any = 0;
        for (int64_t j = group; j < stop; ++j) any |= own[j] <= s.limits[j];
        if (!any) continue;
        for (int64_t j = group; j < stop; ++j) {
          if (own[j] <= s.limits[j]) s.offer(j, own[j], i);
        }
      }
    }
  }
}

AUTOREID_FAST_AVX512 void scan_avx512(Search& s, const KeyTile& tile) { scan<64>(s, tile); }
AUTOREID_FAST_AVX2 void scan_avx2(Search& s, const KeyTile& tile) { scan<32>(s, tile); }
void scan_portable(Search& s, const KeyTile& tile) { scan<16>(s, tile); }

}  // namespace

void k_reciprocal_neighbors_cpu(const Neighbors& p) {
  for (int64_t i = 0; i < p.total; ++i) {
    p.neighbors[i * p.count] = static_cast<int32_t>(i);
    p.farthest[i] = 0;
  }
  const InstructionSet set = instruction_set();
  Search search(p, set == InstructionSet::avx512 ? scan_avx512
                   : set == InstructionSet::avx2 ? scan_avx2
                                                 : scan_portable);
  const Features images{p.features, Element::float32, p.total, p.dim};
  visit_keys({images, images, p.dim, false, nullptr}, 1, search);
}

}  // namespace autoreid_fast
