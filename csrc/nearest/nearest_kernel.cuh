// Selecting the k smallest of a row of keys, device code; nearest.h has the maths. No torch header: the tests
// run this very text on the CPU (tests/native/simt.h).
//
// A block of 256 threads owns one row. Radix selection on the 64-bit words (key above index), 11 bits a pass
// from the top: count the words of each digit in shared memory, find the digit in which the k-th lies, go on
// within it, and stop as soon as a digit is wanted whole; distinct keys need 2-3 passes, a row of equal keys
// all 6, and ties are settled by index on the way. The k words are then gathered and sorted in shared memory
// (bitonic, at most 1024), so the order of the gathering leaves no trace: deterministic.
//   Traffic: 3-5 reads of the row and k words. Shared memory: 8 KB of counts, 8 KB of words.
#pragma once

#include "nearest.h"

namespace autoreid_fast {

constexpr int kSelectThreads = 256;
constexpr int kDigitBits = 11;
constexpr int kDigits = 1 << kDigitBits;
constexpr int kMostWords = 1024;  // a power of two from kMaxNearest on

// Block x: row x.
__device__ inline void nearest_row_block(const NearestBlock& p, const NearestOut& out) {
  constexpr int each = kDigits / kSelectThreads;
  __shared__ unsigned counts[kDigits];
  __shared__ unsigned sums[kSelectThreads];
  __shared__ Word words[kMostWords];
  __shared__ Word chosen;
  __shared__ unsigned left, gathered;
  __shared__ bool whole;
  const int thread = threadIdx.x;
  const int64_t query = blockIdx.x;
  const float* row = p.block + query * p.row_stride;
  if (thread == 0) {
    chosen = 0;
    left = static_cast<unsigned>(out.k);
    gathered = 0;
    whole = false;
  }

  int shift = 64;  // words whose bits from `shift` up are those of `chosen` are still undecided
  do {
    const int above = shift, bits = shift < kDigitBits ? shift : kDigitBits;
    shift -= bits;
    for (int d = thread; d < kDigits; d += kSelectThreads) counts[d] = 0;
    __syncthreads();
    for (int64_t column = thread; column < p.gallery_count; column += kSelectThreads) {
      const Word word = word_of(row[column], column);
      if (above == 64 || word >> above == chosen) {
        atomicAdd(counts + (word >> shift & ((1u << bits) - 1)), 1u);
      }
    }
    __syncthreads();
    unsigned sum = 0;
    for (int d = 0; d < each; ++d) sum += counts[thread * each + d];
    sums[thread] = sum;
    __syncthreads();
    if (thread == 0) {
      int digit = 0;
      unsigned rest = left;
      for (int t = 0; sums[t] < rest; ++t) {
        rest -= sums[t];
        digit += each;
      }
      while (counts[digit] < rest) rest -= counts[digit++];
      chosen = chosen << bits | static_cast<Word>(digit);
      left = rest;
      whole = counts[digit] == rest;
    }
    __syncthreads();
  } while (!whole);

  int size = 1;
  while (size < out.k) size *= 2;
  for (int t = thread; t < size; t += kSelectThreads) words[t] = ~Word{0};
  __syncthreads();
  for (int64_t column = thread; column < p.gallery_count; column += kSelectThreads) {
    const Word word = word_of(row[column], column);
    if (word >> shift <= chosen) words[atomicAdd(&gathered, 1u)] = word;
  }
  for (int width = 2; width <= size; width *= 2) {
    for (int reach = width / 2; reach > 0; reach /= 2) {
      __syncthreads();
      for (int t = thread; t < size / 2; t += kSelectThreads) {
        const int low = t / reach * 2 * reach + t % reach, high = low + reach;
        const bool rising = (low & width) == 0;
        const Word a = words[low], b = words[high];
        if ((a > b) == rising) {
          words[low] = b;
          words[high] = a;
        }
      }
    }
  }
  __syncthreads();
  for (int t = thread; t < out.k; t += kSelectThreads) {
    out.keys[query * out.k + t] = key_of(words[t]);
    out.indices[query * out.k + t] = index_of(words[t]);
  }
}

}  // namespace autoreid_fast
