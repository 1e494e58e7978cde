// Batch-hard triplet loss on the CPU; batch_hard.h has the maths.
//
// Forward: squared distances of the upper triangle in register tiles (4x4 pairs of rows x one vector with
// AVX-512: 8 loads feed 32 vector operations), mirrored into an N x N scratch, then one scan a row.
// Backward: each row gathers the weighted differences of its own pairs in a fixed order, one write a row.
// Both are deterministic for any number of threads.
#include "batch_hard.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "../instruction_set.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

namespace autoreid_fast {
namespace {

constexpr int64_t kGrainOperations = 1 << 17;  // lane operations worth a thread

template <typename T, int BYTES>
using Vector __attribute__((vector_size(BYTES))) = T;

// `vector` = elements c.. of row, zeros past dim. By reference: vectors have no ABI of their own to return
// in.
template <typename V, typename T>
ALWAYS_INLINE void load(V& vector, const T* row, int64_t c, int64_t dim) {
  constexpr int64_t width = sizeof(V) / sizeof(T);
  if (c + width <= dim) {
    std::memcpy(&vector, row + c, sizeof(V));
  } else {
    vector = V{};
    std::memcpy(&vector, row + c, (dim - c) * sizeof(T));
  }
}

template <typename V, int ROWS, int COLUMNS, typename T>
ALWAYS_INLINE void tile_step(V (&sums)[ROWS][COLUMNS], const T* const (&rows)[ROWS],
                             const T* const (&columns)[COLUMNS], int64_t c, int64_t dim) {
  V left[ROWS];
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; ++i) load(left[i], rows[i], c, dim);
#pragma GCC unroll 8
  for (int j = 0; j < COLUMNS; ++j) {
    V right;
    load(right, columns[j], c, dim);
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i) {
      const V difference = left[i] - right;
      sums[i][j] += difference * difference;
    }
  }
}

// Squared distances of rows [first, first + ROWS) to all rows from `first` on, mirrored.
template <typename T, int BYTES, int ROWS, int COLUMNS>
ALWAYS_INLINE void strip(const BatchHardForward& p, int64_t first) {
  using V = Vector<T, BYTES>;
  constexpr int64_t width = BYTES / sizeof(T);
  const T* features = static_cast<const T*>(p.features);
  T* squared = static_cast<T*>(p.workspace);
  const auto row = [&](int64_t index) { return features + std::min(index, p.count - 1) * p.row_stride; };
  const T* rows[ROWS];
  for (int i = 0; i < ROWS; ++i) rows[i] = row(first + i);
  for (int64_t other = first; other < p.count; other += COLUMNS) {
    const T* columns[COLUMNS];
    for (int j = 0; j < COLUMNS; ++j) columns[j] = row(other + j);
    V sums[ROWS][COLUMNS] = {};
    int64_t c = 0;
    for (; c + width <= p.dim; c += width) tile_step<V, ROWS, COLUMNS>(sums, rows, columns, c, c + width);
    if (c < p.dim) tile_step<V, ROWS, COLUMNS>(sums, rows, columns, c, p.dim);
    for (int i = 0; i < ROWS && first + i < p.count; ++i) {
      for (int j = 0; j < COLUMNS && other + j < p.count; ++j) {
        T sum = 0;
        for (int64_t k = 0; k < width; ++k) sum += sums[i][j][k];
        squared[(first + i) * p.count + other + j] = squared[(other + j) * p.count + first + i] = sum;
      }
    }
  }
}

template <typename T>
AUTOREID_FAST_AVX512 void strip_avx512(const BatchHardForward& p, int64_t first) {
  strip<T, 64, 4, 4>(p, first);
}
template <typename T>
AUTOREID_FAST_AVX2 void strip_avx2(const BatchHardForward& p, int64_t first) {
  strip<T, 32, 4, 2>(p, first);
}
template <typename T>
void strip_portable(const BatchHardForward& p, int64_t first) {
  strip<T, 16, 4, 2>(p, first);
}

