// One edge of part_attention on one core. Activations are matrices of N M rows, image by image, padded to
// whole vectors; the attention of an image is a 4 x 4 matrix.
#include <algorithm>
#include <cmath>

#include "../instruction_set.h"
#include "edge.h"
#include "small_matrices.h"

namespace autoreid_fast::part {
namespace {

enum { kProject, kProjectBias, kKey, kKeyBias, kQuery, kQueryBias, kFuse };

// The parameters of one edge.
template <typename T>
struct Edge {
  Edge(const PartAttention& p, int64_t e)
      : images(p.images),
        rows(p.images * kParts),
        hidden(p.hidden),
        stride(padded(p.hidden)),
        channels(p.channels),
        out(p.out),
        strips(kParts * p.hidden),
        project_bias(at(p, kProjectBias, e * strips)),
        key_bias(at(p, kKeyBias, e * hidden)),
        query_bias(at(p, kQueryBias, e * hidden)),
        scale(p.affine == nullptr ? nullptr : static_cast<const T*>(p.affine) + e * strips),
        shift(p.affine == nullptr ? nullptr : scale + p.edges * strips),
        project(at(p, kProject, e * strips * channels), strips, channels),
        key(at(p, kKey, e * hidden * hidden), hidden, hidden),
        query(at(p, kQuery, e * hidden * hidden), hidden, hidden),
        fuse(at(p, kFuse, e * out * hidden), out, hidden) {}

  static const T* at(const PartAttention& p, int which, int64_t offset) {
    return static_cast<const T*>(p.parameters[which]) + offset;
  }

  int64_t images, rows, hidden, stride, channels, out, strips;
  const T *project_bias, *key_bias, *query_bias, *scale, *shift;
  Padded<T> project, key, query, fuse;
};

// From the normalised projections to the part vectors.
template <typename T>
struct Attention {
  explicit Attention(const Edge<T>& edge)
      : f(edge.rows * edge.stride),
        keys(f.size()),
        queries(f.size()),
        part(f.size()),
        weights(edge.rows * kParts) {}

