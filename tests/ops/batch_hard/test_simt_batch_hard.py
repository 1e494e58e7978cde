"""The device code of batch_hard, run on the CPU by simt.h, against the reference."""

import struct
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from autoreid_fast.ops.batch_hard import reference

from ...native import simt

SOURCE = Path(__file__).resolve().parent / "simt_batch_hard.cpp"


@dataclass(frozen=True)
class Case:
    features: Tensor
    """(N, D) float32 or bfloat16; its own stride and storage offset are what the kernel sees."""
    labels: Tensor
    tile: int = 4
    printed: bool = False
    falling: bool = False
    margin: float = 0.3
    grad_loss: float = 1.5

    def pack(self) -> bytes:
        x = self.features
        count, dim = x.shape
        offset, stride, half = x.storage_offset(), x.stride(0), x.dtype == torch.bfloat16
        used = offset + (count - 1) * stride + dim
        flat = torch.as_strided(x, (used,), (1,), 0)
        words = flat.view(torch.int16) if half else flat
        sizes = (count, dim, stride, offset, self.tile, self.printed, self.falling, half)
        head = struct.pack("8q2d", *sizes, self.margin, self.grad_loss)
        return head + words.numpy().tobytes() + self.labels.numpy().tobytes()

    def unpack(self, data: bytes) -> tuple[tuple[Tensor, ...], int]:
        count, dim = self.features.shape
        kinds = [(torch.float32, 1), *[(torch.int64, count)] * 2, *[(torch.float32, count)] * 2]
        at, outputs = 0, []
        for kind, size in [*kinds, (self.features.dtype, count * dim)]:
            outputs.append(torch.frombuffer(bytearray(data), dtype=kind, count=size, offset=at))
            at += size * kind.itemsize
        return (*outputs[:5], outputs[5].view(count, dim)), at


def identities(count: int, each: int = 3) -> Tensor:
    return torch.arange(count) // each


def nan_at(x: Tensor, row: int) -> Tensor:
    x[row, 1] = torch.nan
    return x


def cases() -> list[Case]:
    torch.manual_seed(0)
    found = []
    for index, (count, dim) in enumerate([(1, 5), (2, 1), (7, 5), (7, 130), (33, 130), (12, 1030)]):
        for tile in (4, 8):
            x, printed, falling = torch.randn(count, dim), index % 2 == 1, tile == 8
            found.append(Case(x, identities(count), tile, printed, falling))
    wide = torch.randn(9, 160)
    lonely = torch.tensor([0, 0, 1, 2, 2, 2, 3, 4, 5])  # 1, 3, 4 and 5 have no positive
    found += [
        Case(wide[:, :136], lonely, 4),  # 16-byte rows of a larger tensor
        Case(wide[:, 3:98], lonely, 8),  # rows that start anywhere
        Case(wide.bfloat16()[:, :131], lonely, 4),
        Case(wide.bfloat16()[:, 8:136], lonely, 8, printed=True),
        Case(torch.ones(6, 3), identities(6)),  # every distance 0
        Case(nan_at(torch.randn(9, 5), 6), lonely),
        Case(nan_at(torch.randn(9, 5), 2), lonely, 8, printed=True),
        Case(torch.randn(6, 8), torch.zeros(6, dtype=torch.int64)),  # no negatives at all
        Case(torch.randint(0, 2, (20, 3)).float(), identities(20, 5), 4, falling=True),  # ties, distance 0
        Case(torch.randint(0, 2, (20, 3)).float(), identities(20, 5), 8),
    ]
    return found


def run(program: Path, runs: list[Case]) -> list[tuple[Tensor, ...]]:
    data = simt.run(program, (case.pack() for case in runs))
    results = []
    for case in runs:
        outputs, used = case.unpack(data)
        results.append(outputs)
        data = data[used:]
    assert data == b""
    return results


@pytest.mark.parametrize("sanitized", [False, True], ids=["plain", "sanitized"])
def test_device_code_agrees_with_the_reference(sanitized: bool) -> None:
    program, runs = simt.compiled(SOURCE, sanitized=sanitized), cases()
    if not sanitized:
        # more anchors than a block has threads
        runs.append(Case(torch.randn(257, 2), torch.randint(0, 90, (257,)), tile=8))
    for case, outputs in zip(runs, run(program, runs), strict=True):
        check(case, outputs)


def check(case: Case, outputs: tuple[Tensor, ...]) -> None:
    x = case.features.double()
    loss, positive, negative, d_positive, d_negative = reference.batch_hard(
        x, case.labels, case.margin, case.printed
    )
    assert torch.equal(outputs[1], positive)
    assert torch.equal(outputs[2], negative)
    torch.testing.assert_close(outputs[0][0].double(), loss, rtol=2e-6, atol=1e-7, equal_nan=True)
    torch.testing.assert_close(outputs[3].double(), d_positive, rtol=2e-6, atol=1e-7, equal_nan=True)
    torch.testing.assert_close(outputs[4].double(), d_negative, rtol=2e-6, atol=1e-7, equal_nan=True)
    grad = reference.batch_hard_backward(
        torch.tensor(case.grad_loss), x, positive, negative, d_positive, d_negative, case.margin, case.printed
    )
    rtol = 2**-8 if case.features.dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(outputs[5].double(), grad, rtol=rtol, atol=1e-6, equal_nan=True)
