// What the programs around simt.h share: the element types as the host has them, and tensors from stdin and
// to stdout. Buffers have the exact size, so that AddressSanitizer sees an overrun; outputs begin as NaN or
// -1.
#pragma once

#include <algorithm>

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

namespace simt {

// The next `count` elements; the program ends with 1 where they are not there.
template <typename T>
std::vector<T> read(int64_t count) {
  std::vector<T> data(static_cast<size_t>(count));
  if (count > 0 && std::fread(data.data(), sizeof(T), data.size(), stdin) != data.size()) std::exit(1);
  return data;
}
template <typename T>
void write(const std::vector<T>& data) {
  if (!data.empty()) std::fwrite(data.data(), sizeof(T), data.size(), stdout);
}
template <typename T>
std::vector<T> poisoned(int64_t count) {
  std::vector<T> data(static_cast<size_t>(count));
  std::fill_n(reinterpret_cast<unsigned char*>(data.data()), data.size() * sizeof(T), 0xff);
  return data;
}
// Calls run(case) for each case on stdin.
template <typename Case, typename Run>
void each_case(const Run& run) {
  for (Case c; std::fread(&c, sizeof(c), 1, stdin) == 1;) run(c);
}
inline unsigned blocks(int64_t work, int64_t each) { return static_cast<unsigned>((work + each - 1) / each); }

}  // namespace simt
