// Keys in tiles on the CPU; key_tiles.h has the maths.
//
// Rows are packed into panels (queries 14 and gallery 32 wide with AVX-512) and transposed, so that one step
// of the inner loop is 14 broadcasts, 2 loads and 28 multiply-adds. The 28 sums stay in registers for the
// whole chain over the columns; products are written once, to a buffer in L1, and become keys there.
// Blocking: 16 MB of packed queries against 16 MB of packed gallery (L3 or memory: a panel of queries is read
// once per 256 gallery entries, 2 bytes per cycle), and within these, 512 KB of gallery (L2) against one
// panel of queries after the other. Packing is 1 / 4096 of the work, turning products into keys 1 / D of it.
#include "key_tiles.h"

#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <vector>

#include "../common/arithmetic.h"
#include "../common/instruction_set.h"
#include "../common/scratch.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace autoreid_fast {
namespace {

constexpr int64_t kBlockFloats = 4 << 20;   // 16 MB of packed rows
constexpr int64_t kCachedFloats = 1 << 17;  // 512 KB of packed gallery in L2
constexpr int64_t kTileColumns = 256;
constexpr float kNoKey = std::numeric_limits<float>::quiet_NaN();  // every comparison with it is false

// Rows of a panel of queries and of a panel of the gallery, by the bytes of a vector.
constexpr int query_width(int bytes) { return bytes == 64 ? 14 : bytes == 32 ? 6 : 4; }
constexpr int gallery_width(int bytes) { return bytes == 64 ? 32 : bytes == 32 ? 16 : 8; }
constexpr int64_t kMaxQueryWidth = query_width(64), kMaxGalleryWidth = gallery_width(64);
static_assert(kTileColumns % kMaxGalleryWidth == 0);

// out[i * stride + j] = sum over k of queries[k * query_width + i] * gallery[k * gallery_width + j], as one
// chain of fused multiply-adds each.
#if defined(__x86_64__)
TARGET_AVX512 void dots_avx512(const float* queries, const float* gallery, int64_t dim, float* out,
                               int64_t stride) {
  __m512 sums[14][2];
#pragma GCC unroll 14
  for (int i = 0; i < 14; ++i) sums[i][0] = sums[i][1] = _mm512_setzero_ps();
  for (int64_t k = 0; k < dim; ++k, queries += 14, gallery += 32) {
    const __m512 left = _mm512_load_ps(gallery), right = _mm512_load_ps(gallery + 16);
#pragma GCC unroll 14
    for (int i = 0; i < 14; ++i) {
      const __m512 query = _mm512_set1_ps(queries[i]);
      sums[i][0] = _mm512_fmadd_ps(query, left, sums[i][0]);
      sums[i][1] = _mm512_fmadd_ps(query, right, sums[i][1]);
    }
  }
#pragma GCC unroll 14
  for (int i = 0; i < 14; ++i) {
    _mm512_storeu_ps(out + i * stride, sums[i][0]);
    _mm512_storeu_ps(out + i * stride + 16, sums[i][1]);
  }
}

TARGET_AVX2 void dots_avx2(const float* queries, const float* gallery, int64_t dim, float* out,
                           int64_t stride) {
  __m256 sums[6][2];
#pragma GCC unroll 6
  for (int i = 0; i < 6; ++i) sums[i][0] = sums[i][1] = _mm256_setzero_ps();
  for (int64_t k = 0; k < dim; ++k, queries += 6, gallery += 16) {
    const __m256 left = _mm256_load_ps(gallery), right = _mm256_load_ps(gallery + 8);
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) {
      const __m256 query = _mm256_broadcast_ss(queries + i);
      sums[i][0] = _mm256_fmadd_ps(query, left, sums[i][0]);
      sums[i][1] = _mm256_fmadd_ps(query, right, sums[i][1]);
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < 6; ++i) {
    _mm256_storeu_ps(out + i * stride, sums[i][0]);
    _mm256_storeu_ps(out + i * stride + 8, sums[i][1]);
  }
}
#endif

void dots_portable(const float* queries, const float* gallery, int64_t dim, float* out, int64_t stride) {
  float sums[4][8] = {};
  for (int64_t k = 0; k < dim; ++k, queries += 4, gallery += 8) {
    for (int i = 0; i < 4; ++i) {
      for (int j = 0; j < 8; ++j) sums[i][j] = __builtin_fmaf(queries[i], gallery[j], sums[i][j]);
    }
  }
  for (int i = 0; i < 4; ++i) std::copy_n(sums[i], 8, out + i * stride);
}

// Terms of a panel's rows: squared norms; for the cosine the rows become unit vectors and the terms 0.
template <bool GALLERY>
struct FinishPanel {
  template <int BYTES>
  ALWAYS_INLINE static void run(float* panel, int64_t dim, bool cosine, float* terms) {
    constexpr int width = GALLERY ? gallery_width(BYTES) : query_width(BYTES);
    float sums[width] = {};
    for (int64_t k = 0; k < dim; ++k) {
      for (int j = 0; j < width; ++j) {
        sums[j] = __builtin_fmaf(panel[k * width + j], panel[k * width + j], sums[j]);
      }
    }
    for (int j = 0; j < width; ++j) terms[j] = cosine ? 0.0f : sums[j];
    if (!cosine) return;
    for (int j = 0; j < width; ++j) sums[j] = sums[j] > 0.0f ? std::sqrt(sums[j]) : 1.0f;
    for (int64_t k = 0; k < dim; ++k) {
      for (int j = 0; j < width; ++j) panel[k * width + j] /= sums[j];
    }
  }
};

// Products to keys, in place.
struct FinishRow {
  template <int BYTES>
  ALWAYS_INLINE static void run(float* __restrict row, int64_t columns, bool cosine, float query_term,
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
};

// The functions and panel widths of the instruction set in use.
struct TileCode {
  int64_t query_width, gallery_width;
  decltype(&dots_portable) dots;
  decltype(variant<FinishPanel<false>>()) finish_queries;
  decltype(variant<FinishPanel<true>>()) finish_gallery;
  decltype(variant<FinishRow>()) finish_row;
};

TileCode tile_code() {
  const int bytes = vector_bytes(instruction_set());
#if defined(__x86_64__)
  const auto dots = choose(dots_avx512, dots_avx2, dots_portable);
#else
  const auto dots = dots_portable;
#endif
  return {query_width(bytes),           gallery_width(bytes), dots, variant<FinishPanel<false>>(),
          variant<FinishPanel<true>>(), variant<FinishRow>()};
}

// Writes `width` rows side by side: panel[k * width + j] = column k of row row_of(j); zeros from j = count
// on.
template <typename T, typename RowOf>
void transpose(const Features& features, RowOf row_of, int64_t count, int64_t width, int64_t dim,
               float* panel) {
  constexpr int64_t step = 16;  // columns whose part of the panel stays in L1
  for (int64_t k = 0; k < dim; k += step) {
    const int64_t stop = std::min(k + step, dim);
    for (int64_t j = 0; j < count; ++j) {
      const T* row = static_cast<const T*>(features.data) + row_of(j) * features.row_stride;
      for (int64_t column = k; column < stop; ++column) {
        panel[column * width + j] = static_cast<float>(row[column]);
      }
    }
    for (int64_t j = count; j < width; ++j) {
      for (int64_t column = k; column < stop; ++column) panel[column * width + j] = 0.0f;
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

// Consecutive rows, packed into panels, with the term of each row's keys.
struct Panels {
  int64_t width;
  int64_t capacity;  // rows
  AlignedBuffer<float> data;
  std::vector<float> terms;
  int64_t first = 0, count = 0;

  Panels(int64_t width, int64_t dim, int64_t rows)
      : width(width),
        capacity(std::min(ceil_div(rows, width) * width,
                          std::max<int64_t>(1, kBlockFloats / (width * dim)) * width)),
        data(aligned_buffer<float>(capacity * dim)),
        terms(capacity) {}

  int64_t panels() const { return ceil_div(count, width); }
};

// Packs the rows from `first` on, as many as the panels hold.
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
        if (!p.valid[first + row + j]) panels.terms[row + j] = kNoKey;
      }
    }
  });
}

