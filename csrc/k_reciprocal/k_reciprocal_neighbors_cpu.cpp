// The nearest neighbours of every image among all, and its greatest distance, on the CPU.
//
// Distances are symmetric, so only those with i < j are computed, tile by tile, and none is stored: a tile
// offers its entries to the lists of its rows and of its columns at once. A list is sorted by (distance,
// index), so it does not depend on the order of the offers, and so on the threads. Work: N (N - 1) / 2 x D
// multiply-adds, half of the matrix product that a row-wise search needs; memory: N lists.
#include <torch/csrc/stable/ops.h>

#include <atomic>
#include <limits>
#include <memory>
#include <mutex>

#include "distance_tile.h"
#include "k_reciprocal.h"

namespace autoreid_fast {
namespace {

constexpr int64_t kRowsOfTask = 8 * kTile;  // rows against one packed tile: enough to pay for the packing

struct Search {
  const Neighbors& p;
  int64_t capacity;                     // entries of a list: all but the image itself
  std::vector<float> norms;             // (total,)
  std::vector<float> limits;            // (total,) the last distance of a full list; infinity before
  std::vector<int32_t> sizes;           // (total,)
  std::vector<float> distances;         // (total, capacity) ascending
  std::unique_ptr<std::mutex[]> locks;  // one for the lists of kTile images

  explicit Search(const Neighbors& p)
      : p(p),
        capacity(p.count - 1),
        norms(p.total),
        limits(p.total, capacity > 0 ? std::numeric_limits<float>::infinity() : -1.0f),
        sizes(p.total),
        distances(p.total * capacity),
        locks(new std::mutex[(p.total + kTile - 1) / kTile]) {}

  int32_t* list(int64_t image) const { return p.neighbors + image * p.count + 1; }

