"""Items: evaluation, top-k and re-ranking at MSMT17's shape, on features drawn on the device."""

import functools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import autoreid_fast
from autoreid_fast import ops
from autoreid_fast.evaluation import RerankConfig

from ...rank_gallery import sorted_in_torch
from .items import Figures, Setting

BLOCK = 1024
"""Queries per matrix product."""
NEAREST = 20
COMPARED = 200
"""Queries whose ranks are compared between CPU and GPU."""


@dataclass(frozen=True)
class Gallery:
    """Unit features around one centre per identity, and labels."""

    query: Tensor  # (Q, 512)
    gallery: Tensor  # (G, 512)
    labels: tuple[Tensor, Tensor, Tensor, Tensor]  # query and gallery identities, query and gallery cameras

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """Arguments of `autoreid_fast.evaluate`."""
        return self.query, self.gallery, *self.labels

    def first(self, count: int, device: str) -> tuple[Tensor, ...]:
        """The same for the first ``count`` queries on a device."""
        query_pids, gallery_pids, query_cams, gallery_cams = self.labels
        kept = (
            self.query[:count],
            self.gallery,
            query_pids[:count],
            gallery_pids,
            query_cams[:count],
            gallery_cams,
        )
        return tuple(tensor.to(device) for tensor in kept)


@functools.cache
def drawn(device: str, toy: bool) -> Gallery:
    """A gallery of MSMT17's shape, or a small one; drawn on the device."""
    queries, entries, identities = (100, 700, 40) if toy else (11_659, 82_161, 3_060)
    generator = torch.Generator(device).manual_seed(0)

    def whole(limit: int, count: int) -> Tensor:
        return torch.randint(limit, (count,), generator=generator, device=device)

    def features(pids: Tensor) -> Tensor:
        noise = torch.randn(len(pids), 512, generator=generator, device=device)
        return torch.nn.functional.normalize(centres[pids] + 1.6 * noise)

    centres = torch.randn(identities, 512, generator=generator, device=device)
    pids = whole(identities, queries), whole(identities, entries)
    cameras = whole(15, queries), whole(15, entries)
    return Gallery(features(pids[0]), features(pids[1]), (*pids, *cameras))


def timed(step: Callable[[], object], device: str, times: int) -> Figures:
    """Median seconds, and the peak of the allocator over what is held already (CUDA only)."""
    seconds, held = [], 0
    step()  # warm-up
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
    for _ in range(times):
        began = time.perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated() - held if device == "cuda" else None
    return {"seconds": statistics.median(seconds), "peak_bytes": peak}


def evaluation(setting: Setting) -> Figures:
    """Ours, and its scores."""
    data = drawn(setting.device, setting.toy)
    scores = autoreid_fast.evaluate(*data.inputs)
    shown = {"rank-1": scores.cmc[1], "mAP": scores.mAP, "mINP": scores.mINP}
    return {**timed(lambda: autoreid_fast.evaluate(*data.inputs), setting.device, 5), **shown}


def reranking(setting: Setting) -> Figures:
    """Evaluation with k-reciprocal re-ranking."""
    inputs = drawn(setting.device, setting.toy).inputs
    return timed(lambda: autoreid_fast.evaluate(*inputs, rerank=RerankConfig()), setting.device, 2)


def nearest(setting: Setting) -> Figures:
    """Ours, and `torch.mm` with `topk`."""
    data = drawn(setting.device, setting.toy)
    plain = lambda: [  # noqa: E731
        torch.mm(rows, data.gallery.T).topk(NEAREST) for rows in data.query.split(BLOCK)
    ]
    ours = timed(lambda: ops.nearest(data.query, data.gallery, NEAREST), setting.device, 5)
    return {"ours": ours, "torch.mm and topk": timed(plain, setting.device, 2)}


def sorting_evaluator(setting: Setting) -> Figures:
    """The usual evaluation with `torch.sort`, and its scores."""
    inputs = drawn(setting.device, setting.toy).inputs
    evaluate = sorted_in_torch()
    scores = [None if score is None else float(score) for score in evaluate(*inputs)]
    return {**timed(lambda: evaluate(*inputs), setting.device, 1), "rank-1, 5, 10, mAP, mINP": scores}


def products(setting: Setting) -> Figures:
    """All pairs in blocks of queries by `torch.mm` in float32 and bfloat16 and, on CUDA, by int8."""
    data = drawn(setting.device, setting.toy)
    figures = {}
    for dtype in (torch.float32, torch.bfloat16):
        query, gallery = data.query.to(dtype), data.gallery.to(dtype)
        step = functools.partial(_product, query, gallery, torch.mm)
        figures[str(dtype).removeprefix("torch.")] = timed(step, setting.device, 5)
    if setting.device == "cuda":
        query, gallery = (_int8(tensor) for tensor in (data.query, data.gallery))
        figures["int8"] = timed(functools.partial(_product, query, gallery, torch._int_mm), setting.device, 5)
    return figures


def _product(query: Tensor, gallery: Tensor, multiply: Callable[[Tensor, Tensor], Tensor]) -> None:
    for rows in query.split(BLOCK):
        multiply(rows, gallery.T)


def _int8(features: Tensor) -> Tensor:
    """Rows padded to a multiple of 32, which `torch._int_mm` needs."""
    rows = (127 * features / features.abs().amax()).to(torch.int8)
    return torch.nn.functional.pad(rows, (0, 0, 0, -len(rows) % 32))


def cpu_ranks(setting: Setting) -> Figures:
    """Whether the first queries' ranks on the device equal those on the CPU."""
    data = drawn(setting.device, setting.toy)
    here = autoreid_fast.evaluate(*data.first(COMPARED, setting.device))
    there = autoreid_fast.evaluate(*data.first(COMPARED, "cpu"))
    equal = torch.equal(torch.as_tensor(here.first_hit).cpu(), torch.as_tensor(there.first_hit))
    return {"first hits equal": equal, "difference of mAP": abs(here.mAP - there.mAP)}
