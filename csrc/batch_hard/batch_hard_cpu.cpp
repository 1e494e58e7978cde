// Batch-hard triplet loss on the CPU; batch_hard.h has the maths.
//
// Forward: squared distances of the upper triangle by register tiles (4 x 4 pairs of rows with AVX-512: 8
// loads feed 32 vector operations), mirrored into the N x N workspace; then one scan per row. Backward: each
// row gathers the weighted differences of its own pairs in a fixed order and is written once. Both are
// deterministic for any number of threads.
#include "batch_hard.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "../common/arithmetic.h"
#include "../common/vector.h"

namespace autoreid_fast {
namespace {

constexpr int64_t kGrainOperations = 1 << 17;  // operations that are worth a thread
constexpr int64_t kStripRows = 4;

// Loads elements c.. of a row, zeros past dim.
template <typename V, typename T>
ALWAYS_INLINE void load_padded(V& vector, const T* row, int64_t c, int64_t dim) {
  vector = V{};
  load_first(vector, row + c, dim - c);
}

// sums[i][j] += (rows[i] - columns[j])^2, for one vector of elements from c on.
template <typename V, int ROWS, int COLUMNS, typename T>
ALWAYS_INLINE void add_squares(V (&sums)[ROWS][COLUMNS], const T* const (&rows)[ROWS],
                               const T* const (&columns)[COLUMNS], int64_t c, int64_t dim) {
  V left[ROWS];
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; ++i) load_padded(left[i], rows[i], c, dim);
#pragma GCC unroll 8
  for (int j = 0; j < COLUMNS; ++j) {
    V right;
    load_padded(right, columns[j], c, dim);
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i) {
      const V difference = left[i] - right;
      sums[i][j] += difference * difference;
    }
  }
}

// Squared distances of rows [first, first + kStripRows) to all rows from `first` on, mirrored.
template <typename T>
struct Strip {
  template <int BYTES>
  ALWAYS_INLINE static void run(const BatchHardForward& p, int64_t first) {
    using V = Vector<T, BYTES>;
    constexpr int64_t lanes = BYTES / sizeof(T);
    constexpr int columns_per_tile = BYTES == 64 ? 4 : 2;
    const T* features = static_cast<const T*>(p.features);
    T* squared = static_cast<T*>(p.workspace);
    const auto row = [&](int64_t index) { return features + std::min(index, p.count - 1) * p.row_stride; };
    const T* rows[kStripRows];
    for (int i = 0; i < kStripRows; ++i) rows[i] = row(first + i);
    for (int64_t other = first; other < p.count; other += columns_per_tile) {
      const T* columns[columns_per_tile];
      for (int j = 0; j < columns_per_tile; ++j) columns[j] = row(other + j);
      V sums[kStripRows][columns_per_tile] = {};
      int64_t c = 0;
      for (; c + lanes <= p.dim; c += lanes) add_squares(sums, rows, columns, c, c + lanes);
      if (c < p.dim) add_squares(sums, rows, columns, c, p.dim);
      for (int i = 0; i < kStripRows && first + i < p.count; ++i) {
        for (int j = 0; j < columns_per_tile && other + j < p.count; ++j) {
          T sum = 0;
          for (int64_t k = 0; k < lanes; ++k) sum += sums[i][j][k];
          squared[(first + i) * p.count + other + j] = squared[(other + j) * p.count + first + i] = sum;
        }
      }
    }
  }
};

template <typename T>
void squared_distances(const BatchHardForward& p) {
  const auto strip = variant<Strip<T>>();
  // A long strip goes with a short one, so that equal ranges are equal work.
  const int64_t strips = ceil_div(p.count, kStripRows);
  const int64_t grain = std::max<int64_t>(1, kGrainOperations / (8 * p.count * p.dim));
  torch::stable::parallel_for(0, ceil_div(strips, 2), grain, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      strip(p, kStripRows * k);
      if (strips - 1 - k != k) strip(p, kStripRows * (strips - 1 - k));
    }
  });
}

// Whether a distance is harder than the hardest so far: larger for positives, smaller for negatives, or NaN.
template <typename T>
bool is_harder(T distance, T hardest, bool positive) {
  if (std::isnan(distance)) return !std::isnan(hardest);
  return positive ? distance > hardest : distance < hardest;
}

