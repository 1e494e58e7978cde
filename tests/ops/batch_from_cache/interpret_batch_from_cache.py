"""Hold the kernel of batch_from_cache, run by Triton's interpreter, to the twin: in a process of its own."""

import torch

from autoreid_fast.kernels import batch_from_cache as kernels
from autoreid_fast.ops.batch_from_cache import reference as twin

kernels.ELEMENTS = 64

if __name__ == "__main__":
    torch.manual_seed(0)
    for height, width in ((1, 1), (7, 5), (9, 16)):
        images = torch.randint(0, 256, (4, height, width, 3), dtype=torch.uint8)
        index = torch.tensor([3, 0, 3, 1, 2])
        y, x = torch.tensor([[0, 2, -1, -100, 3], [0, -2, 1, 1, 100]])
        flip = torch.tensor([True, False, True, False, True])
        for dtype in (torch.float32, torch.float16):  # the interpreter truncates to bfloat16
            found = kernels.batch_from_cache(images, index, y, x, flip, dtype)
            expected = twin.batch_from_cache(images, index, y, x, flip, dtype)
            assert torch.equal(found, expected), (found - expected).abs().max()
            assert found.stride() == expected.stride()
        found = kernels.batch_from_cache(images, index + 1, y, x, flip, torch.float32)
        assert found[[0, 2]].isnan().all()
        assert not found[[1, 3, 4]].isnan().any()
