"""Triton kernels, one module per op that has some; `moments` is shared by them. `autoreid_fast.ops` has the
public functions.

Conventions: `name_ptr` points to the tensor that the op's schema calls `name`, `BLOCK_X` is the size of a
tile along X, `offs_x` and `mask_x` are the tile's indices and which of them exist, `acc` is a float32 sum.
Sums are added in a fixed order, without atomics: equal inputs give equal bits.
"""