// The hardest positive and negative of anchor i.
template <typename T>
void mine_anchor(const BatchHardForward& p, int64_t i) {
  const T* squared = static_cast<const T*>(p.workspace) + i * p.count;
  int64_t positive = -1, negative = -1;
  for (int64_t j = 0; j < p.count; ++j) {
    const bool same = p.labels[j] == p.labels[i];
    int64_t& hardest = same ? positive : negative;
    if (j != i && (hardest < 0 || is_harder(squared[j], squared[hardest], same))) hardest = j;
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
    for (int64_t i = begin; i < end; ++i) mine_anchor<T>(p, i);
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

// One term of a row's gradient: weight * (x_row - x_other).
template <typename T>
struct Term {
  int64_t other;
  T weight;
};

// The terms of all rows as CSR: those of row r are terms[offsets[r]] to terms[offsets[r + 1] - 1].
template <typename T>
struct Terms {
  std::vector<int64_t> offsets;
  std::vector<Term<T>> terms;
};

// Calls visit(anchor, other, weight) for both pairs of each active anchor, in the order of the anchors.
template <typename T, typename Visit>
void visit_active_pairs(const BatchHardBackward& p, const Visit& visit) {
  const T* positive_distance = static_cast<const T*>(p.positive_distance);
  const T* negative_distance = static_cast<const T*>(p.negative_distance);
  const T threshold = static_cast<T>(p.printed ? p.margin : -p.margin);
  const int64_t valid = std::count_if(p.positive, p.positive + p.count, [](int64_t j) { return j >= 0; });
  const T scale = *static_cast<const T*>(p.grad_loss) / static_cast<T>(std::max<int64_t>(1, valid));
  for (int64_t i = 0; i < p.count; ++i) {
    if (p.positive[i] < 0 || p.negative[i] < 0) continue;
    if (positive_distance[i] - negative_distance[i] <= threshold) continue;
    if (positive_distance[i] != 0) visit(i, p.positive[i], scale / positive_distance[i]);
    if (negative_distance[i] != 0) visit(i, p.negative[i], -scale / negative_distance[i]);
  }
}

template <typename T>
Terms<T> gradient_terms(const BatchHardBackward& p) {
  Terms<T> result{std::vector<int64_t>(p.count + 1), {}};
  visit_active_pairs<T>(p, [&](int64_t i, int64_t j, T) {
    ++result.offsets[i + 1];
    ++result.offsets[j + 1];
  });
  for (int64_t r = 0; r < p.count; ++r) result.offsets[r + 1] += result.offsets[r];
  result.terms.resize(result.offsets[p.count]);
  std::vector<int64_t> next = result.offsets;
  visit_active_pairs<T>(p, [&](int64_t i, int64_t j, T weight) {
    result.terms[next[i]++] = {j, weight};
    result.terms[next[j]++] = {i, weight};
  });
  return result;
}

// The gradient of row r, from its terms [begin, end).
template <typename T>
struct GradientRow {
  template <int BYTES>
  ALWAYS_INLINE static void run(const BatchHardBackward& p, const Term<T>* begin, const Term<T>* end,
                                int64_t r) {
    using V = Vector<T, BYTES>;
    constexpr int64_t lanes = BYTES / sizeof(T);
    constexpr int unroll = 4;
    const T* features = static_cast<const T*>(p.features);
    const T* row = features + r * p.row_stride;
    T* grad = static_cast<T*>(p.grad_features) + r * p.dim;
    int64_t c = 0;
    for (; c + unroll * lanes <= p.dim; c += unroll * lanes) {
      V sums[unroll] = {}, values[unroll];
#pragma GCC unroll 8
      for (int k = 0; k < unroll; ++k) load(values[k], row + c + k * lanes);
      for (const Term<T>* term = begin; term != end; ++term) {
        const T* other = features + term->other * p.row_stride;
#pragma GCC unroll 8
        for (int k = 0; k < unroll; ++k) {
          V other_values;
          load(other_values, other + c + k * lanes);
          sums[k] += (values[k] - other_values) * term->weight;
        }
      }
#pragma GCC unroll 8
      for (int k = 0; k < unroll; ++k) store(grad + c + k * lanes, sums[k]);
    }
    for (; c < p.dim; ++c) {
      T sum = 0;
      for (const Term<T>* term = begin; term != end; ++term) {
        sum += (row[c] - features[term->other * p.row_stride + c]) * term->weight;
      }
      grad[c] = sum;
    }
  }
};

template <typename T>
void backward(const BatchHardBackward& p) {
  const auto gradient_row = variant<GradientRow<T>>();
  const Terms<T> all = gradient_terms<T>(p);
  const int64_t grain = std::max<int64_t>(1, kGrainOperations / (8 * p.dim));
  torch::stable::parallel_for(0, p.count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      gradient_row(p, all.terms.data() + all.offsets[r], all.terms.data() + all.offsets[r + 1], r);
    }
  });
}

}  // namespace

void batch_hard_cpu(const BatchHardForward& p) {
  dispatch_cpu(p.element, [&]<typename T>() { forward<T>(p); });
}

void batch_hard_backward_cpu(const BatchHardBackward& p) {
  dispatch_cpu(p.element, [&]<typename T>() { backward<T>(p); });
}

}  // namespace autoreid_fast
