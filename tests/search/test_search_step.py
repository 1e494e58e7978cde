"""One step pair of Algorithm 1 against a reference written out step by step."""

import copy
import math
from typing import Any

import pytest
import torch

from autoreid_fast.losses import build_loss
from autoreid_fast.search.algorithm import SearchAlgorithm, build_algorithm
from autoreid_fast.search.config import SearchConfig
from autoreid_fast.training.schedule import cosine, step_decay

SMALL = {"channels": 3, "cells_per_block": (1, 1, 1, 1), "embedding_dim": 8, "dropout": 0.0}


def searcher(**changes: Any) -> SearchAlgorithm:
    torch.manual_seed(7)
    return build_algorithm(SearchConfig.model_validate(SMALL | changes), 3, torch.device("cpu"))


def batches() -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 6, 3, 128, 32, generator=generator)
    return (images[0], torch.tensor([0, 0, 1, 1, 2, 2])), (images[1], torch.tensor([2, 2, 0, 0, 1, 1]))


def values(parameters: list[torch.nn.Parameter]) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in parameters]


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def running_means(model: torch.nn.Module) -> list[torch.Tensor]:
    return [buffer.clone() for name, buffer in model.named_buffers() if name.endswith("running_mean")]


def test_each_step_changes_only_its_own_parameters_and_the_batch_statistics() -> None:
    search = searcher()
    alpha, omega, means = values(search.alpha), values(search.omega), running_means(search.model)
    assert {id(p) for p in search.model.parameters()} == {id(p) for p in search.alpha + search.omega}
    assert not {id(p) for p in search.alpha} & {id(p) for p in search.omega}
    seen = []

    def after_omega(*_: object) -> None:
        assert equal(values(search.alpha), alpha), "the omega step moved alpha"
        assert all(parameter.grad is None for parameter in search.alpha), "it computed a gradient of alpha"
        assert not equal(values(search.omega), omega)
        omega[:] = values(search.omega)
        new_means = running_means(search.model)
        assert not any(torch.equal(a, b) for a, b in zip(new_means, means, strict=True))
        means[:] = new_means
        seen.append("omega")

    def after_alpha(*_: object) -> None:
        assert equal(values(search.omega), omega), "the alpha step moved omega"
        assert not any(torch.equal(a, b) for a, b in zip(values(search.alpha), alpha, strict=True))
        new_means = running_means(search.model)
        assert not any(torch.equal(a, b) for a, b in zip(new_means, means, strict=True))
        seen.append("alpha")

    search.omega_optimizer.register_step_post_hook(after_omega)
    search.alpha_optimizer.register_step_post_hook(after_alpha)
    search.step(*batches())
    assert seen == ["omega", "alpha"]


@pytest.mark.parametrize(
    ("changes", "alpha_loss"),
    [
        ({}, "retrieval"),
        ({"alpha_loss": "triplet"}, "triplet"),
        ({"objective": {"loss": "ce"}}, "ce"),
        ({"objective": {"loss": "ce"}, "alpha_loss": "triplet"}, "ce"),
        (
            {"objective": {"triplet": "printed", "lambda_value": 0.25}, "omega": {"gradient_clip": 1e9}},
            "retrieval",
        ),
    ],
)
def test_a_step_is_sgd_on_omega_then_adam_on_alpha(changes: dict[str, Any], alpha_loss: str) -> None:
    search = searcher(**changes)
    search.set_epoch(0)
    config = search.config
    reference = copy.deepcopy(search.model)
    reference_alpha = [reference.backbone.alpha_normal, reference.backbone.alpha_reduce]
    reference_omega = [p for p in reference.parameters() if all(p is not alpha for alpha in reference_alpha)]
    (images, labels), (val_images, val_labels) = batches()

    # Line 3: omega on D_train. Clipped SGD from rest: omega -= lr (g + wd omega).
    output = reference(images)
    expected_omega_loss = build_loss(config.objective)(output.feature, output.logits, labels).total
    expected_omega_loss.backward()
    norm = math.sqrt(sum(float(p.grad.double().square().sum()) for p in reference_omega))
    shrink = min(1.0, config.omega.gradient_clip / (norm + 1e-6))
    with torch.no_grad():
        for p in reference_omega:
            p -= 0.1 * (shrink * p.grad + 0.0005 * p)
    # Line 5: alpha on D_val, with the new omega. Adam's first step: alpha -= lr g / (|g| + eps).
    reference.zero_grad()
    output = reference(val_images)
    alpha_objective = config.objective.model_copy(update={"loss": alpha_loss})
    expected_alpha_loss = build_loss(alpha_objective)(output.feature, output.logits, val_labels).total
    expected_alpha_loss.backward()
    expected_alpha = []
    for p in reference_alpha:
        gradient = p.grad + 0.0005 * p.detach()
        expected_alpha.append(p.detach() - 0.02 * gradient / (gradient.abs() + 1e-8))

    losses = search.step((images, labels), (val_images, val_labels))

    torch.testing.assert_close(
        torch.stack(losses), torch.stack([expected_omega_loss, expected_alpha_loss]).detach()
    )
    for parameter, expected in zip(search.omega, reference_omega, strict=True):
        torch.testing.assert_close(parameter, expected, rtol=1e-4, atol=1e-6)
    for parameter, expected in zip(search.alpha, expected_alpha, strict=True):
        # Adam's first step is lr times a sign, which rounding may flip for tiny gradients
        agreement = torch.isclose(parameter, expected, rtol=1e-3, atol=1e-4).float().mean()
        assert agreement > 0.98


def rates(search: SearchAlgorithm, epoch: int) -> tuple[float, float]:
    search.set_epoch(epoch)
    return (
        search.omega_optimizer.param_groups[0]["lr"],
        search.alpha_optimizer.param_groups[0]["lr"],
    )


def test_the_searchs_schedules_are_the_papers() -> None:
    """omega: 0.1 to 0.001 by a cosine over 200 epochs; alpha: 0.02, divided by 10 at the 60th and 150th."""
    search = searcher()
    expected = {
        0: (0.1, 0.02),
        50: (0.001 + 0.099 * (1 + math.sqrt(0.5)) / 2, 0.02),
        59: (None, 0.02),
        60: (None, 0.002),
        100: (0.0505, 0.002),
        149: (None, 0.002),
        150: (0.001 + 0.099 * (1 - math.sqrt(0.5)) / 2, 0.0002),
        199: (None, 0.0002),
    }
    for epoch, (omega, alpha) in expected.items():
        omega_rate, alpha_rate = rates(search, epoch)
        assert omega is None or omega_rate == pytest.approx(omega)
        assert alpha_rate == pytest.approx(alpha)
    assert cosine(200, 200, 0.1, 0.001) == pytest.approx(0.001)
    assert 0.001 < rates(search, 199)[0] < 0.0011
    group = search.omega_optimizer.param_groups[0]
    assert (group["momentum"], group["weight_decay"]) == (0.9, 0.0005)
    assert search.alpha_optimizer.param_groups[0]["weight_decay"] == 0.0005
    assert isinstance(search.omega_optimizer, torch.optim.SGD)
    assert isinstance(search.alpha_optimizer, torch.optim.Adam)


def test_the_trainings_schedule_is_the_papers() -> None:
    """0.0035, divided by 10 at the 80th and 150th epoch."""
    decayed = [step_decay(epoch, 0.0035, (80, 150)) for epoch in (0, 79, 80, 149, 150, 239)]
    assert decayed == pytest.approx([0.0035, 0.0035, 0.00035, 0.00035, 0.000035, 0.000035])
