"""A user's loss that returns something else than a `LossTerms` of scalars is named, with what it returned."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.losses import LossTerms, ObjectiveConfig, build_loss, register_loss
from autoreid_fast.losses.registry import advice_on_nonfinite

WRONG: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "float": (lambda loss: 1.0, "expected a LossTerms, got float"),
    "nothing": (lambda loss: None, "expected a LossTerms, got NoneType"),
    "float_total": (lambda loss: LossTerms(1.0, {}), "`total` is of float"),  # type: ignore[arg-type]
    "vector": (lambda loss: LossTerms(loss.repeat(3), {}), r"`total` is of shape \(3,\)"),
    "float_part": (lambda loss: LossTerms(loss, {"part": 1.0}), "`part` is of float"),  # type: ignore[dict-item]
    "detached": (lambda loss: LossTerms(loss.detach(), {}), "`total` has no gradient"),
}


@pytest.mark.parametrize("name", WRONG)
def test_it_is_named(name: str) -> None:
    change, words = WRONG[name]

    @register_loss(f"wrong-{name}")
    class Wrong(nn.Module):
        def __init__(self, config: ObjectiveConfig) -> None:
            super().__init__()

        def forward(self, feature: Tensor, logits: Tensor, labels: Tensor) -> Any:
            return change(feature.sum())

    loss = build_loss(ObjectiveConfig(loss=f"wrong-{name}"))
    with pytest.raises(AutoReIDError, match=f"loss wrong-{name}: .*{words}"):
        loss(torch.ones(2, 3, requires_grad=True), torch.ones(2, 2), torch.zeros(2, dtype=torch.int64))


def test_a_loss_is_a_module() -> None:
    @register_loss("wrong-type")
    def build(config: ObjectiveConfig) -> Any:
        return lambda feature, logits, labels: None

    with pytest.raises(AutoReIDError, match=r"loss wrong-type: expected an nn\.Module, got function"):
        build_loss(ObjectiveConfig(loss="wrong-type"))


def test_a_builder_without_a_config() -> None:
    @register_loss("no-config")
    class NoConfig(nn.Module):
        def __init__(self) -> None: ...

    words = (
        r"loss no-config \(.*test_wrong_losses\.py:\d+\): cannot be called with \(ObjectiveConfig\): too many"
    )
    with pytest.raises(AutoReIDError, match=words):
        build_loss(ObjectiveConfig(loss="no-config"))


def test_a_builder_that_fails_is_named_with_its_line() -> None:
    @register_loss("failing")
    def failing(config: ObjectiveConfig) -> nn.Module:
        return nn.CrossEntropyLoss(weight=config.weights)  # type: ignore[attr-defined]

    with pytest.raises(AutoReIDError, match=r"loss failing raises AttributeError.*\.py, line \d+$") as caught:
        build_loss(ObjectiveConfig(loss="failing"))
    assert isinstance(caught.value.__cause__, AttributeError)


def test_advice_names_a_users_loss_only() -> None:
    @register_loss("exploding")
    class Exploding(nn.Module):
        def __init__(self, config: ObjectiveConfig) -> None: ...

    own = advice_on_nonfinite(ObjectiveConfig(loss="exploding"))
    assert re.match(
        r"check your loss exploding \(.*test_wrong_losses\.py:\d+\), lower the learning rate", own
    )
    assert advice_on_nonfinite(ObjectiveConfig(loss="ce")).startswith("lower the learning rate")
