// The loops over a tile, vectorised; tiles.h says what each computes. Sums are kept in float for 16 terms and
// then in double.
#include <cstring>

#include "../instruction_set.h"
#include "tiles.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))

namespace autoreid_fast::mixed_op {
namespace {

constexpr int64_t kTerms = 16;  // added in float before they go to double

template <typename T, int BYTES>
using Vector __attribute__((vector_size(BYTES))) = T;

// The first `count` elements at `from`, the rest as they are.
template <typename V, typename T>
ALWAYS_INLINE void load(V& vector, const T* from, int64_t count) {
  if (count >= static_cast<int64_t>(sizeof(V) / sizeof(T))) {
    std::memcpy(&vector, from, sizeof(V));
  } else {
    std::memcpy(&vector, from, count * sizeof(T));
  }
}
// The numbers of lanes j.. of a channel's (or of all channels') parameter.
template <bool LAST, typename V, typename T>
ALWAYS_INLINE void parameter(V& vector, const T* values, int64_t j) {
  if constexpr (LAST) {
    std::memcpy(&vector, values + j, sizeof(V));
  } else {
    vector = *values - V{};
  }
}

template <typename T, int BYTES>
using Wide = Vector<double, BYTES / sizeof(T) * sizeof(double)>;

// sums += vector, lane by lane.
template <typename T, int BYTES>
ALWAYS_INLINE void add_lanes(const Vector<T, BYTES>& vector, double* sums) {
  Wide<T, BYTES> wide;
  std::memcpy(&wide, sums, sizeof(wide));
  wide += __builtin_convertvector(vector, Wide<T, BYTES>);
  std::memcpy(sums, &wide, sizeof(wide));
}

// The sums of f(i) over the elements i of a piece, for QUANTITIES f at once. term(i, count, j, out) makes the
// terms of a vector of `count` elements from i on, whose lanes begin at j; 0 past the count.
// channels_last: sums[q * stride + lane] += those of each lane; else sums[q * stride] = those of all.
template <int QUANTITIES, typename T, int BYTES, bool LAST, typename Term>
ALWAYS_INLINE void reduce(int64_t length, int64_t period, int64_t stride, double* sums, const Term& term) {
  using V = Vector<T, BYTES>;
  constexpr int64_t width = BYTES / sizeof(T);
  constexpr int unroll = QUANTITIES == 1 ? 4 : 2;
  static_assert(kLanes % (unroll * width) == 0);
  const int64_t step = LAST ? period : unroll * width;
  const int64_t full = length / step * step;
  Wide<T, BYTES> all[QUANTITIES] = {};
  for (int64_t j = 0; full > 0 && j < step; j += unroll * width) {
    for (int64_t first = j; first < full; first += kTerms * step) {
      const int64_t end = std::min(full, first + kTerms * step);
      V partial[QUANTITIES][unroll] = {};
      for (int64_t i = first; i < end; i += step) {
#pragma GCC unroll 4
        for (int u = 0; u < unroll; ++u) {
          V terms[QUANTITIES];
          term(i + u * width, width, j + u * width, terms);
#pragma GCC unroll 4
          for (int q = 0; q < QUANTITIES; ++q) partial[q][u] += terms[q];
        }
      }
#pragma GCC unroll 4
      for (int q = 0; q < QUANTITIES; ++q) {
#pragma GCC unroll 4
        for (int u = 0; u < unroll; ++u) {
          if constexpr (LAST) {
            add_lanes<T, BYTES>(partial[q][u], sums + q * stride + j + u * width);
          } else {
            all[q] += __builtin_convertvector(partial[q][u], Wide<T, BYTES>);
          }
        }
      }
    }
  }
  for (int64_t i = full; i < length; i += width) {
    V terms[QUANTITIES];
    term(i, length - i, i - full, terms);
#pragma GCC unroll 4
    for (int q = 0; q < QUANTITIES; ++q) {
      if constexpr (LAST) {
        add_lanes<T, BYTES>(terms[q], sums + q * stride + i - full);
      } else {
        all[q] += __builtin_convertvector(terms[q], Wide<T, BYTES>);
      }
    }
  }
  if constexpr (!LAST) {
    for (int q = 0; q < QUANTITIES; ++q) {
      double lanes[width];
      std::memcpy(lanes, &all[q], sizeof(lanes));
      for (int64_t half = width / 2; half > 0; half /= 2) {
        for (int64_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
      }
      sums[q * stride] = lanes[0];
    }
  }
}

template <typename T, int BYTES, bool LAST>
ALWAYS_INLINE void moments(const Step<T>& s) {
  using V = Vector<T, BYTES>;
  reduce<2, T, BYTES, LAST>(s.tile.length, s.period, s.stride, s.sums,
                            [&](int64_t i, int64_t count, int64_t j, V* terms) INLINE_LAMBDA {
                              V mean;
                              parameter<LAST>(mean, s.mean, j);
                              V z = mean;
                              load(z, s.z + i, count);
                              terms[0] = z - mean;
                              terms[1] = terms[0] * terms[0];
                            });
}

template <typename T, int BYTES, bool LAST>
ALWAYS_INLINE void total(const Step<T>& s) {
  using V = Vector<T, BYTES>;
  reduce<1, T, BYTES, LAST>(s.tile.length, s.period, s.stride, s.sums,
                            [&](int64_t i, int64_t count, int64_t, V* terms) INLINE_LAMBDA {
                              terms[0] = V{};
                              load(terms[0], s.grad + i, count);
                            });
}

template <typename T, int BYTES, bool LAST>
ALWAYS_INLINE void dot(const Step<T>& s) {
  using V = Vector<T, BYTES>;
  reduce<1, T, BYTES, LAST>(s.tile.length, s.period, s.stride, s.sums,
                            [&](int64_t i, int64_t count, int64_t j, V* terms) INLINE_LAMBDA {
                              V mean, grad{};
                              parameter<LAST>(mean, s.mean, j);
                              V z = mean;
                              load(z, s.z + i, count);
                              load(grad, s.grad + i, count);
                              terms[0] = grad * (z - mean);
                            });
}

// out = f(i) over the elements of a piece: value(i, count, held, result) with the parameters that
// parameters(j, held) loads.
template <typename T, int BYTES, bool LAST, typename Parameters, typename Value>
ALWAYS_INLINE void map(const Step<T>& s, const Parameters& parameters, const Value& value) {
  using V = Vector<T, BYTES>;
  constexpr int64_t width = BYTES / sizeof(T);
  constexpr int unroll = 4;
  const int64_t length = s.tile.length, step = LAST ? s.period : unroll * width;
  const int64_t full = length / step * step;
  for (int64_t j = 0; full > 0 && j < step; j += unroll * width) {
    V held[unroll][4] = {};
#pragma GCC unroll 4
    for (int u = 0; u < unroll; ++u) parameters(j + u * width, held[u]);
    for (int64_t i = j; i < full; i += step) {
#pragma GCC unroll 4
      for (int u = 0; u < unroll; ++u) {
        V result;
        value(i + u * width, width, held[u], result);
        std::memcpy(s.out + i + u * width, &result, sizeof(V));
      }
    }
  }
  for (int64_t i = full; i < length; i += width) {
    V held[4] = {}, result;
    const int64_t count = length - i;
    parameters(i - full, held);
    value(i, count, held, result);
    if (count >= width) {
      std::memcpy(s.out + i, &result, sizeof(V));
    } else {
      std::memcpy(s.out + i, &result, count * sizeof(T));
    }
  }
}

template <typename T, int BYTES, bool LAST, bool FIRST>
ALWAYS_INLINE void add(const Step<T>& s) {
  using V = Vector<T, BYTES>;
  map<T, BYTES, LAST>(
      s,
      [&](int64_t j, V* held) INLINE_LAMBDA {
        parameter<LAST>(held[0], s.mean, j);
        parameter<LAST>(held[1], s.scale, j);
      },
      [&](int64_t i, int64_t count, const V* held, V& result) INLINE_LAMBDA {
        V z{};
        result = V{};
        load(z, s.z + i, count);
        if constexpr (!FIRST) load(result, s.out + i, count);
        result += held[1] * (z - held[0]);
      });
}

template <typename T, int BYTES, bool LAST>
ALWAYS_INLINE void gradient(const Step<T>& s) {
  using V = Vector<T, BYTES>;
  map<T, BYTES, LAST>(
      s,
      [&](int64_t j, V* held) INLINE_LAMBDA {
        parameter<LAST>(held[0], s.mean, j);
        parameter<LAST>(held[1], s.scale, j);
        parameter<LAST>(held[2], s.slope, j);
        parameter<LAST>(held[3], s.offset, j);
      },
      [&](int64_t i, int64_t count, const V* held, V& result) INLINE_LAMBDA {
        V z{}, grad{};
        load(z, s.z + i, count);
        load(grad, s.grad + i, count);
        result = held[1] * grad + held[2] * (z - held[0]) + held[3];
      });
}

template <typename T, int BYTES, bool LAST>
ALWAYS_INLINE void scaled(const Step<T>& s) {
  using V = Vector<T, BYTES>;
  map<T, BYTES, LAST>(
      s, [&](int64_t j, V* held) INLINE_LAMBDA { parameter<LAST>(held[1], s.scale, j); },
      [&](int64_t i, int64_t count, const V* held, V& result) INLINE_LAMBDA {
        V grad{};
        load(grad, s.grad + i, count);
        result = held[1] * grad;
      });
}

template <typename T, int BYTES, bool LAST>
ALWAYS_INLINE void run_piece(Loop loop, const Step<T>& s) {
  switch (loop) {
    case Loop::moments:
      return moments<T, BYTES, LAST>(s);
    case Loop::total:
      return total<T, BYTES, LAST>(s);
    case Loop::dot:
      return dot<T, BYTES, LAST>(s);
    case Loop::add_first:
      return add<T, BYTES, LAST, true>(s);
    case Loop::add:
      return add<T, BYTES, LAST, false>(s);
    case Loop::gradient:
      return gradient<T, BYTES, LAST>(s);
    case Loop::scaled:
      return scaled<T, BYTES, LAST>(s);
  }
}

// All pieces of a tile; those of a contiguous one have a channel each.
template <typename T, int BYTES, bool LAST>
ALWAYS_INLINE void run(Loop loop, Step<T> s) {
  run_piece<T, BYTES, LAST>(loop, s);
  for (int64_t piece = 1; piece < s.tile.pieces; ++piece) {
    for (const T** tensor : {&s.z, &s.grad}) {
      if (*tensor != nullptr) *tensor += s.tile.length;
    }
    if (s.out != nullptr) s.out += s.tile.length;
    for (const T** values : {&s.mean, &s.scale, &s.slope, &s.offset}) {
      if (*values != nullptr) ++*values;
    }
    if (s.sums != nullptr) ++s.sums;
    run_piece<T, BYTES, LAST>(loop, s);
  }
}

template <typename T, bool LAST>
AUTOREID_FAST_AVX512 void run_avx512(Loop loop, const Step<T>& s) {
  run<T, 64, LAST>(loop, s);
}
template <typename T, bool LAST>
AUTOREID_FAST_AVX2 void run_avx2(Loop loop, const Step<T>& s) {
  run<T, 32, LAST>(loop, s);
}
template <typename T, bool LAST>
void run_portable(Loop loop, const Step<T>& s) {
  run<T, 16, LAST>(loop, s);
}

}  // namespace

template <typename T>
Runner<T> runner(bool last) {
  switch (instruction_set()) {
    case InstructionSet::avx512:
      return last ? run_avx512<T, true> : run_avx512<T, false>;
    case InstructionSet::avx2:
      return last ? run_avx2<T, true> : run_avx2<T, false>;
    default:
      return last ? run_portable<T, true> : run_portable<T, false>;
  }
}

template Runner<float> runner<float>(bool);
template Runner<double> runner<double>(bool);

}  // namespace autoreid_fast::mixed_op
