// Runs csrc/batch_hard/batch_hard_kernel.cuh on the CPU: cases from stdin, results to stdout, both binary as
// test_simt_batch_hard.py packs them.
#include "../../native/simt_driver.h"

#include "../../../csrc/batch_hard/batch_hard_kernel.cuh"

namespace {

using namespace autoreid_fast;
using simt::blocks, simt::poisoned, simt::read, simt::write;

struct Case {
  int64_t count, dim, row_stride, offset, tile, printed, falling, half;
  double margin, grad_loss;
};

template <typename T>
void run(const Case& c) {
  const auto storage = read<T>(c.offset + (c.count - 1) * c.row_stride + c.dim);
  const auto labels = read<int64_t>(c.count);
  const T* features = storage.data() + c.offset;
  auto positive = poisoned<int64_t>(c.count), negative = poisoned<int64_t>(c.count);
  auto positive_distance = poisoned<float>(c.count), negative_distance = poisoned<float>(c.count);
  auto loss = poisoned<float>(1);
  auto grad = poisoned<T>(c.count * c.dim);
  std::vector<Slot> workspace(2 * c.count + 1);
  const float grad_loss = static_cast<float>(c.grad_loss);

  const BatchHardForward forward{.features = features,
                                 .element = {},
                                 .labels = labels.data(),
                                 .count = c.count,
                                 .dim = c.dim,
                                 .row_stride = c.row_stride,
                                 .margin = c.margin,
                                 .printed = c.printed != 0,
                                 .loss = loss.data(),
                                 .positive = positive.data(),
                                 .negative = negative.data(),
                                 .positive_distance = positive_distance.data(),
                                 .negative_distance = negative_distance.data(),
                                 .workspace = workspace.data()};
  const unsigned tiles = blocks(c.count, c.tile);
  simt::launch({tiles, tiles}, kThreads, c.falling,
               [&] { c.tile == 4 ? batch_hard_block<4, T>(forward) : batch_hard_block<8, T>(forward); });
  const BatchHardBackward backward{.grad_loss = &grad_loss,
                                   .features = features,
                                   .element = {},
                                   .count = c.count,
                                   .dim = c.dim,
                                   .row_stride = c.row_stride,
                                   .positive = positive.data(),
                                   .negative = negative.data(),
                                   .positive_distance = positive_distance.data(),
                                   .negative_distance = negative_distance.data(),
                                   .margin = c.margin,
                                   .printed = c.printed != 0,
                                   .grad_features = grad.data()};
  simt::launch({blocks(c.dim, kThreads * kSlice<T>), static_cast<unsigned>(c.count)}, kThreads, c.falling,
               [&] { batch_hard_backward_block<T>(backward); });
  write(loss);
  write(positive);
  write(negative);
  write(positive_distance);
  write(negative_distance);
  write(grad);
}

}  // namespace

int main() {
  simt::each_case<Case>([](const Case& c) { c.half ? run<Bfloat16>(c) : run<float>(c); });
}