  std::vector<T> f, keys, queries, part;  // (N M, h)
  std::vector<T> weights;                 // A: (N M, M)
};

template <typename T>
ALWAYS_INLINE void softmax(T* scores) {
  const T largest = *std::max_element(scores, scores + kParts);
  T sum = 0;
  for (int64_t j = 0; j < kParts; ++j) sum += scores[j] = std::exp(scores[j] - largest);
  for (int64_t j = 0; j < kParts; ++j) scores[j] /= sum;
}

template <typename T, int BYTES>
ALWAYS_INLINE void attend(const Edge<T>& edge, const T* normalized, Attention<T>& made) {
  const int64_t stride = edge.stride, hidden = edge.hidden;
  for (int64_t row = 0; row < edge.rows; ++row) {
    const int64_t strip = row % kParts * hidden;
    for (int64_t j = 0; j < hidden; ++j) {
      const T value = normalized[row * hidden + j];
      made.f[row * stride + j] =
          edge.scale == nullptr ? value : value * edge.scale[strip + j] + edge.shift[strip + j];
    }
  }
  multiply_transposed<T, BYTES>(edge.rows, hidden, stride, made.f.data(), stride, edge.key.data, stride,
                                edge.key_bias, made.keys.data(), stride);
  multiply_transposed<T, BYTES>(edge.rows, hidden, stride, made.f.data(), stride, edge.query.data, stride,
                                edge.query_bias, made.queries.data(), stride);
  for (int64_t row = 0; row < edge.rows; row += kParts) {
    T* weights = &made.weights[row * kParts];
    multiply_transposed<T, BYTES>(kParts, kParts, stride, &made.keys[row * stride], stride,
                                  &made.queries[row * stride], stride, static_cast<const T*>(nullptr),
                                  weights, kParts);
    for (int64_t i = 0; i < kParts; ++i) softmax(weights + i * kParts);
    multiply<T, BYTES>(kParts, stride, kParts, {weights, kParts, 1}, &made.f[row * stride], stride,
                       &made.part[row * stride], stride);
  }
}

template <typename T>
ALWAYS_INLINE void clamp(std::vector<T>& values) {
  for (T& value : values) value = value > 0 ? value : T(0);
}

template <typename T, int BYTES>
ALWAYS_INLINE void forward(const EdgeForward<T>& work) {
  const PartAttention& p = work.p.problem;
  const Edge<T> edge(p, work.edge);
  const int64_t hidden = edge.hidden, strips = edge.strips, images = edge.images, wide = edge.project.stride;
  T* values = static_cast<T*>(work.p.normalized) + work.edge * images * strips;
  for (int64_t m = 0; m < kParts; ++m) {
    multiply_transposed<T, BYTES>(images, hidden, wide, work.source + m * wide, kParts * wide,
                                  edge.project.data + m * hidden * wide, wide, edge.project_bias + m * hidden,
                                  values + m * hidden, strips);
  }
  T* mean = static_cast<T*>(work.p.used) + work.edge * strips;
  T* variance = mean + p.edges * strips;
  if (p.batch) {
    std::fill(mean, mean + strips, T(0));
    std::fill(variance, variance + strips, T(0));
    for (int64_t n = 0; n < images; ++n) {
      for (int64_t j = 0; j < strips; ++j) mean[j] += values[n * strips + j];
    }
    for (int64_t j = 0; j < strips; ++j) mean[j] /= static_cast<T>(images);
    for (int64_t n = 0; n < images; ++n) {
      for (int64_t j = 0; j < strips; ++j) {
        const T off = values[n * strips + j] - mean[j];
        variance[j] += off * off;
      }
    }
    for (int64_t j = 0; j < strips; ++j) variance[j] /= static_cast<T>(images);
  } else {
    const T* given = static_cast<const T*>(work.p.statistics) + work.edge * strips;
    std::copy(given, given + strips, mean);
    std::copy(given + p.edges * strips, given + (p.edges + 1) * strips, variance);
  }
  std::vector<T> rstd(strips);
  for (int64_t j = 0; j < strips; ++j) rstd[j] = 1 / std::sqrt(variance[j] + static_cast<T>(p.eps));
  for (int64_t n = 0; n < images; ++n) {
    for (int64_t j = 0; j < strips; ++j) {
      values[n * strips + j] = (values[n * strips + j] - mean[j]) * rstd[j];
    }
  }
  Attention<T> made(edge);
  attend<T, BYTES>(edge, values, made);
  if (p.relu) clamp(made.part);
  multiply_transposed<T, BYTES>(edge.rows, edge.out, edge.stride, made.part.data(), edge.stride,
                                edge.fuse.data, edge.stride, static_cast<const T*>(nullptr),
                                static_cast<T*>(work.p.bias) + work.edge * edge.rows * edge.out, edge.out);
}

// sums (columns) = the sum of the rows of a matrix.
template <typename T>
ALWAYS_INLINE void add_rows(int64_t rows, int64_t columns, const T* matrix, int64_t stride, T* sums) {
  std::fill(sums, sums + columns, T(0));
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) sums[j] += matrix[i * stride + j];
  }
}

// out (rows, columns) = a^T b, for a (depth, rows) and b (depth, columns).
template <typename T, int BYTES>
ALWAYS_INLINE void outer(int64_t rows, int64_t columns, int64_t depth, const T* a, int64_t a_row, const T* b,
                         int64_t b_row, T* out) {
  const Unpadded<T> to(out, rows, columns);
  multiply<T, BYTES>(rows, to.stride, depth, {a, 1, a_row}, b, b_row, to.data, to.stride);
}