  void offer(int64_t image, float distance, int64_t other) {
    float* own = distances.data() + image * capacity;
    int32_t* images = list(image);
    int32_t& size = sizes[image];
    int64_t at = size;
    if (size == capacity) {
      at = capacity - 1;
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
    if (size == capacity) limits[image] = own[capacity - 1];
  }
};

// Some columns of one row of a tile at a time: whether any has to be looked at is one vector test.
constexpr int64_t kGroup = 48;

// Rows [begin, end) against the tile of images from `first` on; entries with row >= column are left out.
template <typename S>
ALWAYS_INLINE void search(Search& s, int64_t begin, int64_t end, int64_t first, float* packed) {
  using V = typename S::V;
  const Neighbors& p = s.p;
  const float none = std::numeric_limits<float>::quiet_NaN();  // neither near nor far
  const int64_t last = std::min(first + kTile, p.total);
  float norms[kTile] = {}, far_columns[kTile] = {}, limits[kTile], squared[kMaxStrip][kTile];
  std::copy(s.norms.begin() + first, s.norms.begin() + last, norms);
  pack<S>(p.features, p.total, p.dim, first, packed);
  for (int64_t row = begin; row < end; row += S::rows) {
    const int64_t stop = std::min({row + S::rows, end, last});
    const float* rows[kMaxStrip];
    float row_norms[kMaxStrip];
    for (int64_t r = 0; r < S::rows; ++r) {
      const int64_t image = std::min(row + r, p.total - 1);
      rows[r] = p.features + image * p.dim;
      row_norms[r] = s.norms[image];
    }
    strip_distances<S>(rows, row_norms, packed, norms, p.dim, squared);
    for (int64_t i = row; i < stop && (stop > first || last < first + kTile); ++i) {
      for (int64_t c = 0; c <= std::min(i - first, kTile - 1); ++c) squared[i - row][c] = none;
      for (int64_t c = last - first; c < kTile; ++c) squared[i - row][c] = none;
    }
    {
      const std::lock_guard lock(s.locks[row / kTile]);
      for (int64_t i = row; i < stop; ++i) {
        const float* own = squared[i - row];
        V farthest{};
        for (int64_t c = 0; c < kTile; c += S::lanes) {
          V value, column;
          std::memcpy(&value, own + c, sizeof(V));
          std::memcpy(&column, far_columns + c, sizeof(V));
          farthest = value > farthest ? value : farthest;
          column = value > column ? value : column;
          std::memcpy(far_columns + c, &column, sizeof(V));
        }
        for (int64_t k = 0; k < S::lanes; ++k) p.farthest[i] = std::max(p.farthest[i], farthest[k]);
        for (int64_t group = 0; group < kTile; group += kGroup) {
          int any = 0;
          for (int64_t c = group; c < group + kGroup; ++c) any |= own[c] <= s.limits[i];
          if (!any) continue;
          for (int64_t c = group; c < group + kGroup; ++c) {
            if (own[c] <= s.limits[i]) s.offer(i, own[c], first + c);
          }
        }
      }
    }
    const std::lock_guard lock(s.locks[first / kTile]);
    std::copy(s.limits.begin() + first, s.limits.begin() + last, limits);
    std::fill(limits + (last - first), limits + kTile, -1.0f);
    for (int64_t group = 0; group < kTile; group += kGroup) {
      for (int64_t i = row; i < stop; ++i) {
        const float* own = squared[i - row];
        int any = 0;
        for (int64_t c = group; c < group + kGroup; ++c) any |= own[c] <= limits[c];
        if (!any) continue;
        for (int64_t c = group; c < group + kGroup; ++c) {
          if (own[c] <= s.limits[std::min(first + c, last - 1)]) s.offer(first + c, own[c], i);
        }
      }
    }
  }
  const std::lock_guard lock(s.locks[first / kTile]);
  for (int64_t c = 0; c < last - first; ++c) {
    p.farthest[first + c] = std::max(p.farthest[first + c], far_columns[c]);
  }
}

AUTOREID_FAST_AVX512 void search_avx512(Search& s, int64_t begin, int64_t end, int64_t first, float* packed) {
  search<Avx512Shape>(s, begin, end, first, packed);
}
AUTOREID_FAST_AVX2 void search_avx2(Search& s, int64_t begin, int64_t end, int64_t first, float* packed) {
  search<Avx2Shape>(s, begin, end, first, packed);
}
void search_portable(Search& s, int64_t begin, int64_t end, int64_t first, float* packed) {
  search<PortableShape>(s, begin, end, first, packed);
}

AUTOREID_FAST_AVX512 void norms_avx512(Search& s, int64_t begin, int64_t end) {
  norms_of(s.p.features, s.p.dim, begin, end, s.norms.data());
}
AUTOREID_FAST_AVX2 void norms_avx2(Search& s, int64_t begin, int64_t end) {
  norms_of(s.p.features, s.p.dim, begin, end, s.norms.data());
}
void norms_portable(Search& s, int64_t begin, int64_t end) {
  norms_of(s.p.features, s.p.dim, begin, end, s.norms.data());
}

}  // namespace

void k_reciprocal_neighbors_cpu(const Neighbors& p) {
  Search s(p);
  const InstructionSet set = instruction_set();
  const auto norms = set == InstructionSet::avx512 ? norms_avx512
                     : set == InstructionSet::avx2 ? norms_avx2
                                                   : norms_portable;
  const auto run = set == InstructionSet::avx512 ? search_avx512
                   : set == InstructionSet::avx2 ? search_avx2
                                                 : search_portable;
  torch::stable::parallel_for(0, p.total, 1024, [&](int64_t begin, int64_t end) {
    norms(s, begin, end);
    for (int64_t i = begin; i < end; ++i) {
      p.neighbors[i * p.count] = static_cast<int32_t>(i);
      p.farthest[i] = 0;
    }
  });
  struct Task {
    int64_t begin, end, first;
  };
  std::vector<Task> tasks;
  for (int64_t first = 0; first < p.total; first += kTile) {
    const int64_t rows = std::min(first + kTile, p.total);
    for (int64_t begin = 0; begin < rows; begin += kRowsOfTask) {
      tasks.push_back({begin, std::min(begin + kRowsOfTask, rows), first});
    }
  }
  std::atomic<size_t> next = 0;
  const int64_t threads = std::min<int64_t>(torch::stable::get_num_threads(), tasks.size());
  torch::stable::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    PackedTile packed(p.dim);
    for (size_t k = next++; k < tasks.size(); k = next++) {
      run(s, tasks[k].begin, tasks[k].end, tasks[k].first, packed.data());
    }
  });
}

}  // namespace autoreid_fast