template <typename T>
void squared_distances(const BatchHardForward& p) {
  const InstructionSet set = instruction_set();
  const auto run = set == InstructionSet::avx512 ? strip_avx512<T>
                   : set == InstructionSet::avx2 ? strip_avx2<T>
                                                 : strip_portable<T>;
  // A long strip goes with a short one, so that equal shares are equal work.
  const int64_t strips = (p.count + 3) / 4;
  const int64_t grain = std::max<int64_t>(1, kGrainOperations / (8 * p.count * p.dim));
  torch::stable::parallel_for(0, (strips + 1) / 2, grain, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      run(p, 4 * k);
      if (strips - 1 - k != k) run(p, 4 * (strips - 1 - k));
    }
  });
}

template <typename T>
bool harder(T value, T best, bool higher) {
  if (std::isnan(value)) return !std::isnan(best);
  return higher ? value > best : value < best;
}

// The hardest pairs of anchor i.
template <typename T>
void mine(const BatchHardForward& p, int64_t i) {
  const T* squared = static_cast<const T*>(p.workspace) + i * p.count;
  int64_t positive = -1, negative = -1;
  for (int64_t j = 0; j < p.count; ++j) {
    const bool same = p.labels[j] == p.labels[i];
    int64_t& best = same ? positive : negative;
    if (j != i && (best < 0 || harder(squared[j], squared[best], same))) best = j;
  }
  const bool valid = positive >= 0 && negative >= 0;
  p.positive[i] = valid ? positive : -1;
  p.negative[i] = valid ? negative : -1;
  static_cast<T*>(p.positive_distance)[i] = valid ? std::sqrt(squared[positive]) : T(0);
  static_cast<T*>(p.negative_distance)[i] = valid ? std::sqrt(squared[negative]) : T(0);
}

template <typename T>
void forward(const BatchHardForward& p) {
  squared_distances<T>(p);
  const int64_t grain = std::max<int64_t>(1, kGrainOperations / (8 * p.count));
  torch::stable::parallel_for(0, p.count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) mine<T>(p, i);
  });
  const T margin = static_cast<T>(p.margin);
  double sum = 0;
  int64_t valid = 0;
  for (int64_t i = 0; i < p.count; ++i) {
    if (p.positive[i] < 0) continue;
    const T excess =
        static_cast<const T*>(p.positive_distance)[i] - static_cast<const T*>(p.negative_distance)[i];
    ++valid;
    if (p.printed) {
      sum += excess <= margin ? margin : excess;
    } else {
      sum += margin + excess <= 0 ? T(0) : margin + excess;
    }
  }
  *static_cast<T*>(p.loss) = static_cast<T>(sum / std::max<int64_t>(1, valid));
}

// One weighted difference: weight * (x_row - x_other).
template <typename T>
struct Pull {
  int64_t other;
  T weight;
};

// Rows of pulls in CSR: those of row r are pulls[starts[r]] to pulls[starts[r + 1]].
template <typename T>
struct Pulls {
  std::vector<int64_t> starts;
  std::vector<Pull<T>> pulls;
};

template <typename T>
Pulls<T> pulls_of(const BatchHardBackward& p) {
  const T* distances[2] = {static_cast<const T*>(p.positive_distance),
                           static_cast<const T*>(p.negative_distance)};
  const int64_t* others[2] = {p.positive, p.negative};
  const T threshold = static_cast<T>(p.printed ? p.margin : -p.margin);
  const int64_t valid = std::count_if(p.positive, p.positive + p.count, [](int64_t j) { return j >= 0; });
  const T scale = *static_cast<const T*>(p.grad_loss) / static_cast<T>(std::max<int64_t>(1, valid));
  const auto each = [&](auto&& visit) {
    for (int64_t i = 0; i < p.count; ++i) {
      if (p.positive[i] < 0 || distances[0][i] - distances[1][i] <= threshold) continue;
      for (int side = 0; side < 2; ++side) {
        if (distances[side][i] == 0) continue;
        visit(i, others[side][i], (side == 0 ? scale : -scale) / distances[side][i]);
      }
    }
  };
  Pulls<T> result{std::vector<int64_t>(p.count + 1), {}};
  each([&](int64_t i, int64_t j, T) {
    ++result.starts[i + 1];
    ++result.starts[j + 1];
  });
  for (int64_t r = 0; r < p.count; ++r) result.starts[r + 1] += result.starts[r];
  result.pulls.resize(result.starts[p.count]);
  std::vector<int64_t> next = result.starts;
  each([&](int64_t i, int64_t j, T weight) {
    result.pulls[next[i]++] = {j, weight};
    result.pulls[next[j]++] = {i, weight};
  });
  return result;
}

