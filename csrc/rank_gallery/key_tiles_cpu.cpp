// Keys by tiles on the CPU; key_tiles.h has the maths.
//
// Rows are packed into panels (queries 14, gallery 32 wide with AVX-512), transposed, so that one step of the
// micro-kernel is 14 broadcasts, 2 loads and 28 multiply-adds into 28 registers that never leave the core
// until the chain over all columns is done: the product is written once, to a buffer in L1, and becomes keys
// there. Blocks: 16 MB of packed queries and 16 MB of packed gallery at a time (L3 or memory: a panel of
// queries is read once per 256 gallery entries, 2 bytes a cycle), within these 512 KB of gallery (L2) against
// panel after panel of queries. Work: Q G D multiply-adds; packing is 1 / 4096 of it, keys 1 / D.
#include "key_tiles.h"

#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <memory>
#include <new>
#include <vector>

#include "../instruction_set.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define ALWAYS_INLINE inline __attribute__((always_inline))

namespace autoreid_fast {
namespace {

constexpr int64_t kBlockFloats = 4 << 20;   // 16 MB of packed rows
constexpr int64_t kCachedFloats = 1 << 17;  // 512 KB of packed gallery in L2
constexpr int64_t kTileColumns = 256;
constexpr int64_t kMostRows = 16, kMostColumns = 32;               // of any micro-kernel
constexpr float kNever = std::numeric_limits<float>::quiet_NaN();  // no comparison finds it

// out[i * stride + j] = sum over k of a[k * ROWS + i] * b[k * COLUMNS + j], one chain each.
using Dots = void (*)(const float* a, const float* b, int64_t dim, float* out, int64_t stride);

#if defined(__x86_64__)
AUTOREID_FAST_AVX512 void dots_avx512(const float* a, const float* b, int64_t dim, float* out,
                                      int64_t stride) {
  __m512 sums[14][2];
#pragma GCC unroll 14
  for (int i = 0; i < 14; ++i) sums[i][0] = sums[i][1] = _mm512_setzero_ps();
  for (int64_t k = 0; k < dim; ++k, a += 14, b += 32) {
    const __m512 left = _mm512_load_ps(b), right = _mm512_load_ps(b + 16);
#pragma GCC unroll 14
    for (int i = 0; i < 14; ++i) {
      const __m512 each = _mm512_set1_ps(a[i]);
      sums[i][0] = _mm512_fmadd_ps(each, left, sums[i][0]);
      sums[i][1] = _mm512_fmadd_ps(each, right, sums[i][1]);
    }
  }
#pragma GCC unroll 14
  for (int i = 0; i < 14; ++i) {
    _mm512_storeu_ps(out + i * stride, sums[i][0]);
    _mm512_storeu_ps(out + i * stride + 16, sums[i][1]);
  }
}

AUTOREID_FAST_AVX2 void dots_avx2(const float* a, const float* b, int64_t dim, float* out, int64_t stride) {
  __m256 sums[6][2];
#pragma GCC unroll 6
  for (int i = 0; i < 6; ++i) sums[i][0] = sums[i][1] = _mm256_setzero_ps();
  for (int64_t k = 0; k < dim; ++k, a += 6, b += 16) {
    const __m256 left = _mm256_load_ps(b), right = _mm256_load_ps(b + 8);
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) {
      const __m256 each = _mm256_broadcast_ss(a + i);
      sums[i][0] = _mm256_fmadd_ps(each, left, sums[i][0]);
      sums[i][1] = _mm256_fmadd_ps(each, right, sums[i][1]);
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < 6; ++i) {
    _mm256_storeu_ps(out + i * stride, sums[i][0]);
    _mm256_storeu_ps(out + i * stride + 8, sums[i][1]);
  }
}
#endif

void dots_portable(const float* a, const float* b, int64_t dim, float* out, int64_t stride) {
  float sums[4][8] = {};
  for (int64_t k = 0; k < dim; ++k, a += 4, b += 8) {
    for (int i = 0; i < 4; ++i) {
      for (int j = 0; j < 8; ++j) sums[i][j] = __builtin_fmaf(a[i], b[j], sums[i][j]);
    }
  }
  for (int i = 0; i < 4; ++i) std::copy_n(sums[i], 8, out + i * stride);
}

// Squared norms of a panel's rows; for the cosine the rows become unit vectors and the terms 0.
template <int WIDTH>
ALWAYS_INLINE void finish_panel(float* panel, int64_t dim, bool cosine, float* terms) {
  float sums[WIDTH] = {};
  for (int64_t k = 0; k < dim; ++k) {
    for (int j = 0; j < WIDTH; ++j) {
      sums[j] = __builtin_fmaf(panel[k * WIDTH + j], panel[k * WIDTH + j], sums[j]);
    }
  }
  for (int j = 0; j < WIDTH; ++j) terms[j] = cosine ? 0.0f : sums[j];
  if (!cosine) return;
  for (int j = 0; j < WIDTH; ++j) sums[j] = sums[j] > 0.0f ? std::sqrt(sums[j]) : 1.0f;
  for (int64_t k = 0; k < dim; ++k) {
    for (int j = 0; j < WIDTH; ++j) panel[k * WIDTH + j] /= sums[j];
  }
}

// Products to keys, in place.
ALWAYS_INLINE void finish_row(float* __restrict row, int64_t columns, bool cosine, float query_term,
                              const float* __restrict gallery_terms) {
  if (cosine) {
    for (int64_t j = 0; j < columns; ++j) row[j] = gallery_terms[j] - row[j];
  } else {
    for (int64_t j = 0; j < columns; ++j) {
      const float key = (query_term + gallery_terms[j]) - 2.0f * row[j];
      row[j] = key < 0.0f ? 0.0f : key;
    }
  }
}

// The code of one instruction set: panels of `rows` queries and `columns` gallery entries.
struct TileCode {
  int64_t rows, columns;
  Dots dots;
  void (*finish_queries)(float* panel, int64_t dim, bool cosine, float* terms);
  void (*finish_gallery)(float* panel, int64_t dim, bool cosine, float* terms);
  void (*finish_row)(float* row, int64_t columns, bool cosine, float query_term, const float* gallery_terms);
};

#define TILE_CODE(NAME, TARGET, ROWS, COLUMNS)                                                      \
  TARGET void finish_queries_##NAME(float* panel, int64_t dim, bool cosine, float* terms) {         \
    finish_panel<ROWS>(panel, dim, cosine, terms);                                                  \
  }                                                                                                 \
  TARGET void finish_gallery_##NAME(float* panel, int64_t dim, bool cosine, float* terms) {         \
    finish_panel<COLUMNS>(panel, dim, cosine, terms);                                               \
  }                                                                                                 \
  TARGET void finish_row_##NAME(float* row, int64_t columns, bool cosine, float query_term,         \
                                const float* gallery_terms) {                                       \
    finish_row(row, columns, cosine, query_term, gallery_terms);                                    \
  }                                                                                                 \
  constexpr TileCode k_##NAME = {                                                                   \
      ROWS, COLUMNS, dots_##NAME, finish_queries_##NAME, finish_gallery_##NAME, finish_row_##NAME}; \
  static_assert(ROWS <= kMostRows && COLUMNS <= kMostColumns && kTileColumns % COLUMNS == 0);

