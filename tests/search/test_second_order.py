"""Second-order gradient of alpha against exact double backward; state after its four passes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from autoreid_fast.search.algorithm import Batch, SearchAlgorithm, build_algorithm
from autoreid_fast.search.algorithms import second_order
from autoreid_fast.search.algorithms.second_order import unrolled_gradients
from autoreid_fast.search.config import SearchConfig

RATE, MOMENTUM, DECAY = 0.1, 0.9, 0.01
SMALL = {
    "channels": 3,
    "cells_per_block": (1, 1, 1, 1),
    "embedding_dim": 4,
    "dropout": 0.0,
    "objective": {"loss": "ce"},
    "order": 2,
    "omega": {"learning_rate": RATE, "momentum": MOMENTUM, "weight_decay": DECAY},
}
Weights = dict[str, Tensor]


class Toy(nn.Module):
    """Two smooth paths, mixed by alpha."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.randn(2))
        self.unused = nn.Parameter(torch.randn(2))
        self.one, self.other = nn.Linear(5, 4), nn.Linear(5, 4)
        self.last = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.softmax(self.alpha, dim=0)
        return self.last(weight[0] * torch.tanh(self.one(x)) + weight[1] * torch.sin(self.other(x)))


def exact(
    losses: tuple[Callable[[Weights], Tensor], Callable[[Weights], Tensor]],
    optimizer: torch.optim.Optimizer,
    omega: Weights,
    alpha: Weights,
) -> tuple[list[Tensor], list[Tensor]]:
    """d L_val(w'(alpha), alpha) / d alpha by double backward: in total, and the part through w'."""
    train, val = losses
    gradients = torch.autograd.grad(train({**omega, **alpha}), list(omega.values()), create_graph=True)
    moved: Weights = {}
    for (name, w), gradient in zip(omega.items(), gradients, strict=True):
        buffer = optimizer.state[w].get("momentum_buffer", torch.zeros_like(w))
        moved[name] = w - RATE * (MOMENTUM * buffer + gradient + DECAY * w)
    detached = {name: w.detach() for name, w in moved.items()}
    both = torch.autograd.grad(val({**moved, **alpha}), list(alpha.values()), materialize_grads=True)
    direct = torch.autograd.grad(val({**detached, **alpha}), list(alpha.values()), materialize_grads=True)
    return list(both), [a - b for a, b in zip(both, direct, strict=True)]


