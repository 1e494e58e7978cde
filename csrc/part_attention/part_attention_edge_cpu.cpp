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
        out(p.out),
        strips(kParts * p.hidden),
        project_bias(of_edge(p.parameters.project_bias, e, strips)),
        key_bias(of_edge(p.parameters.key_bias, e, hidden)),
        query_bias(of_edge(p.parameters.query_bias, e, hidden)),
        scale(p.parameters.affine == nullptr ? nullptr : of_edge(p.parameters.affine, e, strips)),
        shift(scale == nullptr ? nullptr : scale + p.edges * strips),
        project_weight(of_edge(p.parameters.project_weight, e, strips * channels), strips, channels),
        key_weight(of_edge(p.parameters.key_weight, e, hidden * hidden), hidden, hidden),
        query_weight(of_edge(p.parameters.query_weight, e, hidden * hidden), hidden, hidden),
        fuse_weight(of_edge(p.parameters.fuse_weight, e, out * hidden), out, hidden) {}

  // The elements of edge e of a tensor with `size` elements per edge.
  static const T* of_edge(const void* tensor, int64_t e, int64_t size) {
    return static_cast<const T*>(tensor) + e * size;
  }

  int64_t images, rows, hidden;   // N, N M, h
  int64_t stride;                 // of activations: h, padded
  int64_t channels, out, strips;  // C, D, M h
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
    const int64_t strip = row % kParts * hidden;
    for (int64_t j = 0; j < hidden; ++j) {
      const T value = normalized[row * hidden + j];
      f.row(row)[j] = edge.scale == nullptr ? value : value * edge.scale[strip + j] + edge.shift[strip + j];
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
ALWAYS_INLINE void batch_statistics(const T* values, int64_t images, int64_t columns, T* mean, T* variance) {
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

template <typename T, int BYTES>
ALWAYS_INLINE void forward(const EdgeForward<T>& work) {
  const PartAttention& p = work.p.problem;
  const Edge<T> edge(p, work.edge);
  const int64_t hidden = edge.hidden, strips = edge.strips, images = edge.images;
  const Matrix<const T> project = edge.project_weight.matrix();
  T* values = static_cast<T*>(work.p.normalized) + work.edge * images * strips;
  for (int64_t m = 0; m < kParts; ++m) {
    multiply_transposed<T, BYTES>(
        {images, hidden, project.stride}, {work.source + m * project.stride, kParts * project.stride},
        project.from(m * hidden, 0), edge.project_bias + m * hidden, {values + m * hidden, strips});
  }
  T* mean = static_cast<T*>(work.p.used) + work.edge * strips;
  T* variance = mean + p.edges * strips;
  if (p.batch) {
    batch_statistics(values, images, strips, mean, variance);
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
  Attention<T> attention(edge);
  attend<T, BYTES>(edge, values, attention);
  if (p.relu) rectify(attention.part);
  T* bias = static_cast<T*>(work.p.bias) + work.edge * edge.rows * edge.out;
  multiply_transposed<T, BYTES>({edge.rows, edge.out, edge.stride}, {attention.part.data(), edge.stride},
                                edge.fuse_weight.matrix(), nullptr, {bias, edge.out});
}

// sums (columns) = the sum of the rows of a matrix.
template <typename T>
ALWAYS_INLINE void add_rows(int64_t rows, int64_t columns, Matrix<const T> matrix, T* sums) {
  std::fill(sums, sums + columns, T(0));
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) sums[j] += matrix.row(i)[j];
  }
}

// out (rows, columns), contiguous, = a^T b, for a (depth, rows) and b (depth, columns).
template <typename T, int BYTES>
ALWAYS_INLINE void multiply_outer(ProductSize size, Matrix<const T> a, Matrix<const T> b, T* out) {
  const Unpadded<T> to(out, size.rows, size.columns);
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
  if (work.p.grads.affine != nullptr) {
    T* grad_scale = static_cast<T*>(work.p.grads.affine) + work.edge * strips;
    std::copy(dot.begin(), dot.end(), grad_scale);
    std::copy(sum.begin(), sum.end(), grad_scale + p.edges * strips);
  }
  const T weight = p.batch ? 1 / static_cast<T>(edge.images) : T(0);
  std::vector<T> slope(strips);
  for (int64_t j = 0; j < strips; ++j) {
    slope[j] =
        (edge.scale == nullptr ? T(1) : edge.scale[j]) / std::sqrt(variance[j] + static_cast<T>(p.eps));
    sum[j] *= weight;
    dot[j] *= weight;
  }
  for (int64_t row = 0; row < edge.rows; ++row) {
    const int64_t strip = row % kParts * hidden;
    for (int64_t j = 0; j < hidden; ++j) {
      T& value = df[row * edge.stride + j];
      value = slope[strip + j] * (value - sum[strip + j] - normalized[row * hidden + j] * dot[strip + j]);
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
  const int64_t source_stride = edge.project_weight.matrix().stride;
  for (int64_t m = 0; m < kParts; ++m) {
    const Matrix<const T> dv{&grads.f[m * stride], kParts * stride};
    multiply_outer<T, BYTES>({hidden, channels, edge.images}, dv,
                             {work.source + m * source_stride, kParts * source_stride},
                             of_edge(to.project_weight, edge.strips * channels) + m * hidden * channels);
    add_rows(edge.images, hidden, dv, of_edge(to.project_bias, edge.strips) + m * hidden);
  }
  const ProductSize square{hidden, hidden, rows};
  multiply_outer<T, BYTES>(square, matrix(grads.keys), matrix(attention.f),
                           of_edge(to.key_weight, hidden * hidden));
  add_rows(rows, hidden, matrix(grads.keys), of_edge(to.key_bias, hidden));
  multiply_outer<T, BYTES>(square, matrix(grads.queries), matrix(attention.f),
                           of_edge(to.query_weight, hidden * hidden));
  add_rows(rows, hidden, matrix(grads.queries), of_edge(to.query_bias, hidden));
  multiply_outer<T, BYTES>({edge.out, hidden, rows}, {grad, edge.out}, matrix(attention.part),
                           of_edge(to.fuse_weight, edge.out * hidden));
}

template <typename T, int BYTES>
ALWAYS_INLINE void backward(const EdgeBackward<T>& work) {
  const PartAttention& p = work.p.problem;
  const Edge<T> edge(p, work.edge);
  const int64_t hidden = edge.hidden, stride = edge.stride, rows = edge.rows, out = edge.out;
  const T* normalized = static_cast<const T*>(work.p.normalized) + work.edge * rows * hidden;
  const T* grad = static_cast<const T*>(work.p.grad) + work.edge * rows * out;
  Attention<T> attention(edge);
  attend<T, BYTES>(edge, normalized, attention);

  AttentionGradients<T> grads(edge);
  multiply<T, BYTES>({rows, stride, out}, {grad, out, 1}, edge.fuse_weight.matrix(),
                     {grads.part.data(), stride});
  if (p.relu) {
    for (size_t i = 0; i < grads.part.size(); ++i)
      grads.part[i] = attention.part[i] > 0 ? grads.part[i] : T(0);
  }
  for (int64_t row = 0; row < rows; row += kParts)
    attention_backward<T, BYTES>(attention, row, stride, grads);
  const Matrix<T> df{grads.f.data(), stride};
  multiply<T, BYTES>({rows, stride, hidden}, {grads.keys.data(), stride, 1}, edge.key_weight.matrix(), df,
                     true);
  multiply<T, BYTES>({rows, stride, hidden}, {grads.queries.data(), stride, 1}, edge.query_weight.matrix(),
                     df, true);
  norm_backward(work, edge, grads.f);

  const Matrix<const T> project = edge.project_weight.matrix();
  for (int64_t m = 0; m < kParts && work.grad_source != nullptr; ++m) {
    multiply<T, BYTES>({edge.images, project.stride, hidden}, {&grads.f[m * stride], kParts * stride, 1},
                       project.from(m * hidden, 0),
                       {work.grad_source + m * project.stride, kParts * project.stride});
  }
  if (work.p.grads.project_weight == nullptr) return;
  if (p.relu) rectify(attention.part);
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
