// Runs csrc/batch_hard/batch_hard_kernel.cuh on the CPU: cases from stdin, results to stdout, both binary as
// test_simt_batch_hard.py packs them.
#include "../../native/simt_driver.h"

#include "../../../csrc/batch_hard/batch_hard_kernel.cuh"

namespace {

using namespace autoreid_fast;
using simt::poisoned, simt::read, simt::write;

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

  const BatchHardForward forward{features,
                                 {},
                                 labels.data(),
                                 c.count,
                                 c.dim,
                                 c.row_stride,
                                 c.margin,
                                 c.printed != 0,
                                 loss.data(),
                                 positive.data(),
                                 negative.data(),
                                 positive_distance.data(),
                                 negative_distance.data(),
                                 workspace.data()};
  const unsigned tiles = static_cast<unsigned>((c.count + c.tile - 1) / c.tile);
  simt::launch({tiles, tiles}, kThreads, c.falling,
               [&] { c.tile == 4 ? batch_hard_block<4, T>(forward) : batch_hard_block<8, T>(forward); });
  const BatchHardBackward backward{&grad_loss,
                                   features,
                                   {},
                                   c.count,
                                   c.dim,
                                   c.row_stride,
                                   positive.data(),
                                   negative.data(),
                                   positive_distance.data(),
                                   negative_distance.data(),
                                   c.margin,
                                   c.printed != 0,
                                   grad.data()};
  const int64_t columns = kThreads * kSlice<T>;
  simt::launch({static_cast<unsigned>((c.dim + columns - 1) / columns), static_cast<unsigned>(c.count)},
               kThreads, c.falling, [&] { batch_hard_backward_block<T>(backward); });
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
