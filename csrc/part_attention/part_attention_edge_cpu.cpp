// One edge of part_attention on one core; part_attention.h has the maths. Activations are matrices of N M
// rows, image by image, padded to whole vectors; the attention of an image is a 4 x 4 matrix.
#include <algorithm>
#include <cmath>

#include "edge.h"
#include "small_matrices.h"

namespace autoreid_fast::part {
namespace {

// The sizes and parameters of one edge.
template <typename T>
struct Edge {
  Edge(const PartAttention& p, int64_t e)
      : images(p.images),
        rows(p.images * kParts),
        hidden(p.hidden),
        stride(padded(p.hidden)),
        channels(p.channels),
        out_channels(p.out_channels),
        strip_columns(kParts * p.hidden),
        project_bias(of_edge(p.parameters.project_bias, e, strip_columns)),
        key_bias(of_edge(p.parameters.key_bias, e, hidden)),
        query_bias(of_edge(p.parameters.query_bias, e, hidden)),
        scale(p.parameters.affine == nullptr ? nullptr : of_edge(p.parameters.affine, e, strip_columns)),
        shift(scale == nullptr ? nullptr : scale + p.edges * strip_columns),
        project_weight(of_edge(p.parameters.project_weight, e, strip_columns * channels), strip_columns,
                       channels),
        key_weight(of_edge(p.parameters.key_weight, e, hidden * hidden), hidden, hidden),
        query_weight(of_edge(p.parameters.query_weight, e, hidden * hidden), hidden, hidden),
        fuse_weight(of_edge(p.parameters.fuse_weight, e, out_channels * hidden), out_channels, hidden) {}

  // The elements of edge e of a tensor with `size` elements per edge.
  static const T* of_edge(const void* tensor, int64_t e, int64_t size) {
    return static_cast<const T*>(tensor) + e * size;
  }

