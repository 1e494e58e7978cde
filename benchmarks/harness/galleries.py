"""Labels and features of the shape of real galleries: what ranking is measured on."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .case import Variant

TRUE_LABELS = Path(__file__).resolve().parents[3] / "shared" / "data" / "market1501_labels.npz"
"""Where the true labels of Market-1501 lie if they are beside the checkout."""
SPREAD = 2.4
"""Standard deviation of an image about its identity, whose own is 1: some matches stand behind strangers."""


class Labels(NamedTuple):
    """int64 identities and cameras, (Q,) of the queries and (G,) of the gallery; pid -1 is junk, 0 nobody."""

    query_pids: Tensor
    gallery_pids: Tensor
    query_cams: Tensor
    gallery_cams: Tensor


def labels(variant: Variant) -> Labels:
    """Of a variant's ``Q`` queries, ``G`` gallery images and ``cameras``; by name those of a real set."""
    if variant.large == "market1501":
        if TRUE_LABELS.is_file():
            with np.load(TRUE_LABELS) as file:
                names = ("query_pid", "gallery_pid", "query_cam", "gallery_cam")
                return Labels(*(torch.from_numpy(file[name]).long() for name in names))
        return made(3368, 19732, cameras=6, identities=750, junk=3819, distractors=2798)
    if variant.large == "msmt17":
        return made(11659, 82161, cameras=15, identities=3060)
    query, gallery = variant.sizes["Q"], variant.sizes["G"]
    counts = {"identities": max(1, gallery // 25), "junk": gallery // 5, "distractors": gallery // 7}
    return made(query, gallery, cameras=variant.sizes["cameras"] or 1, **counts)


def about(variant: Variant) -> str | None:
    """Which labels these are, where a real set is meant."""
    if variant.large == "market1501":
        return (
            "the true labels of Market-1501" if TRUE_LABELS.is_file() else "made labels, Market-1501's counts"
        )
    return "made labels, MSMT17's counts" if variant.large == "msmt17" else None


def made(
    query: int, gallery: int, cameras: int, identities: int, junk: int = 0, distractors: int = 0
) -> Labels:
    """Labels of these counts from the global random state; an identity passes some cameras, not all."""
    seen = torch.rand(identities, cameras).argsort(dim=1)[:, : max(2, cameras // 2)]

    def images(count: int) -> tuple[Tensor, Tensor]:
        who = torch.randint(identities, (count,))
        return who + 1, seen[who, torch.randint(seen.shape[1], (count,))] + 1

    query_pids, query_cams = images(query)
    gallery_pids, gallery_cams = images(gallery)
    nobody = torch.randperm(gallery)[: junk + distractors]
    gallery_pids[nobody[:junk]] = -1
    gallery_pids[nobody[junk:]] = 0
    return Labels(query_pids, gallery_pids, query_cams, gallery_cams)


def features(pids: Tensor, dimensions: int) -> Tensor:
    """(N, D) float32 unit vectors, normal about one point an identity; junk and distractors are alone."""
    centres = torch.randn(int(pids.max()) + 1, dimensions)
    images = SPREAD * torch.randn(len(pids), dimensions)
    images += torch.where(pids[:, None] > 0, centres[pids.clamp(min=0)], 0.0)
    return torch.nn.functional.normalize(images)
