"""Alpha takes the same path with either supernet."""

import os
from pathlib import Path

import torch

from autoreid_fast.data.batches import relabel
from autoreid_fast.data.cache import open_cache
from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.load import load_dataset
from autoreid_fast.data.synthetic import SyntheticConfig, generate
from autoreid_fast.search.algorithm import build_algorithm
from autoreid_fast.search.config import SearchConfig

STEPS = 50 if os.environ.get("AUTOREID_FAST_LONG") == "1" else 16


def pedestrians(root: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Training images (N, 3, 128, 16) float64 of three identities, and their labels (N,)."""
    generate(root, SyntheticConfig(train_identities=3, test_identities=2, cameras=2, junk=0, distractors=0))
    config = DataConfig(kind="synthetic", root=root, height=128, width=16)
    dataset = load_dataset(config)
    cache = open_cache(dataset, dataset.train, 128, 16, root.parent / "cache")
    return cache.on("cpu").movedim(3, 1).double() / 128 - 1, relabel(cache.records)


def alpha_path(supernet: str, images: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
    """Both alphas after each step."""
    sizes = {"channels": 3, "cells_per_block": (1, 1, 1, 1), "embedding_dim": 8, "supernet": supernet}
    torch.manual_seed(0)
    searcher = build_algorithm(SearchConfig.model_validate(sizes), 3, torch.device("cpu"))
    searcher.model.double().train()
    path = []
    for step in range(STEPS):
        searcher.set_epoch(step)
        train, val = (
            torch.cat(
                [torch.nonzero(labels == who).flatten().roll(step)[half : half + 2] for who in range(3)]
            )
            for half in (0, 2)
        )
        searcher.step((images[train], labels[train]), (images[val], labels[val]))
        path.append(torch.cat([alpha.detach().clone() for alpha in searcher.alpha]))
    return path


def test_alpha_takes_the_same_path_in_either_supernet(tmp_path: Path) -> None:
    images, labels = pedestrians(tmp_path / "set")
    ours, reference = (alpha_path(kind, images, labels) for kind in ("source", "reference"))
    assert float((ours[-1] - ours[0]).abs().max()) > 0.1, "alpha has hardly moved"
    for step, (alpha, expected) in enumerate(zip(ours, reference, strict=True)):
        torch.testing.assert_close(
            alpha, expected, rtol=0, atol=1e-6, msg=lambda text, s=step: f"step {s}: {text}"
        )
