"""GDAS in the search: new samples for omega and alpha, temperature, refused configs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from autoreid_fast.configs import from_values
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas.supernet.sampled import SampledSupernet
from autoreid_fast.runs.checkpoint import load_checkpoint, restore_random_state, save_checkpoint
from autoreid_fast.search.algorithm import Batch, SearchAlgorithm, build_algorithm
from autoreid_fast.search.config import SearchConfig

SMALL = {
    "channels": 3,
    "cells_per_block": (1, 1, 1, 1),
    "embedding_dim": 8,
    "epochs": 5,
    "algorithm": "gdas",
}


def searcher(**changes: Any) -> SearchAlgorithm:
    torch.manual_seed(7)
    return build_algorithm(SearchConfig.model_validate(SMALL | changes), 3, torch.device("cpu"))


def batches() -> tuple[Batch, Batch]:
    images = torch.randn(2, 6, 3, 128, 16, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    return (images[0], labels), (images[1], labels.flip(0))


def test_omega_comes_first_and_alpha_second_each_with_a_new_sample() -> None:
    search = searcher()
    assert isinstance(search.supernet, SampledSupernet)
    draw, seen = search.supernet.weights, []

    def spy(alpha: Tensor) -> Any:
        sample = draw(alpha)
        seen.append([edge.operation for edge in sample])
        return sample

    search.supernet.weights = spy  # type: ignore[method-assign]
    search.omega_optimizer.register_step_post_hook(lambda *_: seen.append("omega"))
    search.alpha_optimizer.register_step_post_hook(lambda *_: seen.append("alpha"))
    omega = [parameter.detach().clone() for parameter in search.omega]
    alpha = [parameter.detach().clone() for parameter in search.alpha]
    search.step(*batches())
    assert [len(entry) for entry in seen] == [14, 14, 5, 14, 14, 5]
    assert (seen[2], seen[5]) == ("omega", "alpha")
    assert seen[0] != seen[3]
    assert seen[1] != seen[4]
    moved = [not torch.equal(p, before) for p, before in zip(search.omega, omega, strict=True)]
    assert any(moved)
    assert not all(moved), "candidates that were not drawn stay as they are"
    for p, before in zip(search.alpha, alpha, strict=True):
        assert (p != before).all(), "every candidate of an edge learns from the one that was drawn"


@pytest.mark.parametrize("space", ["reid", "standard"])
@pytest.mark.parametrize("loss", ["ce", "retrieval"])
def test_both_spaces_and_both_losses(space: str, loss: str) -> None:
    search = searcher(space=space, objective={"loss": loss}, alpha_loss="triplet")
    search.set_epoch(4)
    losses = search.step(*batches())
    assert torch.isfinite(torch.stack(losses)).all()
    assert all(torch.isfinite(p).all() for p in search.model.parameters())


def test_the_temperature_falls_linearly_from_10_to_a_tenth() -> None:
    search = searcher()
    temperatures = []
    for epoch in range(5):
        search.set_epoch(epoch)
        temperatures.append(search.supernet.tau)
    assert temperatures == pytest.approx([10, 7.525, 5.05, 2.575, 0.1])


def test_a_resumed_search_draws_the_same_samples(tmp_path: Path) -> None:
    def parts(search: SearchAlgorithm) -> dict[str, Any]:
        return {"model": search.model, "omega": search.omega_optimizer, "alpha": search.alpha_optimizer}

    search = searcher()
    search.step(*batches())
    path = tmp_path / "last.pt"
    save_checkpoint(path, {name: part.state_dict() for name, part in parts(search).items()})
    search.step(*batches())

    other = searcher()
    state = load_checkpoint(path)
    for name, part in parts(other).items():
        part.load_state_dict(state[name])
    restore_random_state(state)
    other.step(*batches())
    for parameter, resumed in zip(search.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(parameter, resumed)


def test_gdas_of_second_order_is_refused() -> None:
    with pytest.raises(
        AutoReIDError, match=r"^my\.yaml: order: a field of algorithm darts, not of gdas; leave it out"
    ) as error:
        from_values(SearchConfig, {"algorithm": "gdas", "order": 2}, "my.yaml")
    assert "\n" not in str(error.value)
    assert SearchConfig.model_validate({"algorithm": "darts", "order": 2}).order == 2