  int64_t images, rows, hidden;    // N, N M, h
  int64_t stride;                  // of activations: h, padded
  int64_t channels, out_channels;  // C, D
  int64_t strip_columns;           // M h: the columns of all strips
  const T *project_bias, *key_bias, *query_bias, *scale, *shift;
  Padded<T> project_weight, key_weight, query_weight, fuse_weight;
};

// The activations from the normalised projections to the part vectors.
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
ALWAYS_INLINE void attend(const Edge<T>& edge, const T* normalized, Attention<T>& attention) {
  const int64_t stride = edge.stride, hidden = edge.hidden;
  const Matrix<T> f{attention.f.data(), stride};
  for (int64_t row = 0; row < edge.rows; ++row) {
    const int64_t strip_offset = row % kParts * hidden;
    for (int64_t j = 0; j < hidden; ++j) {
      const T value = normalized[row * hidden + j];
      f.row(row)[j] =
          edge.scale == nullptr ? value : value * edge.scale[strip_offset + j] + edge.shift[strip_offset + j];
    }
  }
  const Matrix<T> keys{attention.keys.data(), stride}, queries{attention.queries.data(), stride};
  const Matrix<T> part{attention.part.data(), stride};
  const ProductSize size{edge.rows, hidden, stride};
  multiply_transposed<T, BYTES>(size, f, edge.key_weight.matrix(), edge.key_bias, keys);
  multiply_transposed<T, BYTES>(size, f, edge.query_weight.matrix(), edge.query_bias, queries);
  for (int64_t row = 0; row < edge.rows; row += kParts) {
    T* weights = &attention.weights[row * kParts];
    multiply_transposed<T, BYTES>({kParts, kParts, stride}, keys.from(row, 0), queries.from(row, 0), nullptr,
                                  {weights, kParts});
    for (int64_t i = 0; i < kParts; ++i) softmax(weights + i * kParts);
    multiply<T, BYTES>({kParts, stride, kParts}, {weights, kParts, 1}, f.from(row, 0), part.from(row, 0));
  }
}

template <typename T>
ALWAYS_INLINE void rectify(std::vector<T>& values) {
  for (T& value : values) value = value > 0 ? value : T(0);
}

// Mean and biased variance over the images of values (N, M h), per column.
template <typename T>
ALWAYS_INLINE void mean_and_variance(const T* values, int64_t images, int64_t columns, T* mean, T* variance) {
  std::fill(mean, mean + columns, T(0));
  std::fill(variance, variance + columns, T(0));
  for (int64_t n = 0; n < images; ++n) {
    for (int64_t j = 0; j < columns; ++j) mean[j] += values[n * columns + j];
  }
  for (int64_t j = 0; j < columns; ++j) mean[j] /= static_cast<T>(images);
  for (int64_t n = 0; n < images; ++n) {
    for (int64_t j = 0; j < columns; ++j) {
      const T deviation = values[n * columns + j] - mean[j];
      variance[j] += deviation * deviation;
    }
  }
  for (int64_t j = 0; j < columns; ++j) variance[j] /= static_cast<T>(images);
}

// Writes v (N, M h) of one edge.
template <typename T, int BYTES>
ALWAYS_INLINE void project(const EdgeForward<T>& work, const Edge<T>& edge, T* v) {
  const int64_t hidden = edge.hidden;
  const Matrix<const T> weight = edge.project_weight.matrix();
  for (int64_t m = 0; m < kParts; ++m) {
    multiply_transposed<T, BYTES>({edge.images, hidden, weight.stride},
                                  {work.rectified_means + m * weight.stride, kParts * weight.stride},
                                  weight.from(m * hidden, 0), edge.project_bias + m * hidden,
                                  {v + m * hidden, edge.strip_columns});
  }
}

// Turns v (N, M h) into vhat, in place, and writes the statistics that normalise it.
template <typename T>
ALWAYS_INLINE void normalize(const EdgeForward<T>& work, const Edge<T>& edge, T* v) {
  const PartAttention& p = work.p.problem;
  const int64_t columns = edge.strip_columns, images = edge.images;
  T* mean = static_cast<T*>(work.p.norm_statistics) + work.edge * columns;
  T* variance = mean + p.edges * columns;
  if (p.batch_statistics) {
    mean_and_variance(v, images, columns, mean, variance);
  } else {
    const T* given = static_cast<const T*>(work.p.statistics) + work.edge * columns;
    std::copy(given, given + columns, mean);
    std::copy(given + p.edges * columns, given + (p.edges + 1) * columns, variance);
  }
  std::vector<T> rstd(columns);
  for (int64_t j = 0; j < columns; ++j) rstd[j] = 1 / std::sqrt(variance[j] + static_cast<T>(p.eps));
  for (int64_t n = 0; n < images; ++n) {
    for (int64_t j = 0; j < columns; ++j) v[n * columns + j] = (v[n * columns + j] - mean[j]) * rstd[j];
  }
}

template <typename T, int BYTES>
ALWAYS_INLINE void forward(const EdgeForward<T>& work) {
  const Edge<T> edge(work.p.problem, work.edge);
  T* normalized = static_cast<T*>(work.p.normalized) + work.edge * edge.images * edge.strip_columns;
  project<T, BYTES>(work, edge, normalized);
  normalize(work, edge, normalized);
  Attention<T> attention(edge);
  attend<T, BYTES>(edge, normalized, attention);
  if (work.p.problem.relu_part) rectify(attention.part);
  T* strip_bias = static_cast<T*>(work.p.strip_bias) + work.edge * edge.rows * edge.out_channels;
  multiply_transposed<T, BYTES>({edge.rows, edge.out_channels, edge.stride},
                                {attention.part.data(), edge.stride}, edge.fuse_weight.matrix(), nullptr,
                                {strip_bias, edge.out_channels});
}

// sums (columns) = the sum of the rows of a matrix.
template <typename T>
ALWAYS_INLINE void sum_rows(int64_t rows, int64_t columns, Matrix<const T> matrix, T* sums) {
  std::fill(sums, sums + columns, T(0));
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) sums[j] += matrix.row(i)[j];
  }
}

// out (rows, columns), contiguous, = a^T b, for a (depth, rows) and b (depth, columns).
template <typename T, int BYTES>
ALWAYS_INLINE void multiply_outer(ProductSize size, Matrix<const T> a, Matrix<const T> b, T* out) {
  const PaddedOutput<T> to(out, size.rows, size.columns);
  multiply<T, BYTES>({size.rows, to.matrix().stride, size.depth}, {a.data, 1, a.stride}, b, to.matrix());
}

// The gradients of the activations of `Attention`.
template <typename T>
struct AttentionGradients {
  explicit AttentionGradients(const Edge<T>& edge)
      : part(edge.rows * edge.stride), keys(part.size()), queries(part.size()), f(part.size()) {}

  std::vector<T> part, keys, queries, f;  // (N M, h)
};

