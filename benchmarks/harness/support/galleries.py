"""Labels and features in the shape of real galleries, on which ranking is measured."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..case import Variant

TRUE_LABELS = Path(__file__).resolve().parents[4] / "shared" / "data" / "market1501_labels.npz"
"""True labels of Market-1501, if the checkout has them beside it."""
SPREAD = 2.4
"""Standard deviation of images around their identity; identities have 1. Some matches rank behind others."""


class Labels(NamedTuple):
    """int64 identities and cameras: (Q,) of the queries, (G,) of the gallery. Pid -1: junk, 0: distractor."""

    query_pids: Tensor
    gallery_pids: Tensor
    query_cams: Tensor
    gallery_cams: Tensor


def labels(variant: Variant) -> Labels:
    """Labels of a variant: in the shape of a real set if it is large, else of its own sizes."""
    if variant.large == "market1501":
        if TRUE_LABELS.is_file():
            with np.load(TRUE_LABELS) as file:
                names = ("query_pid", "gallery_pid", "query_cam", "gallery_cam")
                return Labels(*(torch.from_numpy(file[name]).long() for name in names))
        return drawn_labels(3368, 19732, cameras=6, identities=750, junk=3819, distractors=2798)
    if variant.large == "msmt17":
        return drawn_labels(11659, 82161, cameras=15, identities=3060)
    query, gallery = variant.sizes["Q"], variant.sizes["G"]
    counts = {"identities": max(1, gallery // 25), "junk": gallery // 5, "distractors": gallery // 7}
    return drawn_labels(query, gallery, cameras=variant.sizes["cameras"] or 1, **counts)


def about(variant: Variant) -> str | None:
    """Origin of the labels, for variants in the shape of a real set."""
    if variant.large == "market1501":
        if TRUE_LABELS.is_file():
            return "the true labels of Market-1501"
        return "synthetic labels, Market-1501's counts"
    return "synthetic labels, MSMT17's counts" if variant.large == "msmt17" else None


def drawn_labels(
    query: int, gallery: int, cameras: int, identities: int, junk: int = 0, distractors: int = 0
) -> Labels:
    """Draw labels with these counts from the global random state; half of the cameras see an identity."""
    seen = torch.rand(identities, cameras).argsort(dim=1)[:, : max(2, cameras // 2)]

    def images(count: int) -> tuple[Tensor, Tensor]:
        pids = torch.randint(identities, (count,))
        return pids + 1, seen[pids, torch.randint(seen.shape[1], (count,))] + 1

    query_pids, query_cams = images(query)
    gallery_pids, gallery_cams = images(gallery)
    others = torch.randperm(gallery)[: junk + distractors]
    gallery_pids[others[:junk]] = -1
    gallery_pids[others[junk:]] = 0
    return Labels(query_pids, gallery_pids, query_cams, gallery_cams)


def features(pids: Tensor, dimensions: int) -> Tensor:
    """Draw (N, D) float32 unit vectors, normal around one point per identity (pids above 0)."""
    centres = torch.randn(int(pids.max()) + 1, dimensions)
    images = SPREAD * torch.randn(len(pids), dimensions)
    images += torch.where(pids[:, None] > 0, centres[pids.clamp(min=0)], 0.0)
    return torch.nn.functional.normalize(images)
