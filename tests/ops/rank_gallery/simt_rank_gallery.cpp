// Runs the device code of csrc/rank_gallery and csrc/nearest on the CPU: cases from stdin, results to stdout,
// both binary as test_simt_rank_gallery.py packs them.
#include <memory>

#include "../../native/simt_driver.h"

#include "../../../csrc/nearest/nearest_kernel.cuh"
#include "../../../csrc/rank_gallery/rank_gallery_kernel.cuh"

namespace {

using namespace autoreid_fast;
using simt::blocks, simt::poisoned, simt::read, simt::write;

struct Case {
  int64_t queries, entries, dim, query_stride, gallery_stride, offset;
  int64_t cosine, half, falling, k, gallery_offset, matches, excluded, thresholds;
};

struct StoreSink {
  float* block;
  int64_t row_stride;
  auto row(int64_t query) const {
    return [row = block + query * row_stride](int64_t column, float key) { row[column] = key; };
  }
};

template <typename T>
void run(const Case& c) {
  const auto query = read<T>(c.offset + (c.queries - 1) * c.query_stride + c.dim);
  const auto gallery = read<T>(c.offset + (c.entries - 1) * c.gallery_stride + c.dim);
  const auto bytes = read<unsigned char>(c.entries);
  const auto match_offsets = read<int64_t>(c.queries + 1), matches = read<int64_t>(c.matches);
  const auto excluded_offsets = read<int64_t>(c.queries + 1), excluded = read<int64_t>(c.excluded);
  const auto offsets = read<int64_t>(c.queries + 1);
  const auto keys = read<float>(c.thresholds);
  const auto indices = read<int64_t>(c.thresholds);
  const std::unique_ptr<bool[]> valid(new bool[c.entries]);
  for (int64_t j = 0; j < c.entries; ++j) valid[j] = bytes[j] != 0;
  const auto launch = [&](unsigned x, unsigned y, const std::function<void()>& body) {
    if (x > 0) simt::launch({x, y}, kKeyThreads, c.falling != 0, body);
  };

  const KeyProblem problem{{query.data() + c.offset, {}, c.queries, c.query_stride},
                           {gallery.data() + c.offset, {}, c.entries, c.gallery_stride},
                           c.dim,
                           c.cosine != 0,
                           nullptr};
  auto query_terms = poisoned<float>(c.queries), gallery_terms = poisoned<float>(c.entries);
  launch(blocks(c.queries, kKeyThreads), 1,
         [&] { key_terms_thread<T>(problem.query, c.dim, problem.cosine, query_terms.data()); });
  launch(blocks(c.entries, kKeyThreads), 1,
         [&] { key_terms_thread<T>(problem.gallery, c.dim, problem.cosine, gallery_terms.data()); });
  const KeyTerms terms{query_terms.data(), gallery_terms.data()};
  const unsigned rows = blocks(c.queries, kKeyTile), columns = blocks(c.entries, kKeyTile);

  auto match_keys = poisoned<float>(c.matches);
  const MatchKeys pairs{problem, match_offsets.data(), matches.data(), c.matches, match_keys.data()};
  launch(blocks(c.matches, kKeyThreads), 1, [&] { match_key_thread<T>(pairs, terms); });

  std::vector<int64_t> counts(c.thresholds), given_counts(c.thresholds);
  Counting counting{.query_count = c.queries,
                    .valid = valid.get(),
                    .excluded_offsets = excluded_offsets.data(),
                    .excluded = excluded.data(),
                    .offsets = offsets.data(),
                    .keys = keys.data(),
                    .indices = indices.data(),
                    .threshold_count = c.thresholds,
                    .excluded_count = c.excluded,
                    .gallery_offset = c.gallery_offset,
                    .counts = counts.data()};
  launch(rows, columns, [&] { key_tile_block<T>(problem, terms, CountSink{counting}); });
  launch(blocks(c.excluded, kKeyThreads), 1, [&] { take_back_thread<T>(problem, terms, counting); });
  launch(blocks(c.queries, kKeyThreads), 1, [&] { add_up_thread(counting); });

  const int64_t stride = c.entries + 3;
  auto block = poisoned<float>((c.queries - 1) * stride + c.entries);
  launch(rows, columns, [&] { key_tile_block<T>(problem, terms, StoreSink{block.data(), stride}); });
  const KeyBlock given{block.data(), c.queries, c.entries, stride};
  counting.counts = given_counts.data();
  launch(static_cast<unsigned>(c.queries), blocks(c.entries, kBlockEntries),
         [&] { count_closer_given_block(given, counting); });
  launch(blocks(c.excluded, kKeyThreads), 1, [&] { take_back_given_thread(given, counting); });
  launch(blocks(c.queries, kKeyThreads), 1, [&] { add_up_thread(counting); });

  auto nearest_keys = poisoned<float>(c.queries * c.k);
  auto nearest_indices = poisoned<int64_t>(c.queries * c.k);
  const NearestOut out{c.k, nearest_keys.data(), nearest_indices.data()};
  launch(static_cast<unsigned>(c.queries), 1, [&] { nearest_row_block(given, out); });

  write(match_keys);
  write(counts);
  write(given_counts);
  write(nearest_keys);
  write(nearest_indices);
}

}  // namespace

int main() {
  simt::each_case<Case>([](const Case& c) { c.half ? run<Bfloat16>(c) : run<float>(c); });
}
