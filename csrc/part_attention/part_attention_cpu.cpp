// part_attention on the CPU: the means by (image, strip), then each edge on its own; for the gradient the
// edges, then the strips. The order of a sum does not depend on the number of threads.
#include <torch/csrc/stable/ops.h>

#include <algorithm>

#include "edge.h"
#include "small_matrices.h"

namespace autoreid_fast {
namespace {

using namespace part;

constexpr int64_t kGrain = 1 << 15;   // elements that are worth a thread
constexpr int64_t kTerms = 16;        // pixels added in x's type before they are added in double
constexpr int64_t kFillBytes = 4096;  // copied at a time

// A strip of an image: `pixels` pixels from `first_pixel` on.
struct Strip {
  Strip(const PartAttention& p, int64_t image, int64_t m) {
    const int64_t first = m * p.height / kParts, last = (m + 1) * p.height / kParts;
    first_pixel = (image * p.height + first) * p.width;
    pixels = (last - first) * p.width;
  }
  int64_t first_pixel, pixels;
};

// sums (C) += the sums of `pixels` pixels of C channels.
template <typename T>
struct AddPixels {
  template <int BYTES>
  ALWAYS_INLINE static void run(const T* x, int64_t pixels, int64_t channels, double* sums) {
    using V = Vector<T, BYTES>;
    constexpr int64_t lanes = BYTES / sizeof(T);
    for (int64_t first = 0; first < pixels; first += kTerms) {
      const T* from = x + first * channels;
      const int64_t terms = std::min(kTerms, pixels - first);
      int64_t c = 0;
      for (; c + lanes <= channels; c += lanes) {
        V partial[2] = {};
        for (int64_t p = 0; p < terms; ++p) {
          V values;
          load(values, from + p * channels + c);
          partial[p % 2] += values;
        }
        partial[0] += partial[1];
        for (int64_t lane = 0; lane < lanes; ++lane) sums[c + lane] += partial[0][lane];
      }
      for (; c < channels; ++c) {
        T partial = 0;
        for (int64_t p = 0; p < terms; ++p) partial += from[p * channels + c];
        sums[c] += partial;
      }
    }
  }
};

// Calls body(image, m) for each strip m of each image, in parallel.
template <typename Body>
void for_strips(const PartAttention& p, const Body& body) {
  const int64_t elements = p.height * p.width * p.channels / kParts;
  const int64_t grain = std::max<int64_t>(1, kGrain / elements);
  torch::stable::parallel_for(0, p.images * kParts, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i / kParts, i % kParts);
  });
}

// Calls body(edge) for each edge, in parallel.
template <typename Body>
void for_edges(const PartAttention& p, const Body& body) {
  const int64_t work = p.images * kParts * p.hidden * (p.channels + 2 * p.hidden + p.out_channels);
  const int64_t grain = std::max<int64_t>(1, 2 * kGrain / work);
  torch::stable::parallel_for(0, p.edges, grain, [&](int64_t begin, int64_t end) {
    for (int64_t e = begin; e < end; ++e) body(e);
  });
}

template <typename T>
void strip_means(const PartAttention& p, const T* x, T* means) {
  const auto add_pixels = variant<AddPixels<T>>();
  for_strips(p, [&](int64_t image, int64_t m) {
    const Strip strip(p, image, m);
    std::vector<double> sums(p.channels);
    add_pixels(x + strip.first_pixel * p.channels, strip.pixels, p.channels, sums.data());
    T* mean = means + (image * kParts + m) * p.channels;
    for (int64_t c = 0; c < p.channels; ++c) mean[c] = static_cast<T>(sums[c] / strip.pixels);
  });
}

// ReLU(means) (N, M, C), rows padded.
template <typename T>
std::vector<T> rectify_means(const PartAttention& p, const T* means) {
  const int64_t stride = padded(p.channels), rows = p.images * kParts;
  std::vector<T> rectified_means(rows * stride);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t c = 0; c < p.channels; ++c) {
      rectified_means[row * stride + c] = std::max(means[row * p.channels + c], T(0));
    }
  }
  return rectified_means;
}

template <typename T>
void forward(const PartAttentionForward& p) {
  T* means = static_cast<T*>(p.means);
  strip_means(p.problem, static_cast<const T*>(p.x), means);
  const std::vector<T> rectified_means = rectify_means(p.problem, means);
  for_edges(p.problem, [&](int64_t e) { run_edge<T>(EdgeForward<T>{p, rectified_means.data(), e}); });
}

// Writes the same vector of channels to all pixels.
template <typename T>
void fill_pixels(const std::vector<T>& value, int64_t pixels, T* to) {
  const int64_t channels = static_cast<int64_t>(value.size());
  const int64_t bytes = channels * static_cast<int64_t>(sizeof(T));
  const int64_t block = std::min(pixels, std::max<int64_t>(1, kFillBytes / bytes));
  for (int64_t pixel = 0; pixel < block; ++pixel) {
    std::copy(value.begin(), value.end(), to + pixel * channels);
  }
  for (int64_t done = block; done < pixels; done += block) {
    std::memcpy(to + done * channels, to, std::min(block, pixels - done) * bytes);
  }
}

template <typename T>
void backward(const PartAttentionBackward& p) {
  const PartAttention& problem = p.problem;
  const T* means = static_cast<const T*>(p.means);
  const int64_t stride = padded(problem.channels), plane = problem.images * kParts * stride;
  const std::vector<T> rectified_means = rectify_means(problem, means);
  std::vector<T> edge_grads(p.grad_x == nullptr ? 0 : problem.edges * plane);
  for_edges(problem, [&](int64_t e) {
    run_edge<T>(EdgeBackward<T>{p, rectified_means.data(), e,
                                p.grad_x == nullptr ? nullptr : &edge_grads[e * plane]});
  });
  if (p.grad_x == nullptr) return;
  for_strips(problem, [&](int64_t image, int64_t m) {
    const Strip strip(problem, image, m);
    const int64_t row = image * kParts + m;
    std::vector<T> value(problem.channels);
    for (int64_t e = 0; e < problem.edges; ++e) {
      for (int64_t c = 0; c < problem.channels; ++c) value[c] += edge_grads[e * plane + row * stride + c];
    }
    for (int64_t c = 0; c < problem.channels; ++c) {
      value[c] = means[row * problem.channels + c] > 0 ? value[c] / static_cast<T>(strip.pixels) : T(0);
    }
    fill_pixels(value, strip.pixels, static_cast<T*>(p.grad_x) + strip.first_pixel * problem.channels);
  });
}

}  // namespace

void part_attention_cpu(const PartAttentionForward& p) {
  dispatch_cpu(p.problem.element, [&]<typename T>() { forward<T>(p); });
}

void part_attention_backward_cpu(const PartAttentionBackward& p) {
  dispatch_cpu(p.problem.element, [&]<typename T>() { backward<T>(p); });
}

}  // namespace autoreid_fast
