"""The device code of rank_gallery and nearest, run on the CPU by simt.h, against the CPU ops.

Keys are one chain of fused multiply-adds everywhere, so random features must agree to the last bit, too.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from autoreid_fast import ops
from autoreid_fast.evaluation.protocol import (
    Labels,
    Metric,
    Relevance,
    Thresholds,
    order_thresholds,
    relevance_of,
)
from autoreid_fast.ops.csr import row_indices

from ...native import simt

SOURCE = Path(__file__).resolve().parent / "simt_rank_gallery.cpp"


@dataclass(frozen=True)
class Case:
    query: Tensor
    """(Q, D) float32 or bfloat16; its own stride and storage offset are what the kernel sees."""
    gallery: Tensor
    """(G, D) likewise, with the offset of `query`."""
    people: int = 5
    k: int = 7
    metric: Metric = "euclidean"
    falling: bool = False
    gallery_offset: int = 0

    def labels(self) -> Relevance:
        torch.manual_seed(0)
        num_query, num_gallery = len(self.query), len(self.gallery)
        pids = torch.randint(0, self.people, (num_query,)), torch.randint(-1, self.people, (num_gallery,))
        cams = torch.randint(0, 4, (num_query,)), torch.randint(0, 4, (num_gallery,))
        return relevance_of(Labels(*pids, *cams))

    def thresholds(self) -> Thresholds:
        labels = self.labels()
        rows, indices = row_indices(labels.match_offsets), labels.matches + self.gallery_offset
        return order_thresholds(len(self.query), rows, self.keys(labels), indices)

    def keys(self, labels: Relevance) -> Tensor:
        return ops.match_keys(self.query, self.gallery, labels.match_offsets, labels.matches, self.metric)

    def pack(self) -> bytes:
        labels, thresholds = self.labels(), self.thresholds()
        offset, half = self.query.storage_offset(), self.query.dtype == torch.bfloat16
        assert offset == self.gallery.storage_offset()
        sizes = (
            *(len(self.query), len(self.gallery), self.query.shape[1]),
            *(self.query.stride(0), self.gallery.stride(0), offset),
            *(self.metric == "cosine", half, self.falling, self.k, self.gallery_offset),
            *(len(labels.matches), len(labels.excluded), len(thresholds.keys)),
        )
        parts = [struct.pack("14q", *sizes)]
        for x in (self.query, self.gallery):
            used = offset + (len(x) - 1) * x.stride(0) + x.shape[1]
            flat = torch.as_strided(x, (used,), (1,), 0)
            parts.append((flat.view(torch.int16) if half else flat).numpy().tobytes())
        lists = (labels.match_offsets, labels.matches, labels.excluded_offsets, labels.excluded)
        parts += [x.numpy().tobytes() for x in (labels.valid, *lists, *thresholds)]
        return b"".join(parts)

    def expected(self) -> list[Tensor]:
        labels, thresholds = self.labels(), self.thresholds()
        keys = self.keys(labels)
        lists = (labels.valid, labels.excluded_offsets, labels.excluded, *thresholds)
        counts = ops.count_closer(self.query, self.gallery, *lists, self.gallery_offset, self.metric)
        found = torch.ops.autoreid_fast.nearest(self.query, self.gallery, self.k, self.metric == "cosine")
        return [keys, counts, counts, *found]


def cases() -> list[Case]:
    pytest.importorskip("autoreid_fast._cpu", reason="no native library: pure-Python install")
    torch.manual_seed(0)
    few, ties = torch.randint(-1, 2, (9, 4)).float(), torch.randint(-1, 2, (400, 4)).float()
    wide, wider = torch.randn(9, 90), torch.randn(300, 101)
    return [
        Case(torch.randn(1, 1), torch.randn(1, 1), people=1, k=1),
        Case(torch.randn(3, 1), torch.randn(129, 1), k=129, falling=True),
        Case(torch.randn(131, 19), torch.randn(140, 19), metric="cosine", k=2),
        Case(few, ties, k=300, gallery_offset=1000),
        Case(few, ties, people=2, metric="cosine", k=33, falling=True),
        Case(torch.zeros(2, 3), torch.zeros(1100, 3), k=1000),  # nothing but ties
        Case(wide[:, 3:80], wider[:, 3:80]),  # rows of larger tensors that start anywhere
        Case(wide.bfloat16()[:, :88], wider.bfloat16()[:, :88]),
        Case(wide.bfloat16()[:, :61], wider.bfloat16()[:, :61], falling=True, metric="cosine"),
    ]


@pytest.mark.parametrize("sanitized", [False, True], ids=["plain", "sanitized"])
def test_device_code_agrees_bit_for_bit(sanitized: bool) -> None:
    program, runs = simt.compiled(SOURCE, sanitized=sanitized), cases()
    if not sanitized:
        # more thresholds than shared memory holds, more entries than a block has
        ties = torch.randint(-2, 3, (9000, 3)).float()
        runs += [
            Case(ties[:2].clone(), ties, people=1, k=20),
            Case(torch.randn(2, 3), ties, people=1),
        ]
    data = simt.run(program, (case.pack() for case in runs))
    names = ("match keys", "counts", "counts of the block", "nearest keys", "nearest indices")
    for case in runs:
        for name, expected in zip(names, case.expected(), strict=True):
            size = expected.numel() * expected.element_size()
            output = torch.frombuffer(bytearray(data[:size] or b"\0"), dtype=torch.uint8)
            data = data[size:]
            if size:
                assert torch.equal(output.view(expected.dtype).view_as(expected), expected), (name, case)
    assert data == b""
