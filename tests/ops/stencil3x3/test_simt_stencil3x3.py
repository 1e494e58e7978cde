"""The device code of stencil3x3, run on the CPU by simt.h, against the reference."""

import math
import struct
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor

from autoreid_fast.ops.stencil3x3 import reference

from ...native import simt

SOURCE = Path(__file__).resolve().parent / "simt_stencil3x3.cpp"


@dataclass(frozen=True)
class Case:
    shape: tuple[int, int, int, int]
    """(N, C, H, W)"""
    stride: int
    dilations: tuple[int, ...]
    relu: bool = True
    pools: bool = True
    need_weights: bool = True
    shares: int = 1
    """Blocks of each channel group, each with its slab of filter gradients."""
    falling: bool = False
    dtype: torch.dtype = torch.float32
    values: str = "normal"
    inputs: tuple[Tensor, ...] = field(init=False)
    """x, weights, and the gradients of max pool, average pool and filtered, if there are any."""

    def __post_init__(self) -> None:
        n, c, h, w = self.shape
        out = (c, reference.out_size(h, self.stride), reference.out_size(w, self.stride))
        x = torch.randn(self.shape)
        if self.values == "ties":
            x = torch.randint(0, 2, self.shape).float()
        if self.values == "special":
            x[torch.rand(self.shape) < 0.3] = torch.nan
            x[torch.rand(self.shape) < 0.3] = -torch.inf
            x[torch.rand(self.shape) < 0.1] = torch.inf
        filters, pooled = len(self.dilations), n if self.pools else 0
        sizes = [(filters, c, 3, 3), (pooled, *out), (pooled, *out), (filters, n, *out)]
        made = [x, *(torch.randn(size) for size in sizes)]
        object.__setattr__(self, "inputs", tuple(tensor.to(self.dtype) for tensor in made))

    def pack(self) -> bytes:
        dilated = sum(1 << f for f, dilation in enumerate(self.dilations) if dilation == 2)
        sizes = (*self.shape, len(self.dilations), dilated, self.stride, self.relu, self.pools)
        rest = (self.need_weights, self.shares, self.falling, self.dtype == torch.bfloat16)
        x, weights, *grads = self.inputs
        tensors = (_last(x), weights, *map(_last, grads))
        words = (t.view(torch.int16) if self.dtype == torch.bfloat16 else t for t in tensors)
        return struct.pack("13q", *sizes, *rest) + b"".join(t.numpy().tobytes() for t in words)

    def unpack(self, data: bytes) -> tuple[list[Tensor], int]:
        """Max pool, average pool, filtered, d x, d weights; and the bytes they took."""
        x, weights, *grads = self.inputs
        at, found = 0, []
        for like in (*grads, x):
            flat, at = self._read(data, at, like.numel())
            *lead, c, h, w = like.shape
            found.append(flat.view(*lead, h, w, c).movedim(-1, -3))
        flat, at = self._read(data, at, weights.numel() if self.need_weights else 0)
        return [*found, flat.view(-1, *weights.shape[1:])], at

    def _read(self, data: bytes, at: int, count: int) -> tuple[Tensor, int]:
        if count == 0:
            return torch.empty(0, dtype=self.dtype), at
        flat = torch.frombuffer(bytearray(data), dtype=self.dtype, count=count, offset=at)
        return flat, at + count * self.dtype.itemsize

    def expected(self) -> list[Tensor]:
        x, weights, d_max, d_avg, d_filtered = (tensor.double() for tensor in self.inputs)
        settings = (self.dilations, self.stride, self.relu)
        forward = reference.stencil3x3(x, weights, *settings, self.pools, self.pools)
        grads = (d_max, d_avg) if self.pools else (None, None)
        filtered = d_filtered if self.dilations else None
        backward = reference.stencil3x3_backward(
            *grads, filtered, x, weights, *settings, True, self.need_weights
        )
        return [*forward, *backward]


def _last(tensor: Tensor) -> Tensor:
    return tensor.movedim(-3, -1).contiguous()


def cases() -> list[Case]:
    torch.manual_seed(0)
    found = []
    shapes = [(1, 1, 1, 1), (2, 3, 1, 5), (1, 17, 9, 2), (2, 18, 10, 11), (1, 16, 17, 8)]
    for index, shape in enumerate(shapes):
        for stride in (1, 2):
            relu, falling, shares = index % 2 == 0, index % 2 == 1, 1 + index % 3
            tiles = shape[0] * math.prod(math.ceil(size / stride / 8) for size in shape[2:])
            found.append(Case(shape, stride, (1, 2, 1), relu, shares=min(shares, tiles), falling=falling))
    for stride in (1, 2):
        found += [
            Case((1, 5, 6, 9), stride, (2, 2), pools=False, need_weights=False),
            Case((1, 5, 6, 9), stride, (), falling=True, need_weights=False),
            Case((1, 4, 12, 12), stride, (1,), values="ties"),
            Case((1, 4, 12, 12), stride, (), values="special", need_weights=False),
            Case((1, 19, 7, 9), stride, (2, 1), dtype=torch.bfloat16),
        ]
    return found


@pytest.mark.parametrize("sanitized", [False, True], ids=["plain", "sanitized"])
def test_device_code_agrees_with_the_reference(sanitized: bool) -> None:
    program, runs = simt.compiled(SOURCE, sanitized=sanitized), cases()
    data = simt.run(program, (case.pack() for case in runs))
    names = ("max_pool", "avg_pool", "filtered", "grad_x", "grad_weights")
    for case in runs:
        outputs, used = case.unpack(data)
        data = data[used:]
        rtol = 2**-8 if case.dtype == torch.bfloat16 else 1e-5
        for name, output, expected in zip(names, outputs, case.expected(), strict=True):
            torch.testing.assert_close(
                output.double(), expected, rtol=rtol, atol=2e-5, equal_nan=True, msg=f"{name} of {case}"
            )
    assert data == b""
