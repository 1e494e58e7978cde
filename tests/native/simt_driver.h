// For the programs around simt.h: element types on the CPU, and tensors from stdin and to stdout. Buffers
// have the exact size, so that AddressSanitizer reports an overrun; outputs start as NaN or -1.
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

// Reads the next `count` elements; ends the program with status 1 if they are missing.
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
// A buffer of NaN or -1.
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
// The number of blocks that cover `count` items, `per_block` in each.
inline unsigned blocks(int64_t count, int64_t per_block) {
  return static_cast<unsigned>((count + per_block - 1) / per_block);
}

}  // namespace simt