// Sets grads.keys, grads.queries and grads.f of one image, whose first row is `row`, from grads.part.
template <typename T, int BYTES>
ALWAYS_INLINE void attention_backward(const Attention<T>& attention, int64_t row, int64_t stride,
                                      AttentionGradients<T>& grads) {
  const auto image = [&](const std::vector<T>& values)
                         INLINE_LAMBDA { return Matrix<const T>{values.data() + row * stride, stride}; };
  const auto image_grad = [&](std::vector<T>& values)
                              INLINE_LAMBDA { return Matrix<T>{values.data() + row * stride, stride}; };
  const T* weights = attention.weights.data() + row * kParts;
  T scores[kParts * kParts];
  multiply_transposed<T, BYTES>({kParts, kParts, stride}, image(grads.part), image(attention.f), nullptr,
                                {scores, kParts});
  for (int64_t i = 0; i < kParts; ++i) {
    T sum = 0;
    for (int64_t j = 0; j < kParts; ++j) sum += weights[i * kParts + j] * scores[i * kParts + j];
    for (int64_t j = 0; j < kParts; ++j) {
      scores[i * kParts + j] = weights[i * kParts + j] * (scores[i * kParts + j] - sum);
    }
  }
  const ProductSize size{kParts, stride, kParts};
  multiply<T, BYTES>(size, {scores, kParts, 1}, image(attention.queries), image_grad(grads.keys));
  multiply<T, BYTES>(size, {scores, 1, kParts}, image(attention.keys), image_grad(grads.queries));
  multiply<T, BYTES>(size, {weights, 1, kParts}, image(grads.part), image_grad(grads.f));
}

// Turns df (N M, h) into dv, in place, and writes the gradient of affine.
template <typename T>
ALWAYS_INLINE void norm_backward(const EdgeBackward<T>& work, const Edge<T>& edge, std::vector<T>& df) {
  const PartAttention& p = work.p.problem;
  const int64_t hidden = edge.hidden, columns = edge.strip_columns;
  const T* normalized = static_cast<const T*>(work.p.normalized) + work.edge * edge.rows * hidden;
  const T* variance = static_cast<const T*>(work.p.norm_statistics) + (p.edges + work.edge) * columns;
  std::vector<T> sums(columns), projections(columns);  // sums over images of df, and of df * vhat
  for (int64_t row = 0; row < edge.rows; ++row) {
    const int64_t strip_offset = row % kParts * hidden;
    for (int64_t j = 0; j < hidden; ++j) {
      const T grad = df[row * edge.stride + j];
      sums[strip_offset + j] += grad;
      projections[strip_offset + j] += grad * normalized[row * hidden + j];
    }
  }
  if (work.p.grads.affine != nullptr) {
    T* grad_scale = static_cast<T*>(work.p.grads.affine) + work.edge * columns;
    std::copy(projections.begin(), projections.end(), grad_scale);
    std::copy(sums.begin(), sums.end(), grad_scale + p.edges * columns);
  }
  // The means over images that dv subtracts; 0 for constant statistics.
  const T weight = p.batch_statistics ? 1 / static_cast<T>(edge.images) : T(0);
  std::vector<T> scale_rstd(columns), mean(columns), mean_projection(columns);
  for (int64_t j = 0; j < columns; ++j) {
    scale_rstd[j] =
        (edge.scale == nullptr ? T(1) : edge.scale[j]) / std::sqrt(variance[j] + static_cast<T>(p.eps));
    mean[j] = weight * sums[j];
    mean_projection[j] = weight * projections[j];
  }
  for (int64_t row = 0; row < edge.rows; ++row) {
    const int64_t strip_offset = row % kParts * hidden;
    for (int64_t j = 0; j < hidden; ++j) {
      const int64_t column = strip_offset + j;
      T& value = df[row * edge.stride + j];
      value = scale_rstd[column] *
              (value - mean[column] - normalized[row * hidden + j] * mean_projection[column]);
    }
  }
}

