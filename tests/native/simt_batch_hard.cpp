// Runs csrc/batch_hard/batch_hard_kernel.cuh on the CPU: cases from stdin, results to stdout, both binary as
// test_simt_batch_hard.py packs them. Buffers have the exact size, so that AddressSanitizer sees an overrun,
// and outputs start as NaN or -1.
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

#include "../../csrc/batch_hard/batch_hard_kernel.cuh"

namespace {

using namespace autoreid_fast;

struct Case {
  int64_t count, dim, row_stride, offset, tile, printed, falling, half;
  double margin, grad_loss;
};

template <typename T>
bool read(T* data, size_t count) {
  return std::fread(data, sizeof(T), count, stdin) == count;
}
template <typename T>
void write(const std::vector<T>& data) {
  std::fwrite(data.data(), sizeof(T), data.size(), stdout);
}
template <typename T>
std::vector<T> poisoned(size_t count) {
  std::vector<T> data(count);
  std::fill_n(reinterpret_cast<unsigned char*>(data.data()), count * sizeof(T), 0xff);
  return data;
}

template <typename T>
int run(const Case& c) {
  std::vector<T> storage(c.offset + (c.count - 1) * c.row_stride + c.dim);
  std::vector<int64_t> labels(c.count);
  if (!read(storage.data(), storage.size()) || !read(labels.data(), labels.size())) return 1;
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
  return 0;
}

}  // namespace

int main() {
  for (Case c; read(&c, 1);) {
    if (const int error = c.half ? run<Bfloat16>(c) : run<float>(c)) return error;
  }
  return 0;
}
