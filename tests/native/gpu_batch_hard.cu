// Runs batch_hard on a GPU without torch, for compute-sanitizer: exact buffers, sizes around tiles.
//   nvcc -std=c++20 -O2 -lineinfo -arch=sm_90 tests/native/gpu_batch_hard.cu -o gpu_batch_hard
#include <cstdio>
#include <vector>

#include "../../csrc/batch_hard/batch_hard.cu"

using namespace autoreid_fast;

namespace {

// A device buffer of `count` elements of its own allocation, so that memcheck sees every overrun.
template <typename T>
T* buffer(int64_t count, const std::vector<T>& content = {}) {
  T* data = nullptr;
  if (cudaMalloc(&data, count * sizeof(T)) != cudaSuccess) std::exit(2);
  if (!content.empty()) cudaMemcpy(data, content.data(), count * sizeof(T), cudaMemcpyHostToDevice);
  return data;
}

const char* run(int64_t count, int64_t dim, bool printed) {
  std::vector<float> x(count * dim);
  std::vector<int64_t> y(count);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 2654435761u % 1000) / 1000;
  for (int64_t i = 0; i < count; ++i) y[i] = i / 3;
  const auto features = buffer<float>(count * dim, x);
  const auto positive = buffer<int64_t>(count), negative = buffer<int64_t>(count);
  const auto positive_distance = buffer<float>(count), negative_distance = buffer<float>(count);
  const auto grad_loss = buffer<float>(1, {1.5f});
  const BatchHardForward forward{features,
                                 Element::float32,
                                 buffer<int64_t>(count, y),
                                 count,
                                 dim,
                                 dim,
                                 0.3,
                                 printed,
                                 buffer<float>(1),
                                 positive,
                                 negative,
                                 positive_distance,
                                 negative_distance,
                                 buffer<Slot>(2 * count + 1)};
  if (const char* error = batch_hard_cuda(forward, nullptr)) return error;
  const BatchHardBackward backward{grad_loss,
                                   features,
                                   Element::float32,
                                   count,
                                   dim,
                                   dim,
                                   positive,
                                   negative,
                                   positive_distance,
                                   negative_distance,
                                   0.3,
                                   printed,
                                   buffer<float>(count * dim)};
  if (const char* error = batch_hard_backward_cuda(backward, nullptr)) return error;
  const cudaError_t error = cudaDeviceSynchronize();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace

int main() {
  for (const int64_t count : {1, 7, 64, 130}) {
    for (const int64_t dim : {1, 33, 257}) {
      for (const bool printed : {false, true}) {
        if (const char* error = run(count, dim, printed)) return std::printf("%s\n", error), 1;
      }
    }
  }
  std::printf("batch_hard: 24 cases ran\n");
}