#if defined(__x86_64__)
TILE_CODE(avx512, AUTOREID_FAST_AVX512, 14, 32)
TILE_CODE(avx2, AUTOREID_FAST_AVX2, 6, 16)
#endif
TILE_CODE(portable, , 4, 8)

const TileCode& tile_code() {
#if defined(__x86_64__)
  if (instruction_set() == InstructionSet::avx512) return k_avx512;
  if (instruction_set() == InstructionSet::avx2) return k_avx2;
#endif
  return k_portable;
}

// `width` rows side by side: panel[k * width + j] = column k of row j; zeros past `count`.
template <typename T, typename RowOf>
void transpose(const Features& features, RowOf row_of, int64_t count, int64_t width, int64_t dim,
               float* panel) {
  constexpr int64_t step = 16;  // a step's part of the panel stays in L1
  for (int64_t k = 0; k < dim; k += step) {
    const int64_t stop = std::min(k + step, dim);
    for (int64_t j = 0; j < count; ++j) {
      const T* row = static_cast<const T*>(features.data) + row_of(j) * features.row_stride;
      for (int64_t at = k; at < stop; ++at) panel[at * width + j] = static_cast<float>(row[at]);
    }
    for (int64_t j = count; j < width; ++j) {
      for (int64_t at = k; at < stop; ++at) panel[at * width + j] = 0.0f;
    }
  }
}