// What flows back through the attention of one image: `dpart` (M, h) to dkeys, dqueries and df (each M, h).
template <typename T, int BYTES>
ALWAYS_INLINE void attention_back(const T* weights, const T* f, const T* keys, const T* queries,
                                  const T* dpart, int64_t stride, T* dkeys, T* dqueries, T* df) {
  T dscores[kParts * kParts];
  multiply_transposed<T, BYTES>(kParts, kParts, stride, dpart, stride, f, stride,
                                static_cast<const T*>(nullptr), dscores, kParts);
  for (int64_t i = 0; i < kParts; ++i) {
    T sum = 0;
    for (int64_t j = 0; j < kParts; ++j) sum += weights[i * kParts + j] * dscores[i * kParts + j];
    for (int64_t j = 0; j < kParts; ++j) {
      dscores[i * kParts + j] = weights[i * kParts + j] * (dscores[i * kParts + j] - sum);
    }
  }
  multiply<T, BYTES>(kParts, stride, kParts, {dscores, kParts, 1}, queries, stride, dkeys, stride);
  multiply<T, BYTES>(kParts, stride, kParts, {dscores, 1, kParts}, keys, stride, dqueries, stride);
  multiply<T, BYTES>(kParts, stride, kParts, {weights, 1, kParts}, dpart, stride, df, stride);
}

// df (N M, h), in place, to d v; the gradients of affine on the way.
template <typename T>
ALWAYS_INLINE void norm_back(const EdgeBackward<T>& work, const Edge<T>& edge, std::vector<T>& df) {
  const PartAttention& p = work.p.problem;
  const int64_t hidden = edge.hidden, strips = edge.strips;
  const T* normalized = static_cast<const T*>(work.p.normalized) + work.edge * edge.rows * hidden;
  const T* variance = static_cast<const T*>(work.p.used) + (p.edges + work.edge) * strips;
  std::vector<T> sum(strips), dot(strips);
  for (int64_t row = 0; row < edge.rows; ++row) {
    T* sums = &sum[row % kParts * hidden];
    T* dots = &dot[row % kParts * hidden];
    for (int64_t j = 0; j < hidden; ++j) {
      sums[j] += df[row * edge.stride + j];
      dots[j] += df[row * edge.stride + j] * normalized[row * hidden + j];
    }
  }
  if (work.p.grads[kParameters] != nullptr) {
    T* grad = static_cast<T*>(work.p.grads[kParameters]) + work.edge * strips;
    std::copy(dot.begin(), dot.end(), grad);
    std::copy(sum.begin(), sum.end(), grad + p.edges * strips);
  }
  const T share = p.batch ? 1 / static_cast<T>(edge.images) : T(0);
  std::vector<T> slope(strips);
  for (int64_t j = 0; j < strips; ++j) {
    slope[j] =
        (edge.scale == nullptr ? T(1) : edge.scale[j]) / std::sqrt(variance[j] + static_cast<T>(p.eps));
    sum[j] *= share;
    dot[j] *= share;
  }
  for (int64_t row = 0; row < edge.rows; ++row) {
    const int64_t strip = row % kParts * hidden;
    for (int64_t j = 0; j < hidden; ++j) {
      T& value = df[row * edge.stride + j];
      value = slope[strip + j] * (value - sum[strip + j] - normalized[row * hidden + j] * dot[strip + j]);
    }
  }
}

