// k-reciprocal re-ranking (Zhong et al., CVPR 2017): parameters and launches, one struct per step.
//
// Maths, for features x of N images (queries, then gallery) and d_ij = |x_i - x_j|^2:
//   L_i = i, then the other images by (d_ij, j)
//   R(i, k) = {j in L_i[:k + 1] : i in L_j[:k + 1]}
//   R*(i) = R(i, k1) and all R(j, k1 / 2) with j in R(i, k1), 3 |R(j, k1 / 2) * R(i, k1)| > 2 |R(j, k1 / 2)|
// where * is the intersection. The steps:
//   neighbors   the first `count` of L_i, and max_j d_ij
//   rows        V_ij = exp(-d_ij / max_h d_ih) for j in R*(i), else 0; each row scaled to sum 1; V as CSR
//   expand      V_i <- mean of V_j over the first k2 images j of L_i
//   invert      the rows of the gallery in V by column
//   block       t = sum_j min(V_qj, V_gj)
//               final_qg = lambda d_qg / max_h d_qh + (1 - lambda) (1 - t / (2 - t))
// The results do not depend on the number of threads or the size of a block.
//
// Work: neighbors N^2 D / 2 multiply-adds, block Q G D; the other steps are small beside these. Bytes: the
// features and O(N k) numbers; nothing of N x N is stored.
#pragma once

#include <cstdint>
#include <vector>

namespace autoreid_fast {

struct Csr {
  const int64_t* offsets;  // (rows + 1,) row r has the entries offsets[r] to offsets[r + 1] - 1
  const int32_t* columns;  // (entries,) ascending in a row
  const float* values;     // (entries,)
};

struct Neighbors {
  const float* features;  // (total, dim) contiguous
  int64_t total;          // N
  int64_t dim;            // D
  int64_t count;          // 1..N
  int32_t* neighbors;     // (total, count)
  float* farthest;        // (total,) the greatest distance of each image
};

struct ReciprocalRows {
  const float* features;     // (total, dim) contiguous
  const int32_t* neighbors;  // (total, count)
  const float* farthest;     // (total,)
  int64_t total;
  int64_t dim;
  int64_t count;
  int64_t width;  // k1 + 1, at most count
  int64_t half;   // neighbours that R(j, k1 / 2) chooses from, j included; at most width
};

struct Expand {
  Csr rows;                  // V, total rows
  const int32_t* neighbors;  // (total, count)
  int64_t total;
  int64_t count;
  int64_t k2;  // at most count
};

struct Invert {
  Csr rows;  // V, total rows
  int64_t total;
  int64_t first;          // rows first to total - 1 are inverted, and numbered from 0 on
  int64_t* offsets;       // (total + 1,) column c has the entries offsets[c] to offsets[c + 1] - 1
  int32_t* inverse_rows;  // (entries,) ascending in a column
  float* values;          // (entries,)
};

struct Block {
  const float* queries;   // (count, dim) contiguous
  const float* gallery;   // (size, dim) contiguous
  const float* farthest;  // (count,) of the queries
  int64_t count;          // queries
  int64_t size;           // gallery images
  int64_t dim;
  Csr rows;     // V of the queries, (count, N)
  Csr inverse;  // V of the gallery by column: the transpose, (N, size)
  float lambda_value;
  float* final_distance;  // (count, size) result; CUDA: on entry the products of queries and gallery
};

// Sparse rows on the CPU. The number of entries is known only after they are computed, so each chunk of
// kChunk rows has its own.
struct SparseRows {
  static constexpr int64_t kChunk = 256;
  struct Chunk {
    std::vector<int32_t> columns;
    std::vector<float> values;
  };
  std::vector<int64_t> offsets;  // (rows + 1,)
  std::vector<Chunk> chunks;
};

void k_reciprocal_neighbors_cpu(const Neighbors& p);
SparseRows k_reciprocal_rows_cpu(const ReciprocalRows& p);
SparseRows k_reciprocal_expand_cpu(const Expand& p);
void k_reciprocal_invert_cpu(const Invert& p);
void k_reciprocal_block_cpu(const Block& p);

// On CUDA a row is sorted in shared memory, which limits k1 and k2; autoreid_fast/ops/k_reciprocal/ refuses
// larger ones.
constexpr int kMaxRowKeys = 2048;  // of width (1 + half)
constexpr int kMaxHalf = 32;       // of half: one lane of a warp per neighbour
constexpr int kMaxSumKeys = 4096;  // of the entries of the k2 rows of one image
// Length of a row with more: it makes the offsets behind the row negative.
constexpr int64_t kTooLong = -(int64_t{1} << 40);

struct RowsOut {
  int64_t* offsets;  // (total + 1,)
  int32_t* columns;  // (entries,) null while counting
  float* values;     // (entries,) null while counting
};

struct BlockScratch {
  float* query_norms;    // (count,)
  float* gallery_norms;  // (size,)
  float* overlaps;       // (count, size)
};

// On `stream` (a cudaStream_t). They return CUDA's error text, or nullptr on success. A row is computed
// twice: to count its entries and to write them. Counting waits for the GPU and sets `entries`, on the host,
// to the number of entries of all rows, negative if a row was too long.
const char* k_reciprocal_rows_count_cuda(const ReciprocalRows& p, uint8_t* mutual /* (total, half) */,
                                         const RowsOut& out, int64_t* entries, void* stream);
const char* k_reciprocal_rows_fill_cuda(const ReciprocalRows& p, const uint8_t* mutual, const RowsOut& out,
                                        void* stream);
const char* k_reciprocal_expand_count_cuda(const Expand& p, const RowsOut& out, int64_t* entries,
                                           void* stream);
const char* k_reciprocal_expand_fill_cuda(const Expand& p, const RowsOut& out, void* stream);
const char* k_reciprocal_block_cuda(const Block& p, const BlockScratch& scratch, void* stream);

}  // namespace autoreid_fast
