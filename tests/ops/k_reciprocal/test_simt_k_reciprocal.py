"""The device code of k_reciprocal, run on the CPU by simt.h, against the reference."""

import struct
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from autoreid_fast.ops.k_reciprocal import reference

from ...native import simt

SOURCE = Path(__file__).resolve().parent / "simt_k_reciprocal.cpp"


@dataclass(frozen=True)
class Case:
    """One run of all steps, each on the results of the reference's step before it."""

    features: Tensor
    queries: int
    k1: int
    k2: int
    falling: bool = False
    lambda_value: float = 0.3
    width: int | None = None
    """The kernel's k1 + 1; None: that of the reference."""

    def inputs(self) -> tuple[Tensor, ...]:
        count = min(max(self.k1 + 1, self.k2), len(self.features))
        neighbors, farthest = reference.neighbors(self.features, count)
        return self.features, neighbors, farthest

    def expected(self) -> "Expected":
        features, neighbors, farthest = self.inputs()
        rows = reference.rows(features, neighbors, farthest, self.k1)
        expanded = reference.expand(*rows, neighbors, self.k2)
        inverse = reference.invert(*expanded, self.queries)
        offsets, columns, values = expanded
        end = int(offsets[self.queries])
        of_queries = (offsets[: self.queries + 1], columns[:end], values[:end])
        x, y = features[: self.queries], features[self.queries :]
        final = reference.block(x, y, farthest[: self.queries], *of_queries, *inverse, self.lambda_value)
        return Expected(rows, expanded, of_queries, inverse, final)

    def pack(self) -> bytes:
        features, neighbors, farthest = self.inputs()
        e = self.expected()
        (total, dim), count = features.shape, neighbors.shape[1]
        width = self.width or min(self.k1 + 1, count)
        sizes = (
            *(total, dim, count, width, min(reference.half_of(self.k1), width)),
            *(min(self.k2, count), len(e.rows[1]), self.queries, len(e.of_queries[1]), len(e.inverse[1])),
            self.falling,
        )
        products = features[: self.queries] @ features[self.queries :].T
        arrays = (features, neighbors, farthest, *e.rows, *e.of_queries, *e.inverse, products)
        head = struct.pack("11qd", *sizes, self.lambda_value)
        return head + b"".join(array.contiguous().numpy().tobytes() for array in arrays)


@dataclass(frozen=True)
class Expected:
    rows: tuple[Tensor, Tensor, Tensor]
    expanded: tuple[Tensor, Tensor, Tensor]
    of_queries: tuple[Tensor, Tensor, Tensor]
    inverse: tuple[Tensor, Tensor, Tensor]
    final: Tensor


class Output:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int, dtype: torch.dtype) -> Tensor:
        size = count * dtype.itemsize
        found = torch.frombuffer(bytearray(self.data[self.at : self.at + size]), dtype=dtype, count=count)
        self.at += size
        return found

    def rows(self, total: int) -> tuple[Tensor, Tensor, Tensor]:
        offsets = self.take(total + 1, torch.int64)
        entries = int(offsets[-1])
        return offsets, self.take(entries, torch.int32), self.take(entries, torch.float32)


def people(total: int, dim: int, each: int = 5) -> Tensor:
    centres = torch.randn(-(-total // each), dim)
    return centres[torch.arange(total) % len(centres)] + 0.6 * torch.randn(total, dim)


def cases() -> list[Case]:
    torch.manual_seed(0)
    return [
        Case(people(2, 3), queries=1, k1=20, k2=6),
        Case(people(9, 33), queries=2, k1=1, k2=1, falling=True),
        Case(people(17, 7), queries=9, k1=4, k2=6, lambda_value=0.0),
        Case(torch.randint(0, 3, (16, 3)).float(), queries=7, k1=5, k2=2, falling=True),  # ties
        Case(torch.ones(8, 4), queries=1, k1=3, k2=2, lambda_value=1.0),
    ]


def large() -> list[Case]:
    """More keys than threads; more gallery rows than threads."""
    torch.manual_seed(1)
    return [
        Case(people(26, 40, each=13), queries=3, k1=24, k2=6, falling=True),
        Case(people(259, 3, each=29), queries=2, k1=1, k2=2),
    ]


def run(program: Path, runs: list[Case]) -> Output:
    return Output(simt.run(program, (case.pack() for case in runs)))


def test_device_code_agrees_with_the_reference() -> None:
    check(simt.compiled(SOURCE, sanitized=False), cases() + large())


def test_device_code_under_sanitizers() -> None:
    check(simt.compiled(SOURCE, sanitized=True), cases())


def check(program: Path, runs: list[Case]) -> None:
    output = run(program, runs)
    for case in runs:
        expected, total = case.expected(), len(case.features)
        for theirs in (expected.rows, expected.expanded):
            found = output.rows(total)
            assert torch.equal(found[0], theirs[0])
            assert torch.equal(found[1], theirs[1])
            torch.testing.assert_close(found[2], theirs[2], rtol=2e-6, atol=0)
        final = output.take(case.queries * (total - case.queries), torch.float32)
        torch.testing.assert_close(final.view_as(expected.final), expected.final, rtol=0, atol=2e-6)
    assert output.at == len(output.data)


def test_rows_too_long_to_sort_are_reported() -> None:
    """Every row of V has all 90 images, so 50 of them are more than a block sorts."""
    case = Case(torch.ones(90, 2), queries=1, k1=89, k2=50, width=2)
    output = run(simt.compiled(SOURCE, sanitized=False), [case])
    output.rows(90)
    assert output.take(91, torch.int64)[-1] < 0
