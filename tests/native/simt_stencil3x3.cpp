// Runs the device code of csrc/stencil3x3/ on the CPU: cases from stdin, results to stdout, both binary as
// test_simt_stencil3x3.py packs them. Buffers have the exact size, so that AddressSanitizer sees an overrun,
// and outputs start as NaN.
#include "simt.h"

namespace autoreid_fast {

struct Bfloat16 {
  uint16_t bits;
};
inline float to_float(float value) { return value; }
inline float to_float(Bfloat16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}
template <typename T>
T from_float(float value);
template <>
inline float from_float<float>(float value) {
  return value;
}
template <>
inline Bfloat16 from_float<Bfloat16>(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

}  // namespace autoreid_fast

#include "../../csrc/stencil3x3/stencil3x3_backward_kernel.cuh"
#include "../../csrc/stencil3x3/stencil3x3_kernel.cuh"

namespace {

using namespace autoreid_fast;

struct Case {
  int64_t batch, channels, height, width, filters, dilated, stride, relu, pools, need_weights, shares,
      falling, half;
};

template <typename T>
std::vector<T> input(size_t count) {
  std::vector<T> data(count);
  if (count > 0 && std::fread(data.data(), sizeof(T), count, stdin) != count) std::exit(1);
  return data;
}
template <typename T>
void write(const std::vector<T>& data) {
  if (!data.empty()) std::fwrite(data.data(), sizeof(T), data.size(), stdout);
}
template <typename T>
std::vector<T> poisoned(size_t count) {
  std::vector<T> data(count);
  std::fill_n(reinterpret_cast<unsigned char*>(data.data()), count * sizeof(T), 0xff);
  return data;
}
template <typename T>
T* data_or_null(std::vector<T>& data) {
  return data.empty() ? nullptr : data.data();
}

template <int S, typename T>
void run(const Case& c) {
  const Stencil3x3Shape shape{{},
                              c.batch,
                              c.channels,
                              c.height,
                              c.width,
                              c.filters,
                              static_cast<uint64_t>(c.dilated),
                              c.stride,
                              (c.height + c.stride - 1) / c.stride,
                              (c.width + c.stride - 1) / c.stride,
                              c.relu != 0};
  const size_t out = c.batch * c.channels * shape.out_height * shape.out_width;
  const size_t pooled = c.pools ? out : 0;
  auto x = input<T>(c.batch * c.channels * c.height * c.width);
  auto weights = input<T>(c.filters * c.channels * 9);
  auto grad_max = input<T>(pooled), grad_avg = input<T>(pooled), grad_filtered = input<T>(c.filters * out);
  auto max_pool = poisoned<T>(pooled), avg_pool = poisoned<T>(pooled),
       filtered = poisoned<T>(c.filters * out);
  auto grad_x = poisoned<T>(x.size());
  auto grad_weights = poisoned<T>(c.need_weights ? weights.size() : 0);
  auto slabs = poisoned<float>(c.need_weights ? c.shares * weights.size() : 0);

  const unsigned groups = static_cast<unsigned>((c.channels + kGroup - 1) / kGroup);
  const dim3 grid{static_cast<unsigned>(c.shares) * groups};
  const Stencil3x3Forward forward{
      shape, x.data(), weights.data(), data_or_null(max_pool), data_or_null(avg_pool), filtered.data()};
  simt::launch(grid, kThreads, c.falling, [&] { stencil3x3_block<S, T>(forward); });
  const Stencil3x3Backward backward{
      shape,          data_or_null(grad_max), data_or_null(grad_avg),     grad_filtered.data(), x.data(),
      weights.data(), grad_x.data(),          data_or_null(grad_weights), slabs.data()};
  simt::launch(grid, kThreads, c.falling, [&] {
    c.need_weights ? stencil3x3_backward_block<S, true, T>(backward)
                   : stencil3x3_backward_block<S, false, T>(backward);
  });
  if (c.need_weights) {
    simt::launch({static_cast<unsigned>((weights.size() + kGroup - 1) / kGroup)}, kThreads, c.falling,
                 [&] { stencil3x3_add_slabs_block<T>(backward, c.shares); });
  }
  write(max_pool);
  write(avg_pool);
  write(filtered);
  write(grad_x);
  write(grad_weights);
}

}  // namespace

int main() {
  for (Case c; std::fread(&c, sizeof(c), 1, stdin) == 1;) {
    if (c.half) {
      c.stride == 1 ? run<1, Bfloat16>(c) : run<2, Bfloat16>(c);
    } else {
      c.stride == 1 ? run<1, float>(c) : run<2, float>(c);
    }
  }
  return 0;
}
