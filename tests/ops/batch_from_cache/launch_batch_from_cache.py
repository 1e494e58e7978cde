"""Compile the kernels of batch_from_cache as their launches would; run in a process of its own."""

import torch
from launch import compile_only

from autoreid_fast.kernels.batch_from_cache import batch_from_cache

if __name__ == "__main__":
    compile_only()
    for count, height, width, batch in ((1, 1, 1, 1), (5, 16, 8, 3)):
        images, zeros = torch.zeros(count, height, width, 3, dtype=torch.uint8), torch.zeros(batch).long()
        batch_from_cache(images, zeros, zeros, zeros, zeros.bool(), torch.float16)
