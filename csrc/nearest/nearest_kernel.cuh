// Selecting the k smallest keys of a row, device code; nearest.h has the maths. Free of torch headers: the
// tests also run this code on the CPU (tests/native/simt.h).
//
// A block of 256 threads owns one row. Radix selection on the 64-bit words (key above index), 11 bits per
// pass from the top: count the words of each digit in shared memory, find the digit that contains the k-th
// word, continue within it, and stop as soon as all words of the digit are selected. Distinct keys need 2-3
// passes, a row of equal keys all 6; ties are settled by index on the way. The k words are then gathered and
// sorted in shared memory (bitonic, at most 1024), so the order of gathering does not matter: deterministic.
//
// Bytes: 3-5 reads of the row and k words. Shared memory: 8 KB of counts, 8 KB of words.
#pragma once

#include "nearest.h"

namespace autoreid_fast {

constexpr int kSelectThreads = 256;
constexpr int kDigitBits = 11;
constexpr int kDigits = 1 << kDigitBits;
constexpr int kMaxWords = 1024;  // the least power of two >= kMaxNearest

// Block x: row x.
__device__ inline void nearest_row_block(const KeyBlock& p, const NearestOut& out) {
  constexpr int digits_per_thread = kDigits / kSelectThreads;
  __shared__ unsigned counts[kDigits];
  __shared__ unsigned sums[kSelectThreads];
  __shared__ Word words[kMaxWords];
  __shared__ Word prefix;              // top bits of the k-th word
  __shared__ unsigned left, gathered;  // words with this prefix to select; words gathered
  __shared__ bool whole;               // all words with this prefix are selected
  const int thread = threadIdx.x;
  const int64_t query = blockIdx.x;
  const float* row = p.keys + query * p.row_stride;
  if (thread == 0) {
    prefix = 0;
    left = static_cast<unsigned>(out.k);
    gathered = 0;
    whole = false;
  }

  int shift = 64;  // words whose bits from `shift` up equal `prefix` are undecided
  do {
    const int above = shift, bits = shift < kDigitBits ? shift : kDigitBits;
    shift -= bits;
    for (int d = thread; d < kDigits; d += kSelectThreads) counts[d] = 0;
    __syncthreads();
    for (int64_t column = thread; column < p.gallery_count; column += kSelectThreads) {
      const Word word = word_of(row[column], column);
      if (above == 64 || word >> above == prefix) {
        atomicAdd(counts + (word >> shift & ((1u << bits) - 1)), 1u);
      }
    }
    __syncthreads();
    unsigned sum = 0;
    for (int d = 0; d < digits_per_thread; ++d) sum += counts[thread * digits_per_thread + d];
    sums[thread] = sum;
    __syncthreads();
    if (thread == 0) {
      int digit = 0;
      unsigned rest = left;
      for (int t = 0; sums[t] < rest; ++t) {
        rest -= sums[t];
        digit += digits_per_thread;
      }
      while (counts[digit] < rest) rest -= counts[digit++];
      prefix = prefix << bits | static_cast<Word>(digit);
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
    if (word >> shift <= prefix) words[atomicAdd(&gathered, 1u)] = word;
  }
  for (int width = 2; width <= size; width *= 2) {
    for (int distance = width / 2; distance > 0; distance /= 2) {
      __syncthreads();
      for (int t = thread; t < size / 2; t += kSelectThreads) {
        const int low = t / distance * 2 * distance + t % distance, high = low + distance;
        const bool ascending = (low & width) == 0;
        const Word a = words[low], b = words[high];
        if ((a > b) == ascending) {
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