template <typename T, int BYTES>
ALWAYS_INLINE void backward(const EdgeBackward<T>& work) {
  const PartAttention& p = work.p.problem;
  const Edge<T> edge(p, work.edge);
  const int64_t hidden = edge.hidden, stride = edge.stride, rows = edge.rows, out = edge.out;
  const T* normalized = static_cast<const T*>(work.p.normalized) + work.edge * rows * hidden;
  const T* grad = static_cast<const T*>(work.p.grad) + work.edge * rows * out;
  Attention<T> made(edge);
  attend<T, BYTES>(edge, normalized, made);

  std::vector<T> dpart(made.f.size()), dkeys(made.f.size()), dqueries(made.f.size()), df(made.f.size());
  multiply<T, BYTES>(rows, stride, out, {grad, out, 1}, edge.fuse.data, stride, dpart.data(), stride);
  if (p.relu) {
    for (size_t i = 0; i < dpart.size(); ++i) dpart[i] = made.part[i] > 0 ? dpart[i] : T(0);
  }
  for (int64_t row = 0; row < rows; row += kParts) {
    const int64_t at = row * stride;
    attention_back<T, BYTES>(&made.weights[row * kParts], &made.f[at], &made.keys[at], &made.queries[at],
                             &dpart[at], stride, &dkeys[at], &dqueries[at], &df[at]);
  }
  multiply<T, BYTES>(rows, stride, hidden, {dkeys.data(), stride, 1}, edge.key.data, stride, df.data(),
                     stride, true);
  multiply<T, BYTES>(rows, stride, hidden, {dqueries.data(), stride, 1}, edge.query.data, stride, df.data(),
                     stride, true);
  norm_back(work, edge, df);

  const int64_t wide = edge.project.stride;
  for (int64_t m = 0; m < kParts && work.grad_means != nullptr; ++m) {
    multiply<T, BYTES>(edge.images, wide, hidden, {&df[m * stride], kParts * stride, 1},
                       edge.project.data + m * hidden * wide, wide, work.grad_means + m * wide,
                       kParts * wide);
  }
  if (work.p.grads[kProject] == nullptr) return;
  const auto to = [&](int which, int64_t numbers) __attribute__((always_inline)) {
    return static_cast<T*>(work.p.grads[which]) + work.edge * numbers;
  };
  for (int64_t m = 0; m < kParts; ++m) {
    outer<T, BYTES>(hidden, edge.channels, edge.images, &df[m * stride], kParts * stride,
                    work.source + m * wide, kParts * wide,
                    to(kProject, edge.strips * edge.channels) + m * hidden * edge.channels);
    add_rows(edge.images, hidden, &df[m * stride], kParts * stride,
             to(kProjectBias, edge.strips) + m * hidden);
  }
  outer<T, BYTES>(hidden, hidden, rows, dkeys.data(), stride, made.f.data(), stride,
                  to(kKey, hidden * hidden));
  add_rows(rows, hidden, dkeys.data(), stride, to(kKeyBias, hidden));
  outer<T, BYTES>(hidden, hidden, rows, dqueries.data(), stride, made.f.data(), stride,
                  to(kQuery, hidden * hidden));
  add_rows(rows, hidden, dqueries.data(), stride, to(kQueryBias, hidden));
  if (p.relu) clamp(made.part);
  outer<T, BYTES>(out, hidden, rows, grad, out, made.part.data(), stride, to(kFuse, out * hidden));
}

template <typename T, int BYTES>
ALWAYS_INLINE void run(const EdgeForward<T>& work) {
  forward<T, BYTES>(work);
}
template <typename T, int BYTES>
ALWAYS_INLINE void run(const EdgeBackward<T>& work) {
  backward<T, BYTES>(work);
}

template <typename T, typename Work>
AUTOREID_FAST_AVX512 void run_avx512(const Work& work) {
  run<T, 64>(work);
}
template <typename T, typename Work>
AUTOREID_FAST_AVX2 void run_avx2(const Work& work) {
  run<T, 32>(work);
}

template <typename T, typename Work>
void run_best(const Work& work) {
  switch (instruction_set()) {
    case InstructionSet::avx512:
      return run_avx512<T>(work);
    case InstructionSet::avx2:
      return run_avx2<T>(work);
    default:
      return run<T, 16>(work);
  }
}

}  // namespace

template <typename T>
void run_edge(const EdgeForward<T>& work) {
  run_best<T>(work);
}
template <typename T>
void run_edge(const EdgeBackward<T>& work) {
  run_best<T>(work);
}

template void run_edge(const EdgeForward<float>&);
template void run_edge(const EdgeForward<double>&);
template void run_edge(const EdgeBackward<float>&);
template void run_edge(const EdgeBackward<double>&);

}  // namespace autoreid_fast::part
