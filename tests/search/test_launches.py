"""Operations per step pair of the search: on a GPU each one is at least one launch."""

from collections import Counter
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from autoreid_fast.search.algorithm import build_algorithm
from autoreid_fast.search.config import SearchConfig

VIEWS = {
    *("view", "as_strided", "select", "slice", "transpose", "permute", "expand", "unbind", "squeeze"),
    *("unsqueeze", "detach", "alias", "t", "split", "_unsafe_view"),
    *("empty", "new_empty", "empty_like", "new_empty_strided"),
}
"""Operations that launch nothing."""


class Counted(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (name := func.overloadpacket.__name__) not in VIEWS:
            self.calls[name] += 1
        return func(*args, **(kwargs or {}))


def test_a_pair_of_the_source_supernet_launches_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device, which has no CPU-only paths and where reading a value fails;
    without optimisers and clipping, which are a handful of launches on CUDA."""
    monkeypatch.setattr(
        torch, "autocast", lambda *given, **options: nullcontext()
    )  # does not support the meta device
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *given: None)
    config = SearchConfig.model_validate({"channels": 8, "cells_per_block": (1, 1, 1, 1)})
    meta = torch.device("meta")
    search = build_algorithm(config, 2, meta)
    search.model.train()
    for optimizer in (search.omega_optimizer, search.alpha_optimizer):
        monkeypatch.setattr(optimizer, "step", lambda: None)
    batch = torch.empty(4, 3, 128, 32, device=meta), torch.zeros(4, dtype=torch.int64, device=meta)
    with Counted() as counted:
        search.step(batch, batch)
    # the count when this was written; one more launch per edge or source would exceed it
    assert counted.calls.total() <= 3534, counted.calls.most_common(12)
    cells, sources, edges, nodes, passes = 4, 5, 14, 4, 2
    assert counted.calls["separable_conv"] == passes * cells * (sources + edges)
    assert counted.calls["mixed_op_sum"] == passes * cells * (nodes + edges)
