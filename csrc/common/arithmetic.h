// Integer arithmetic for host and device code.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define HOST_DEVICE __host__ __device__
#else
#define HOST_DEVICE
#endif

namespace autoreid_fast {

// The least integer >= a / b, for a >= 0 and b > 0.
HOST_DEVICE constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The least multiple of `multiple` that is >= count.
HOST_DEVICE constexpr int64_t round_up(int64_t count, int64_t multiple) {
  return ceil_div(count, multiple) * multiple;
}

}  // namespace autoreid_fast
