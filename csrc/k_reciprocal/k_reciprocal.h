// k-reciprocal re-ranking (Zhong et al., CVPR 2017): parameters and launches, one struct a step.
//
// N images: queries, then gallery. Maths, for features x and d_ij = |x_i - x_j|^2:
//   L_i = i, then the others by (d_ij, j)                      neighbors: the first of L_i, and max_j d_ij
//   R(i, k) = {j in L_i[:k + 1] : i in L_j[:k + 1]}
//   R*(i) = R(i, k1) + every R(j, k1 / 2), j in R(i, k1), with 3 |R(j, k1 / 2) * R(i, k1)| > 2 |R(j, k1 / 2)|
//   V_ij = exp(-d_ij / max_h d_ih) for j in R*(i), else 0; each row scaled to sum 1         rows: V as CSR
//   V_i <- mean of V_j over the k2 first j of L_i                                           expand
//   the gallery's rows of V by column                                                       invert
//   t = sum_j min(V_qj, V_gj)
//   final_qg = lambda d_qg / max_h d_qh + (1 - lambda) (1 - t / (2 - t))                    block
// Nothing depends on the number of threads or the size of a block.
#pragma once

#include <cstdint>
#include <vector>

namespace autoreid_fast {

struct Csr {
  const int64_t* offsets;  // (rows + 1,) row r is entries offsets[r] to offsets[r + 1]
  const int32_t* columns;  // ascending in a row
  const float* values;
};

struct Neighbors {
  const float* features;  // (total, dim) contiguous
  int64_t total;          // N
  int64_t dim;            // D
  int64_t count;          // 1..N
  int32_t* neighbors;     // (total, count)
  float* farthest;        // (total,)
};

struct ReciprocalRows {
  const float* features;     // (total, dim) contiguous
  const int32_t* neighbors;  // (total, count)
  const float* farthest;     // (total,)
  int64_t total;
  int64_t dim;
  int64_t count;
  int64_t width;  // k1 + 1, at most count
  int64_t half;   // neighbours of the half sets, at most width
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
  int64_t first;          // rows first..total are inverted, numbered from 0 on
  int64_t* offsets;       // (total + 1,)
  int32_t* inverse_rows;  // (entries of those rows,)
  float* values;
};

struct Block {
  const float* queries;   // (count, dim) contiguous
  const float* gallery;   // (size, dim) contiguous
  const float* farthest;  // (count,)
  int64_t count;
  int64_t size;
  int64_t dim;
  Csr rows;     // of the queries
  Csr inverse;  // columns are gallery rows here
  float lambda;
  float* final;  // (count, size). CUDA: holds the products of queries and gallery before
};

// On the CPU, rows whose number of entries is known only once they are computed: chunks of kChunk rows.
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

// On CUDA a row is sorted in shared memory, which bounds k1 and k2: the public face keeps to it.
constexpr int kMaxRowKeys = 2048;  // width (1 + half); half is then at most 32
constexpr int kMaxSumKeys = 4096;  // entries of the k2 rows of one image
constexpr int64_t kTooLong = -(int64_t{1} << 40);

struct RowsOut {
  int64_t* offsets;  // (total + 1,)
  int32_t* columns;  // (entries,); null while counting
  float* values;
};

struct BlockScratch {
  float* query_norms;    // (count,)
  float* gallery_norms;  // (size,)
  float* overlaps;       // (count, size)
};

// On `stream` (a cudaStream_t). They return nullptr, or CUDA's words for what went wrong. Counting waits for
// the device: `entries` is how many the rows have, on the host; negative if a row was too long.
const char* k_reciprocal_rows_count_cuda(const ReciprocalRows& p, uint8_t* mutual /* (total, half) */,
                                         const RowsOut& out, int64_t* entries, void* stream);
const char* k_reciprocal_rows_fill_cuda(const ReciprocalRows& p, const uint8_t* mutual, const RowsOut& out,
                                        void* stream);
const char* k_reciprocal_expand_count_cuda(const Expand& p, const RowsOut& out, int64_t* entries,
                                           void* stream);
const char* k_reciprocal_expand_fill_cuda(const Expand& p, const RowsOut& out, void* stream);
const char* k_reciprocal_block_cuda(const Block& p, const BlockScratch& scratch, void* stream);

}  // namespace autoreid_fast