template <typename T, int BYTES>
ALWAYS_INLINE void gather(const BatchHardBackward& p, const Pull<T>* begin, const Pull<T>* end, int64_t r) {
  using V = Vector<T, BYTES>;
  constexpr int64_t width = BYTES / sizeof(T);
  constexpr int unroll = 4;
  const T* features = static_cast<const T*>(p.features);
  const T* row = features + r * p.row_stride;
  T* grad = static_cast<T*>(p.grad_features) + r * p.dim;
  int64_t c = 0;
  for (; c + unroll * width <= p.dim; c += unroll * width) {
    V sums[unroll] = {}, own[unroll];
#pragma GCC unroll 8
    for (int k = 0; k < unroll; ++k) std::memcpy(&own[k], row + c + k * width, sizeof(V));
    for (const Pull<T>* pull = begin; pull != end; ++pull) {
      const T* other = features + pull->other * p.row_stride;
#pragma GCC unroll 8
      for (int k = 0; k < unroll; ++k) {
        V theirs;
        std::memcpy(&theirs, other + c + k * width, sizeof(V));
        sums[k] += (own[k] - theirs) * pull->weight;
      }
    }
#pragma GCC unroll 8
    for (int k = 0; k < unroll; ++k) std::memcpy(grad + c + k * width, &sums[k], sizeof(V));
  }
  for (; c < p.dim; ++c) {
    T sum = 0;
    for (const Pull<T>* pull = begin; pull != end; ++pull) {
      sum += (row[c] - features[pull->other * p.row_stride + c]) * pull->weight;
    }
    grad[c] = sum;
  }
}

template <typename T>
AUTOREID_FAST_AVX512 void gather_avx512(const BatchHardBackward& p, const Pull<T>* begin, const Pull<T>* end,
                                        int64_t r) {
  gather<T, 64>(p, begin, end, r);
}
template <typename T>
AUTOREID_FAST_AVX2 void gather_avx2(const BatchHardBackward& p, const Pull<T>* begin, const Pull<T>* end,
                                    int64_t r) {
  gather<T, 32>(p, begin, end, r);
}
template <typename T>
void gather_portable(const BatchHardBackward& p, const Pull<T>* begin, const Pull<T>* end, int64_t r) {
  gather<T, 16>(p, begin, end, r);
}

template <typename T>
void backward(const BatchHardBackward& p) {
  const InstructionSet set = instruction_set();
  const auto run = set == InstructionSet::avx512 ? gather_avx512<T>
                   : set == InstructionSet::avx2 ? gather_avx2<T>
                                                 : gather_portable<T>;
  const Pulls<T> all = pulls_of<T>(p);
  const int64_t grain = std::max<int64_t>(1, kGrainOperations / (8 * p.dim));
  torch::stable::parallel_for(0, p.count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      run(p, all.pulls.data() + all.starts[r], all.pulls.data() + all.starts[r + 1], r);
    }
  });
}

}  // namespace

void batch_hard_cpu(const BatchHardForward& p) {
  p.element == Element::float64 ? forward<double>(p) : forward<float>(p);
}

void batch_hard_backward_cpu(const BatchHardBackward& p) {
  p.element == Element::float64 ? backward<double>(p) : backward<float>(p);
}

}  // namespace autoreid_fast