template <typename RowOf>
void pack(const Features& features, RowOf row_of, int64_t count, int64_t width, int64_t dim, float* panel) {
  switch (features.element) {
    case Element::float16:
      return transpose<torch::headeronly::Half>(features, row_of, count, width, dim, panel);
    case Element::bfloat16:
      return transpose<torch::headeronly::BFloat16>(features, row_of, count, width, dim, panel);
    default:
      return transpose<float>(features, row_of, count, width, dim, panel);
  }
}

struct Aligned {
  void operator()(float* data) const { ::operator delete[](data, std::align_val_t(64)); }
};
using Buffer = std::unique_ptr<float[], Aligned>;

Buffer buffer_of(int64_t floats) {
  return Buffer(static_cast<float*>(::operator new[](floats * sizeof(float), std::align_val_t(64))));
}

int64_t divide_up(int64_t count, int64_t by) { return (count + by - 1) / by; }

// Consecutive rows as panels, with a term of the key for each.
struct Panels {
  int64_t width;
  int64_t capacity;  // rows
  Buffer data;
  std::vector<float> terms;
  int64_t first = 0, count = 0;

  Panels(int64_t width, int64_t dim, int64_t rows)
      : width(width),
        capacity(std::min(divide_up(rows, width) * width,
                          std::max<int64_t>(1, kBlockFloats / (width * dim)) * width)),
        data(buffer_of(capacity * dim)),
        terms(capacity) {}

  int64_t panels() const { return divide_up(count, width); }
};

void fill(Panels& panels, const KeyProblem& p, bool of_gallery, int64_t first, const TileCode& code) {
  const Features& features = of_gallery ? p.gallery : p.query;
  const auto finish = of_gallery ? code.finish_gallery : code.finish_queries;
  panels.first = first;
  panels.count = std::min(panels.capacity, features.count - first);
  torch::stable::parallel_for(0, panels.panels(), 4, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      const int64_t row = panel * panels.width, count = std::min(panels.width, panels.count - row);
      float* data = panels.data.get() + row * p.dim;
      pack(features, [&](int64_t j) { return first + row + j; }, count, panels.width, p.dim, data);
      finish(data, p.dim, p.cosine, panels.terms.data() + row);
      if (!of_gallery || p.valid == nullptr) continue;
      for (int64_t j = 0; j < count; ++j) {
        if (!p.valid[first + row + j]) panels.terms[row + j] = kNever;
      }
    }
  });
}

// A panel of queries against gallery panels begin .. end: one tile, visited.
void tile(const KeyProblem& p, const TileCode& code, const Panels& queries, int64_t query_panel,
          const Panels& gallery, int64_t begin, int64_t end, int64_t part, TileVisitor& visitor) {
  const int64_t row = query_panel * code.rows, rows = std::min(code.rows, queries.count - row);
  const int64_t column = begin * code.columns, columns = std::min(end * code.columns, gallery.count) - column;
  if (!visitor.wants(queries.first + row, rows, gallery.first + column, columns)) return;
  alignas(64) float keys[kMostRows * kTileColumns];
  const float* a = queries.data.get() + query_panel * code.rows * p.dim;
  for (int64_t panel = begin; panel < end; ++panel) {
    const float* b = gallery.data.get() + panel * code.columns * p.dim;
    code.dots(a, b, p.dim, keys + (panel - begin) * code.columns, kTileColumns);
  }
  for (int64_t i = 0; i < rows; ++i) {
    code.finish_row(keys + i * kTileColumns, columns, p.cosine, queries.terms[row + i],
                    gallery.terms.data() + column);
  }
  visitor.visit({part, queries.first + row, rows, gallery.first + column, columns, keys, kTileColumns});
}