// Computes and visits one tile: a panel of queries against gallery panels [begin, end).
void visit_tile(const KeyProblem& p, const TileCode& code, const Panels& queries, int64_t query_panel,
                const Panels& gallery, int64_t begin, int64_t end, int64_t part, TileVisitor& visitor) {
  const int64_t row = query_panel * code.query_width;
  const int64_t rows = std::min(code.query_width, queries.count - row);
  const int64_t column = begin * code.gallery_width;
  const int64_t columns = std::min(end * code.gallery_width, gallery.count) - column;
  if (!visitor.wants(queries.first + row, rows, gallery.first + column, columns)) return;
  alignas(64) float keys[kMaxQueryWidth * kTileColumns];
  for (int64_t panel = begin; panel < end; ++panel) {
    code.dots(queries.data.get() + row * p.dim, gallery.data.get() + panel * code.gallery_width * p.dim,
              p.dim, keys + (panel - begin) * code.gallery_width, kTileColumns);
  }
  for (int64_t i = 0; i < rows; ++i) {
    code.finish_row(keys + i * kTileColumns, columns, p.cosine, queries.terms[row + i],
                    gallery.terms.data() + column);
  }
  visitor.visit({part, queries.first + row, rows, gallery.first + column, columns, keys, kTileColumns});
}

