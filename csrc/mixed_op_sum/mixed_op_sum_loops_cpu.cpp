// The loops over a tile, vectorised; tiles.h defines each. Sums are kept in the tensors' type for 16 terms,
// then in double.
#include "../common/vector.h"
#include "tiles.h"

namespace autoreid_fast::mixed_op {
namespace {

constexpr int64_t kTerms = 16;  // added in the tensors' type before they are added in double

// A parameter of lanes j..: values[j].. with channels last, else the one value of the channel.
template <bool LAST, typename V, typename T>
ALWAYS_INLINE void parameter(V& vector, const T* values, int64_t j) {
  if constexpr (LAST) {
    load(vector, values + j);
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
  load(wide, sums);
  wide += __builtin_convertvector(vector, Wide<T, BYTES>);
  store(sums, wide);
}

// Sums of QUANTITIES functions over the elements of a piece. term(i, count, j, terms) sets the terms of a
// vector of `count` elements from i on, whose lanes begin at j; terms past the count are 0. LAST (channels
// last): sums[q * stride + lane] += the sum of each lane; else sums[q * stride] = the sum of all.
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
      store(lanes, all[q]);
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
                              load_first(z, s.z + i, count);
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
                              load_first(terms[0], s.grad + i, count);
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
                              load_first(z, s.z + i, count);
                              load_first(grad, s.grad + i, count);
                              terms[0] = grad * (z - mean);
                            });
}

// out[i] = a function of the elements i of a piece: parameters(j, held) loads the parameters of lanes j..
// into `held`, value(i, count, held, result) computes a vector of `count` elements from i on.
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
        store(s.out + i + u * width, result);
      }
    }
  }
  for (int64_t i = full; i < length; i += width) {
    V held[4] = {}, result;
    const int64_t count = length - i;
    parameters(i - full, held);
    value(i, count, held, result);
    store_first(s.out + i, result, count);
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
        load_first(z, s.z + i, count);
        if constexpr (!FIRST) load_first(result, s.out + i, count);
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
        load_first(z, s.z + i, count);
        load_first(grad, s.grad + i, count);
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
        load_first(grad, s.grad + i, count);
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

// A loop over all pieces of a tile. Where there are several, each has its own channel.
template <typename T, bool LAST>
struct RunLoop {
  template <int BYTES>
  ALWAYS_INLINE static void run(Loop loop, const Step<T>& step) {
    Step<T> s = step;
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
};

}  // namespace

template <typename T>
Runner<T> runner(bool channels_last) {
  return channels_last ? variant<RunLoop<T, true>>() : variant<RunLoop<T, false>>();
}

template Runner<float> runner<float>(bool);
template Runner<double> runner<double>(bool);

}  // namespace autoreid_fast::mixed_op