int64_t thread_count() { return std::max<int64_t>(1, torch::stable::get_num_threads()); }

// One packed block of queries against one of the gallery. Threads take groups of query panels as they come.
void visit_block(const KeyProblem& p, const TileCode& code, const Panels& queries, const Panels& gallery,
                 int64_t parts, TileVisitor& visitor) {
  const int64_t query_panels = queries.panels(), gallery_panels = gallery.panels();
  const int64_t group = std::clamp<int64_t>(query_panels / (4 * thread_count()), 1, 8);
  const int64_t groups = divide_up(query_panels, group), per_part = divide_up(gallery_panels, parts);
  const int64_t step =
      std::clamp<int64_t>(kCachedFloats / (code.columns * p.dim), 1, kTileColumns / code.columns);
  std::atomic<int64_t> next = 0;
  torch::stable::parallel_for(0, std::min(thread_count(), groups * parts), 1, [&](int64_t, int64_t) {
    for (int64_t task = next++; task < groups * parts; task = next++) {
      const int64_t part = task / groups, first = task % groups * group;
      const int64_t last = std::min(first + group, query_panels);
      const int64_t stop = std::min((part + 1) * per_part, gallery_panels);
      for (int64_t at = part * per_part; at < stop; at += step) {
        for (int64_t panel = first; panel < last; ++panel) {
          tile(p, code, queries, panel, gallery, at, std::min(at + step, stop), part, visitor);
        }
      }
    }
  });
}

}  // namespace

int64_t key_parts(const KeyProblem& p) {
  const int64_t panels = std::max<int64_t>(1, divide_up(p.query.count, tile_code().rows));
  const int64_t most = std::max<int64_t>(1, divide_up(p.gallery.count, kTileColumns));
  const int64_t threads = thread_count();
  return threads == 1 ? 1 : std::min(divide_up(4 * threads, panels), most);
}

void visit_keys(const KeyProblem& p, int64_t parts, TileVisitor& visitor) {
  if (p.query.count == 0 || p.gallery.count == 0) return;
  const TileCode& code = tile_code();
  Panels queries(code.rows, p.dim, p.query.count), gallery(code.columns, p.dim, p.gallery.count);
  for (int64_t row = 0; row < p.query.count; row += queries.count) {
    fill(queries, p, false, row, code);
    for (int64_t column = 0; column < p.gallery.count; column += gallery.count) {
      fill(gallery, p, true, column, code);
      visit_block(p, code, queries, gallery, parts, visitor);
    }
  }
}

void pair_keys(const KeyProblem& p, const int64_t* offsets, const int64_t* matches, float* keys) {
  const TileCode& code = tile_code();
  torch::stable::parallel_for(0, p.query.count, 16, [&](int64_t begin, int64_t end) {
    const Buffer a = buffer_of(code.rows * p.dim), b = buffer_of(code.columns * p.dim);
    float query_terms[kMostRows], gallery_terms[kMostColumns], row[kMostRows * kMostColumns];
    for (int64_t i = begin; i < end; ++i) {
      if (offsets[i] == offsets[i + 1]) continue;
      pack(p.query, [&](int64_t) { return i; }, 1, code.rows, p.dim, a.get());
      code.finish_queries(a.get(), p.dim, p.cosine, query_terms);
      for (int64_t t = offsets[i]; t < offsets[i + 1]; t += code.columns) {
        const int64_t count = std::min(code.columns, offsets[i + 1] - t);
        pack(p.gallery, [&](int64_t j) { return matches[t + j]; }, count, code.columns, p.dim, b.get());
        code.finish_gallery(b.get(), p.dim, p.cosine, gallery_terms);
        code.dots(a.get(), b.get(), p.dim, row, code.columns);
        code.finish_row(row, count, p.cosine, query_terms[0], gallery_terms);
        std::copy_n(row, count, keys + t);
      }
    }
  });
}

}  // namespace autoreid_fast
