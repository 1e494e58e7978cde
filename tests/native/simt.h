// Runs CUDA device code on the CPU, for tests. Each thread of a block is a fiber; blocks run one after
// another. It covers what the kernels use: barriers, full-warp shuffles and ballots, atomics, static shared
// memory. Threads are resumed in rising or falling order: where a result depends on the order, a barrier is
// missing.
#pragma once

#include <ucontext.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#define __device__
#define __shared__ static
#define __forceinline__ inline

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace simt {

struct Barrier {
  int arrived = 0;
  unsigned generation = 0;
};

struct Block {
  std::vector<ucontext_t> fibers;
  std::vector<std::vector<char>> stacks;
  std::vector<bool> done;
  std::vector<Barrier> warps;
  std::vector<uint32_t> words[2];  // one word per thread for shuffles, ballots and counts; used alternately
  std::vector<unsigned> exchanges;
  Barrier all;
  ucontext_t scheduler;
  unsigned current = 0;  // thread
  unsigned steps = 0;    // barriers passed and threads ended; no step in a round is a deadlock
  const std::function<void()>* body = nullptr;
};
inline Block block;

inline void wait(Barrier& barrier, int expected) {
  const unsigned generation = barrier.generation;
  if (++barrier.arrived == expected) {
    barrier.arrived = 0;
    ++barrier.generation;
    ++block.steps;
  }
  while (barrier.generation == generation) swapcontext(&block.fibers[block.current], &block.scheduler);
}

inline void wait_warp() { wait(block.warps[block.current / 32], 32); }

// A fiber is the same thread of one block after another.
inline void fiber_main() {
  while (true) {
    (*block.body)();
    block.done[block.current] = true;
    ++block.steps;
    swapcontext(&block.fibers[block.current], &block.scheduler);
  }
}

inline void create_fibers(unsigned threads) {
  block.fibers.resize(threads);
  block.stacks.assign(threads, std::vector<char>(64 << 10));
  for (unsigned t = 0; t < threads; ++t) {
    getcontext(&block.fibers[t]);
    block.fibers[t].uc_stack.ss_sp = block.stacks[t].data();
    block.fibers[t].uc_stack.ss_size = block.stacks[t].size();
    makecontext(&block.fibers[t], fiber_main, 0);
  }
}

inline void run_block(const std::function<void()>& body, bool falling) {
  const unsigned threads = blockDim.x;
  if (block.fibers.size() != threads) create_fibers(threads);
  block.body = &body;
  block.done.assign(threads, false);
  block.warps.assign(threads / 32, {});
  for (auto& words : block.words) words.assign(threads, 0);
  block.exchanges.assign(threads, 0);
  block.all = {};
  for (unsigned left = threads; left > 0;) {
    const unsigned before = block.steps;
    left = 0;
    for (unsigned k = 0; k < threads; ++k) {
      const unsigned t = falling ? threads - 1 - k : k;
      if (block.done[t]) continue;
      block.current = t;
      threadIdx = {t};
      swapcontext(&block.scheduler, &block.fibers[t]);
      left += block.done[t] ? 0 : 1;
    }
    if (left > 0 && block.steps == before) {
      std::fprintf(stderr, "simt: %u threads wait at a barrier that the other threads never reach\n", left);
      std::abort();
    }
  }
}

// kernel<<<grid, threads>>>, where `body` calls the kernel.
inline void launch(dim3 grid, unsigned threads, bool falling, const std::function<void()>& body) {
  gridDim = grid;
  blockDim = {threads};
  for (unsigned k = 0; k < grid.x * grid.y; ++k) {
    const unsigned b = falling ? grid.x * grid.y - 1 - k : k;
    blockIdx = {b % grid.x, b / grid.x};
    run_block(body, falling);
  }
}

}  // namespace simt

inline void __syncthreads() { simt::wait(simt::block.all, static_cast<int>(blockDim.x)); }
inline void __threadfence() {}

// Returns read(words), for the words of all threads of the warp (or block) once each has passed its own.
template <typename Read>
auto simt_exchange(uint32_t word, bool warp, Read read) {
  const unsigned thread = simt::block.current;
  std::vector<uint32_t>& words = simt::block.words[simt::block.exchanges[thread]++ % 2];
  words[thread] = word;
  warp ? simt::wait_warp() : __syncthreads();
  return read(words.data() + (warp ? thread / 32 * 32 : 0));
}

inline float __shfl_xor_sync(unsigned, float value, int lanes) {
  const unsigned from = (simt::block.current % 32) ^ static_cast<unsigned>(lanes);
  return simt_exchange(std::bit_cast<uint32_t>(value), true,
                       [&](const uint32_t* words) { return std::bit_cast<float>(words[from]); });
}
inline unsigned __ballot_sync(unsigned, bool vote) {
  return simt_exchange(vote, true, [](const uint32_t* words) {
    unsigned mask = 0;
    for (int lane = 0; lane < 32; ++lane) mask |= words[lane] << lane;
    return mask;
  });
}
inline int __syncthreads_count(bool vote) {
  return simt_exchange(vote, false, [](const uint32_t* words) {
    int count = 0;
    for (unsigned t = 0; t < blockDim.x; ++t) count += static_cast<int>(words[t]);
    return count;
  });
}

template <typename T>
T atomicMax(T* address, T value) {
  const T old = *address;
  *address = old > value ? old : value;
  return old;
}
template <typename T>
T atomicAdd(T* address, T value) {
  const T old = *address;
  *address = old + value;
  return old;
}
template <typename T>
T __ldcg(const T* address) {
  return *address;
}
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
inline int __ffs(unsigned bits) { return __builtin_ffs(static_cast<int>(bits)); }
