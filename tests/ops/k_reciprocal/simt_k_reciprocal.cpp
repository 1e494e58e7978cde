// Runs csrc/k_reciprocal/k_reciprocal_kernel.cuh on the CPU: cases from stdin, results to stdout, both binary
// as test_simt_k_reciprocal.py packs them.
#include "../../native/simt_driver.h"

inline int __popc(unsigned bits) { return std::popcount(bits); }

#include "../../../csrc/k_reciprocal/k_reciprocal_kernel.cuh"

namespace {

using namespace autoreid_fast;
using simt::blocks, simt::poisoned, simt::read, simt::write;

struct Case {
  int64_t total, dim, count, width, half, k2, entries, queries, query_entries, inverse_entries, falling;
  double lambda;
};

struct Rows {
  std::vector<int64_t> offsets;
  std::vector<int32_t> columns;
  std::vector<float> values;

  static Rows read(int64_t rows, int64_t entries) {
    return {simt::read<int64_t>(rows + 1), simt::read<int32_t>(entries), simt::read<float>(entries)};
  }
  Csr csr() const { return {offsets.data(), columns.data(), values.data()}; }
};

// count(out), then a scan, then fill(out), as k_reciprocal.cu launches them; written to stdout.
template <typename Count, typename Fill>
void two_passes(const Case& c, const Count& count, const Fill& fill) {
  auto offsets = poisoned<int64_t>(c.total + 1);
  RowsOut out{offsets.data(), nullptr, nullptr};
  const dim3 grid{static_cast<unsigned>(c.total)};
  simt::launch(grid, kThreads, c.falling, [&] { count(out); });
  simt::launch({1}, kThreads, c.falling, [&] { scan_block(offsets.data(), c.total); });
  write(offsets);
  if (offsets.back() < 0) return;
  auto columns = poisoned<int32_t>(offsets.back());
  auto values = poisoned<float>(offsets.back());
  out.columns = columns.data();
  out.values = values.data();
  simt::launch(grid, kThreads, c.falling, [&] { fill(out); });
  write(columns);
  write(values);
}

void run(const Case& c) {
  const auto features = read<float>(c.total * c.dim);
  const auto neighbors = read<int32_t>(c.total * c.count);
  const auto farthest = read<float>(c.total);
  const Rows v = Rows::read(c.total, c.entries);
  const Rows query_rows = Rows::read(c.queries, c.query_entries);
  const Rows inverse = Rows::read(c.total, c.inverse_entries);
  const int64_t size = c.total - c.queries;
  auto final_distance = read<float>(c.queries * size);

  const ReciprocalRows rows{.features = features.data(),
                            .neighbors = neighbors.data(),
                            .farthest = farthest.data(),
                            .total = c.total,
                            .dim = c.dim,
                            .count = c.count,
                            .width = c.width,
                            .half = c.half};
  auto mutual = poisoned<uint8_t>(c.total * c.half);
  simt::launch({blocks(c.total * c.half, kThreads)}, kThreads, c.falling,
               [&] { half_sets_block(rows, mutual.data()); });
  two_passes(
      c, [&](const RowsOut& out) { reciprocal_rows_block<false>(rows, mutual.data(), out); },
      [&](const RowsOut& out) { reciprocal_rows_block<true>(rows, mutual.data(), out); });

  const Expand expand{v.csr(), neighbors.data(), c.total, c.count, c.k2};
  two_passes(
      c, [&](const RowsOut& out) { expand_block<false>(expand, out); },
      [&](const RowsOut& out) { expand_block<true>(expand, out); });

  auto query_norms = poisoned<float>(c.queries), gallery_norms = poisoned<float>(size);
  auto overlaps = poisoned<float>(c.queries * size);
  const float* gallery = features.data() + c.queries * c.dim;
  simt::launch({blocks(c.queries, kWarps)}, kThreads, c.falling,
               [&] { norms_block(features.data(), c.queries, c.dim, query_norms.data()); });
  simt::launch({blocks(size, kWarps)}, kThreads, c.falling,
               [&] { norms_block(gallery, size, c.dim, gallery_norms.data()); });
  const Block block{.queries = features.data(),
                    .gallery = gallery,
                    .farthest = farthest.data(),
                    .count = c.queries,
                    .size = size,
                    .dim = c.dim,
                    .rows = query_rows.csr(),
                    .inverse = inverse.csr(),
                    .lambda_value = static_cast<float>(c.lambda),
                    .final_distance = final_distance.data()};
  const BlockScratch scratch{query_norms.data(), gallery_norms.data(), overlaps.data()};
  simt::launch({static_cast<unsigned>(c.queries)}, kThreads, c.falling, [&] { final_block(block, scratch); });
  write(final_distance);
}

}  // namespace

int main() { simt::each_case<Case>(run); }