@pytest.mark.parametrize("steps_before", [0, 2], ids=["at rest", "with momentum"])
def test_it_is_the_exact_gradient_of_a_smooth_network(steps_before: int) -> None:
    toy = Toy().double()
    x, y = torch.randn(2, 8, 5, dtype=torch.float64), torch.randn(2, 8, 1, dtype=torch.float64)
    alpha = {"alpha": toy.alpha, "unused": toy.unused}
    omega = {name: p for name, p in toy.named_parameters() if name not in alpha}
    optimizer = torch.optim.SGD(omega.values(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)

    def loss(split: int) -> Callable[[Weights], Tensor]:
        return lambda weights: (functional_call(toy, weights, x[split]) - y[split]).square().mean()

    for _ in range(steps_before):
        optimizer.zero_grad()
        loss(0)({}).backward()
        optimizer.step()
    expected, through_omega = exact((loss(0), loss(1)), optimizer, omega, alpha)
    value, gradients = unrolled_gradients(
        lambda: loss(0)({}), lambda: loss(1)({}), list(alpha.values()), optimizer, toy.buffers()
    )
    assert value > 0
    assert not value.requires_grad
    assert not gradients[1].any()
    for gradient, exact_gradient, part in zip(gradients, expected, through_omega, strict=True):
        torch.testing.assert_close(gradient - (exact_gradient - part), part, rtol=1e-2, atol=1e-9)
    assert through_omega[0].abs().max() > 1e-5


def searcher(**changes: Any) -> SearchAlgorithm:
    torch.manual_seed(7)
    return build_algorithm(SearchConfig.model_validate(SMALL | changes), 3, torch.device("cpu"))


def batches(dtype: torch.dtype = torch.float32) -> tuple[Batch, Batch]:
    images = torch.randn(2, 6, 3, 128, 16, generator=torch.Generator().manual_seed(1)).to(dtype)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    return (images[0], labels), (images[1], labels.flip(0))


def test_it_is_the_exact_gradient_of_a_supernet(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a small displacement, as float64 allows: batch norms on small images curve the loss a lot."""
    monkeypatch.setattr(second_order, "DISPLACEMENT", 1e-6)
    search = searcher(supernet="reference")  # which can be differentiated twice
    search.model.double()
    train, val = batches(torch.float64)
    search.step(train, val)  # gives SGD its momentum
    alpha = {f"backbone.{name}": getattr(search.supernet, name) for name in ("alpha_normal", "alpha_reduce")}
    omega = {name: p for name, p in search.model.named_parameters() if name not in alpha}

    def loss(batch: Batch) -> Callable[[Weights], Tensor]:
        images, labels = batch
        return lambda w: nn.functional.cross_entropy(functional_call(search.model, w, images).logits, labels)

    for group in search.omega_optimizer.param_groups:
        assert group["lr"] == RATE
    expected, through_omega = exact((loss(train), loss(val)), search.omega_optimizer, omega, alpha)
    gradients: list[Tensor] = []
    search.alpha_optimizer.register_step_pre_hook(
        lambda *_: gradients.extend(p.grad.clone() for p in search.alpha)
    )
    search._step_alpha(train, val)
    for gradient, exact_gradient, part in zip(gradients, expected, through_omega, strict=True):
        atol = 1e-6 * part.abs().max().item()
        torch.testing.assert_close(gradient - (exact_gradient - part), part, rtol=1e-5, atol=atol)
        assert part.norm() > 0.1 * exact_gradient.norm()


def test_weights_statistics_and_momentum_are_restored_bit_for_bit() -> None:
    search = searcher(dropout=0.5)
    search.model.train()
    train, val = batches()
    search.step(train, val)
    state = {name: tensor.clone() for name, tensor in search.model.state_dict().items()}
    momentum = [search.omega_optimizer.state[p]["momentum_buffer"].clone() for p in search.omega]
    search._step_alpha(train, val)
    changed = {
        name for name, tensor in search.model.state_dict().items() if not torch.equal(tensor, state[name])
    }
    assert changed == {"backbone.alpha_normal", "backbone.alpha_reduce"}
    for p, before in zip(search.omega, momentum, strict=True):
        assert torch.equal(search.omega_optimizer.state[p]["momentum_buffer"], before)


def test_weights_are_restored_if_a_pass_fails() -> None:
    toy = Toy()
    omega = [p for name, p in toy.named_parameters() if name not in ("alpha", "unused")]
    before = [p.detach().clone() for p in omega]
    optimizer = torch.optim.SGD(omega, lr=RATE)

    def fails() -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unrolled_gradients(lambda: toy(torch.randn(8, 5)).sum(), fails, [toy.alpha], optimizer, [])
    assert all(torch.equal(p, value) for p, value in zip(omega, before, strict=True))


def test_the_four_passes_of_a_step_use_the_same_random_numbers() -> None:
    toy, seen = Toy(), []
    omega = [p for name, p in toy.named_parameters() if name not in ("alpha", "unused")]
    optimizer = torch.optim.SGD(omega, lr=RATE)

    def loss() -> Tensor:
        seen.append(torch.rand(3))
        return toy(torch.ones(8, 5)).square().sum()

    for _ in range(2):
        unrolled_gradients(loss, loss, [toy.alpha], optimizer, [])
    assert len(seen) == 8
    assert all(torch.equal(numbers, seen[0]) for numbers in seen[:4])
    assert all(torch.equal(numbers, seen[4]) for numbers in seen[4:])
    assert not torch.equal(seen[0], seen[4])
