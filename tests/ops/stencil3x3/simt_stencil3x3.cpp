// Runs the device code of csrc/stencil3x3/ on the CPU: cases from stdin, results to stdout, both binary as
// test_simt_stencil3x3.py packs them.
#include "../../native/simt_driver.h"

#include "../../../csrc/stencil3x3/stencil3x3_backward_kernel.cuh"
#include "../../../csrc/stencil3x3/stencil3x3_kernel.cuh"

namespace {

using namespace autoreid_fast;
using simt::blocks, simt::poisoned, simt::read, simt::write;

struct Case {
  int64_t batch, channels, height, width, filters, dilated, stride, relu, pools, need_weights, shares,
      falling, half;
};

template <typename T>
T* data_or_null(std::vector<T>& data) {
  return data.empty() ? nullptr : data.data();
}

template <int S, typename T>
void run(const Case& c) {
  const Stencil3x3Shape shape{.element = {},
                              .batch = c.batch,
                              .channels = c.channels,
                              .height = c.height,
                              .width = c.width,
                              .filters = c.filters,
                              .dilated = static_cast<uint64_t>(c.dilated),
                              .stride = c.stride,
                              .out_height = ceil_div(c.height, c.stride),
                              .out_width = ceil_div(c.width, c.stride),
                              .relu = c.relu != 0};
  const size_t out = c.batch * c.channels * shape.out_height * shape.out_width;
  const size_t pooled = c.pools ? out : 0;
  auto x = read<T>(c.batch * c.channels * c.height * c.width);
  auto weights = read<T>(c.filters * c.channels * 9);
  auto grad_max = read<T>(pooled), grad_avg = read<T>(pooled), grad_filtered = read<T>(c.filters * out);
  auto max_pool = poisoned<T>(pooled), avg_pool = poisoned<T>(pooled),
       filtered = poisoned<T>(c.filters * out);
  auto grad_x = poisoned<T>(x.size());
  auto grad_weights = poisoned<T>(c.need_weights ? weights.size() : 0);
  auto slabs = poisoned<float>(c.need_weights ? c.shares * weights.size() : 0);

  const dim3 grid{static_cast<unsigned>(c.shares) * blocks(c.channels, kGroup)};
  const Stencil3x3Forward forward{.shape = shape,
                                  .x = x.data(),
                                  .weights = weights.data(),
                                  .max_pool = data_or_null(max_pool),
                                  .avg_pool = data_or_null(avg_pool),
                                  .filtered = filtered.data()};
  simt::launch(grid, kThreads, c.falling, [&] { stencil3x3_block<S, T>(forward); });
  const Stencil3x3Backward backward{.shape = shape,
                                    .grad_max = data_or_null(grad_max),
                                    .grad_avg = data_or_null(grad_avg),
                                    .grad_filtered = grad_filtered.data(),
                                    .x = x.data(),
                                    .weights = weights.data(),
                                    .grad_x = grad_x.data(),
                                    .grad_weights = data_or_null(grad_weights),
                                    .slabs = slabs.data()};
  simt::launch(grid, kThreads, c.falling, [&] {
    c.need_weights ? stencil3x3_backward_block<S, true, T>(backward)
                   : stencil3x3_backward_block<S, false, T>(backward);
  });
  if (c.need_weights) {
    simt::launch({blocks(weights.size(), kGroup)}, kThreads, c.falling,
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
  simt::each_case<Case>([](const Case& c) {
    if (c.half) {
      c.stride == 1 ? run<1, Bfloat16>(c) : run<2, Bfloat16>(c);
    } else {
      c.stride == 1 ? run<1, float>(c) : run<2, float>(c);
    }
  });
}