// Writes the gradients of the parameters; dv is in grads.f.
template <typename T, int BYTES>
ALWAYS_INLINE void parameter_gradients(const EdgeBackward<T>& work, const Edge<T>& edge,
                                       const Attention<T>& attention, const AttentionGradients<T>& grads,
                                       const T* grad) {
  const int64_t hidden = edge.hidden, stride = edge.stride, rows = edge.rows, channels = edge.channels;
  const auto of_edge = [&](void* tensor, int64_t size)
                           INLINE_LAMBDA { return static_cast<T*>(tensor) + work.edge * size; };
  const auto matrix = [&](const std::vector<T>& values)
                          INLINE_LAMBDA { return Matrix<const T>{values.data(), stride}; };
  const PartParameters<void*>& to = work.p.grads;
  const int64_t means_stride = edge.project_weight.matrix().stride;
  for (int64_t m = 0; m < kParts; ++m) {
    const Matrix<const T> dv{&grads.f[m * stride], kParts * stride};
    multiply_outer<T, BYTES>(
        {hidden, channels, edge.images}, dv, {work.rectified_means + m * means_stride, kParts * means_stride},
        of_edge(to.project_weight, edge.strip_columns * channels) + m * hidden * channels);
    sum_rows(edge.images, hidden, dv, of_edge(to.project_bias, edge.strip_columns) + m * hidden);
  }
  const ProductSize square{hidden, hidden, rows};
  multiply_outer<T, BYTES>(square, matrix(grads.keys), matrix(attention.f),
                           of_edge(to.key_weight, hidden * hidden));
  sum_rows(rows, hidden, matrix(grads.keys), of_edge(to.key_bias, hidden));
  multiply_outer<T, BYTES>(square, matrix(grads.queries), matrix(attention.f),
                           of_edge(to.query_weight, hidden * hidden));
  sum_rows(rows, hidden, matrix(grads.queries), of_edge(to.query_bias, hidden));
  multiply_outer<T, BYTES>({edge.out_channels, hidden, rows}, {grad, edge.out_channels},
                           matrix(attention.part), of_edge(to.fuse_weight, edge.out_channels * hidden));
}

// Sets grads.part, grads.keys, grads.queries and grads.f.
template <typename T, int BYTES>
ALWAYS_INLINE void activation_gradients(const Edge<T>& edge, const Attention<T>& attention, const T* grad,
                                        bool relu_part, AttentionGradients<T>& grads) {
  const int64_t hidden = edge.hidden, stride = edge.stride, rows = edge.rows;
  multiply<T, BYTES>({rows, stride, edge.out_channels}, {grad, edge.out_channels, 1},
                     edge.fuse_weight.matrix(), {grads.part.data(), stride});
  for (size_t i = 0; relu_part && i < grads.part.size(); ++i) {
    grads.part[i] = attention.part[i] > 0 ? grads.part[i] : T(0);
  }
  for (int64_t row = 0; row < rows; row += kParts) {
    attention_backward<T, BYTES>(attention, row, stride, grads);
  }
  const Matrix<T> df{grads.f.data(), stride};
  multiply<T, BYTES>({rows, stride, hidden}, {grads.keys.data(), stride, 1}, edge.key_weight.matrix(), df,
                     true);
  multiply<T, BYTES>({rows, stride, hidden}, {grads.queries.data(), stride, 1}, edge.query_weight.matrix(),
                     df, true);
}

template <typename T, int BYTES>
ALWAYS_INLINE void backward(const EdgeBackward<T>& work) {
  const PartAttention& p = work.p.problem;
  const Edge<T> edge(p, work.edge);
  const int64_t stride = edge.stride;
  const T* normalized = static_cast<const T*>(work.p.normalized) + work.edge * edge.rows * edge.hidden;
  const T* grad = static_cast<const T*>(work.p.grad) + work.edge * edge.rows * edge.out_channels;
  Attention<T> attention(edge);
  attend<T, BYTES>(edge, normalized, attention);

  AttentionGradients<T> grads(edge);
  activation_gradients<T, BYTES>(edge, attention, grad, p.relu_part, grads);
  norm_backward(work, edge, grads.f);

  const Matrix<const T> weight = edge.project_weight.matrix();
  for (int64_t m = 0; m < kParts && work.grad_rectified_means != nullptr; ++m) {
    multiply<T, BYTES>({edge.images, weight.stride, edge.hidden}, {&grads.f[m * stride], kParts * stride, 1},
                       weight.from(m * edge.hidden, 0),
                       {work.grad_rectified_means + m * weight.stride, kParts * weight.stride});
  }
  if (work.p.grads.project_weight == nullptr) return;
  if (p.relu_part) rectify(attention.part);
  parameter_gradients<T, BYTES>(work, edge, attention, grads, grad);
}

template <typename T>
struct Forward {
  template <int BYTES>
  ALWAYS_INLINE static void run(const EdgeForward<T>& work) {
    forward<T, BYTES>(work);
  }
};

template <typename T>
struct Backward {
  template <int BYTES>
  ALWAYS_INLINE static void run(const EdgeBackward<T>& work) {
    backward<T, BYTES>(work);
  }
};

}  // namespace

template <typename T>
void run_edge(const EdgeForward<T>& work) {
  variant<Forward<T>>()(work);
}
template <typename T>
void run_edge(const EdgeBackward<T>& work) {
  variant<Backward<T>>()(work);
}

template void run_edge(const EdgeForward<float>&);
template void run_edge(const EdgeForward<double>&);
template void run_edge(const EdgeBackward<float>&);
template void run_edge(const EdgeBackward<double>&);

}  // namespace autoreid_fast::part
