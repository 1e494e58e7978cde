// The nearest neighbours of every image among all images, and its greatest distance, on the CPU.
//
// Distances are symmetric: only the tiles with an i < j are computed, and none is stored. A tile offers its
// entries to the lists of its rows and of its columns. A list is sorted by (distance, index), so it does not
// depend on the order of the offers, nor on the threads. Work: N (N - 1) / 2 x D multiply-adds, half of what
// a search row by row needs; about 2 k ln(N / k) entries per image are smaller than its last neighbour so
// far. Memory: N lists.
#include <algorithm>
#include <limits>
#include <memory>
#include <mutex>
#include <vector>

#include "../common/arithmetic.h"
#include "../common/vector.h"
#include "../key_tiles/key_tiles.h"
#include "k_reciprocal.h"

namespace autoreid_fast {
namespace {

constexpr int64_t kLocked = 256;  // images whose lists share a lock
constexpr int64_t kGroup = 64;    // entries that one vector test can skip

class Search final : public TileVisitor {
 public:
  explicit Search(const Neighbors& p);

  bool wants(int64_t row, int64_t, int64_t column, int64_t columns) const override {
    return column + columns - 1 > row;
  }
  void visit(const KeyTile& tile) override;

  // Inserts `other` into the list of `image`; the distance is at most the list's limit.
  void offer(int64_t image, float distance, int64_t other) {
    float* distances = distances_.data() + image * capacity_;
    int32_t* images = p.neighbors + image * p.count + 1;
    int32_t& size = sizes_[image];
    int64_t place = size;
    if (size == capacity_) {
      place = capacity_ - 1;
      if (distance == distances[place] && other > images[place]) return;
    } else {
      ++size;
    }
    const auto is_after = [&](int64_t k) {
      return distances[k] > distance || (distances[k] == distance && images[k] > other);
    };
    for (; place > 0 && is_after(place - 1); --place) {
      distances[place] = distances[place - 1];
      images[place] = images[place - 1];
    }
    distances[place] = distance;
    images[place] = static_cast<int32_t>(other);
    if (size == capacity_) limits[image] = distances[capacity_ - 1];
  }

  const Neighbors& p;
  std::vector<float> limits;  // (total,) the last distance of a full list, else infinity
  std::unique_ptr<std::mutex[]> locks;

 private:
  void (*scan_)(Search& search, const KeyTile& tile);
  int64_t capacity_;              // of a list: its neighbours but the image itself
  std::vector<int32_t> sizes_;    // (total,)
  std::vector<float> distances_;  // (total, capacity) ascending
};

ALWAYS_INLINE int64_t end_of_lock(int64_t image, int64_t stop) {
  return std::min((image / kLocked + 1) * kLocked, stop);
}

// Offers the entries of a tile. Those with row >= column belong to another tile, or pair an image with
// itself.
struct Scan {
  template <int BYTES>
  ALWAYS_INLINE static void run(Search& search, const KeyTile& tile) {
    const int64_t last_row = tile.row + tile.rows;
    const int64_t padded = round_up(tile.columns, kGroup);
    constexpr float none = std::numeric_limits<float>::quiet_NaN();  // neither near nor far
    for (int64_t i = tile.row; i < last_row; ++i) {
      float* keys = tile.keys + (i - tile.row) * tile.stride;
      std::fill(keys, keys + std::clamp<int64_t>(i - tile.column + 1, 0, tile.columns), none);
      std::fill(keys + tile.columns, keys + padded, none);
    }
    offer_to_rows<BYTES>(search, tile, padded);
    offer_to_columns(search, tile);
  }

  // Rows are padded to `padded` columns.
  template <int BYTES>
  ALWAYS_INLINE static void offer_to_rows(Search& search, const KeyTile& tile, int64_t padded) {
    using V = Vector<float, BYTES>;
    constexpr int64_t lanes = BYTES / sizeof(float);
    const int64_t last_row = tile.row + tile.rows;
    float* farthest = search.p.farthest;
    for (int64_t begin = tile.row, end; begin < last_row; begin = end) {
      end = end_of_lock(begin, last_row);
      const std::lock_guard lock(search.locks[begin / kLocked]);
      for (int64_t i = begin; i < end; ++i) {
        const float* keys = tile.keys + (i - tile.row) * tile.stride;
        V largest{};
        for (int64_t c = 0; c < padded; c += lanes) {
          V values;
          load(values, keys + c);
          largest = values > largest ? values : largest;
        }
        for (int64_t k = 0; k < lanes; ++k) farthest[i] = std::max(farthest[i], largest[k]);
        for (int64_t group = 0; group < padded; group += kGroup) {
          int any = 0;
          for (int64_t c = group; c < group + kGroup; ++c) any |= keys[c] <= search.limits[i];
          if (!any) continue;
          for (int64_t c = group; c < group + kGroup; ++c) {
            if (keys[c] <= search.limits[i]) search.offer(i, keys[c], tile.column + c);
          }
        }
      }
    }
  }

  ALWAYS_INLINE static void offer_to_columns(Search& search, const KeyTile& tile) {
    const int64_t last_row = tile.row + tile.rows, last_column = tile.column + tile.columns;
    float* farthest = search.p.farthest;
    for (int64_t begin = tile.column, end; begin < last_column; begin = end) {
      end = end_of_lock(begin, last_column);
      const std::lock_guard lock(search.locks[begin / kLocked]);
      for (int64_t i = tile.row; i < last_row; ++i) {
        const float* keys = tile.keys + (i - tile.row) * tile.stride - tile.column;
        for (int64_t j = begin; j < end; ++j) farthest[j] = keys[j] > farthest[j] ? keys[j] : farthest[j];
        for (int64_t group = begin; group < end; group += kGroup) {
          const int64_t stop = std::min(group + kGroup, end);
          int any = 0;
          for (int64_t j = group; j < stop; ++j) any |= keys[j] <= search.limits[j];
          if (!any) continue;
          for (int64_t j = group; j < stop; ++j) {
            if (keys[j] <= search.limits[j]) search.offer(j, keys[j], i);
          }
        }
      }
    }
  }
};

Search::Search(const Neighbors& p)
    : p(p),
      limits(p.total, p.count > 1 ? std::numeric_limits<float>::infinity() : -1.0f),
      locks(new std::mutex[ceil_div(p.total, kLocked)]),
      scan_(variant<Scan>()),
      capacity_(p.count - 1),
      sizes_(p.total),
      distances_(p.total * capacity_) {}

void Search::visit(const KeyTile& tile) { scan_(*this, tile); }

}  // namespace

void k_reciprocal_neighbors_cpu(const Neighbors& p) {
  for (int64_t i = 0; i < p.total; ++i) {
    p.neighbors[i * p.count] = static_cast<int32_t>(i);
    p.farthest[i] = 0;
  }
  Search search(p);
  const Features images{p.features, Element::float32, p.total, p.dim};
  visit_keys({images, images, p.dim, false, nullptr}, 1, search);
}

}  // namespace autoreid_fast
