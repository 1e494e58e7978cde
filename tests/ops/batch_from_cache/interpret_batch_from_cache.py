"""Compare the kernel of batch_from_cache, interpreted, with the reference; run in a process of its own."""

import torch

from autoreid_fast.kernels import batch_from_cache as kernels
from autoreid_fast.ops.batch_from_cache import reference

kernels.BLOCK_VALUES = 64

if __name__ == "__main__":
    torch.manual_seed(0)
    for height, width in ((1, 1), (7, 5), (9, 16)):
        images = torch.randint(0, 256, (4, height, width, 3), dtype=torch.uint8)
        index = torch.tensor([3, 0, 3, 1, 2])
        y, x = torch.tensor([[0, 2, -1, -100, 3], [0, -2, 1, 1, 100]])
        flip = torch.tensor([True, False, True, False, True])
        for dtype in (
            torch.float32,
            torch.float16,
        ):  # the interpreter truncates where it should round to bfloat16
            ours = kernels.batch_from_cache(images, index, y, x, flip, dtype)
            expected = reference.batch_from_cache(images, index, y, x, flip, dtype)
            assert torch.equal(ours, expected), (ours - expected).abs().max()
            assert ours.stride() == expected.stride()
        beyond = kernels.batch_from_cache(images, index + 1, y, x, flip, torch.float32)
        assert beyond[[0, 2]].isnan().all()
        assert not beyond[[1, 3, 4]].isnan().any()