int64_t thread_count() { return std::max<int64_t>(1, torch::stable::get_num_threads()); }

// Visits the tiles of one packed block of queries against one of the gallery. A task is a group of query
// panels and a part of the gallery; each thread takes the next task when it is done with one.
void visit_block(const KeyProblem& p, const TileCode& code, const Panels& queries, const Panels& gallery,
                 int64_t parts, TileVisitor& visitor) {
  const int64_t query_panels = queries.panels(), gallery_panels = gallery.panels();
  const int64_t group = std::clamp<int64_t>(query_panels / (4 * thread_count()), 1, 8);
  const int64_t groups = ceil_div(query_panels, group), per_part = ceil_div(gallery_panels, parts);
  const int64_t step =
      std::clamp<int64_t>(kCachedFloats / (code.gallery_width * p.dim), 1, kTileColumns / code.gallery_width);
  std::atomic<int64_t> next = 0;
  torch::stable::parallel_for(0, std::min(thread_count(), groups * parts), 1, [&](int64_t, int64_t) {
    for (int64_t task = next++; task < groups * parts; task = next++) {
      const int64_t part = task / groups, first = task % groups * group;
      const int64_t last = std::min(first + group, query_panels);
      const int64_t stop = std::min((part + 1) * per_part, gallery_panels);
      for (int64_t begin = part * per_part; begin < stop; begin += step) {
        for (int64_t panel = first; panel < last; ++panel) {
          visit_tile(p, code, queries, panel, gallery, begin, std::min(begin + step, stop), part, visitor);
        }
      }
    }
  });
}

}  // namespace

int64_t key_parts(const KeyProblem& p) {
  const int64_t query_panels = std::max<int64_t>(1, ceil_div(p.query.count, tile_code().query_width));
  const int64_t tiles = std::max<int64_t>(1, ceil_div(p.gallery.count, kTileColumns));
  const int64_t threads = thread_count();
  return threads == 1 ? 1 : std::min(ceil_div(4 * threads, query_panels), tiles);
}

void visit_keys(const KeyProblem& p, int64_t parts, TileVisitor& visitor) {
  if (p.query.count == 0 || p.gallery.count == 0) return;
  const TileCode code = tile_code();
  Panels queries(code.query_width, p.dim, p.query.count), gallery(code.gallery_width, p.dim, p.gallery.count);
  for (int64_t row = 0; row < p.query.count; row += queries.count) {
    fill(queries, p, false, row, code);
    for (int64_t column = 0; column < p.gallery.count; column += gallery.count) {
      fill(gallery, p, true, column, code);
      visit_block(p, code, queries, gallery, parts, visitor);
    }
  }
}

void pair_keys(const KeyProblem& p, const int64_t* offsets, const int64_t* matches, float* keys) {
  const TileCode code = tile_code();
  torch::stable::parallel_for(0, p.query.count, 16, [&](int64_t begin, int64_t end) {
    const auto query_panel = aligned_buffer<float>(code.query_width * p.dim);
    const auto gallery_panel = aligned_buffer<float>(code.gallery_width * p.dim);
    float query_terms[kMaxQueryWidth], gallery_terms[kMaxGalleryWidth];
    float dots[kMaxQueryWidth * kMaxGalleryWidth];
    for (int64_t i = begin; i < end; ++i) {
      if (offsets[i] == offsets[i + 1]) continue;
      pack(p.query, [&](int64_t) { return i; }, 1, code.query_width, p.dim, query_panel.get());
      code.finish_queries(query_panel.get(), p.dim, p.cosine, query_terms);
      for (int64_t t = offsets[i]; t < offsets[i + 1]; t += code.gallery_width) {
        const int64_t count = std::min(code.gallery_width, offsets[i + 1] - t);
        pack(
            p.gallery, [&](int64_t j) { return matches[t + j]; }, count, code.gallery_width, p.dim,
            gallery_panel.get());
        code.finish_gallery(gallery_panel.get(), p.dim, p.cosine, gallery_terms);
        code.dots(query_panel.get(), gallery_panel.get(), p.dim, dots, code.gallery_width);
        code.finish_row(dots, count, p.cosine, query_terms[0], gallery_terms);
        std::copy_n(dots, count, keys + t);
      }
    }
  });
}

}  // namespace autoreid_fast
