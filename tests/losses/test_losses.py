"""Losses compared with the paper's equations, written out in NumPy."""

import numpy as np
import pytest
import torch
from torch import nn

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.losses import (
    LOSSES,
    BatchHardTriplet,
    CrossEntropy,
    IdentityLoss,
    LossTerms,
    ObjectiveConfig,
    RetrievalLoss,
    TripletLoss,
    build_loss,
)

LABELS = torch.tensor([0, 0, 1, 1, 2, 2, 2])


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (7, 5) and logits (7, 3), float64, that require gradients."""
    random = np.random.default_rng(seed)
    feature = torch.from_numpy(random.normal(size=(7, 5))).requires_grad_()
    return feature, torch.from_numpy(random.normal(size=(7, 3))).requires_grad_()


def cross_entropy(logits: np.ndarray) -> float:
    """Eq. (3), the mean over the batch."""
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return float(np.mean([-np.log(probabilities[row, label]) for row, label in enumerate(LABELS.tolist())]))


def triplet(feature: np.ndarray, margin: float, printed: bool) -> float:
    """Eq. (4): each anchor with its farthest positive and its nearest negative."""
    losses = []
    for anchor, label in enumerate(LABELS.tolist()):
        distance = np.sqrt(((feature - feature[anchor]) ** 2).sum(axis=1))
        same = LABELS.numpy() == label
        gap = distance[same].max() - distance[~same].min()
        losses.append(max(margin, gap) if printed else max(0.0, margin + gap))
    return float(np.mean(losses))


@pytest.mark.parametrize("form", ["hinge", "printed"])
@pytest.mark.parametrize("lambda_value", [0.0, 0.5, 0.8, 1.0])
def test_retrieval_loss_is_equation_5(lambda_value: float, form: str) -> None:
    feature, logits = batch()
    config = ObjectiveConfig(lambda_value=lambda_value, margin=0.7, triplet=form)
    loss: LossTerms = build_loss(config)(feature, logits, LABELS)
    expected_ce = cross_entropy(logits.detach().numpy())
    expected_triplet = triplet(feature.detach().numpy(), 0.7, form == "printed")
    assert loss.terms["cross_entropy"].item() == pytest.approx(expected_ce)
    assert loss.terms["triplet"].item() == pytest.approx(expected_triplet)
    expected = lambda_value * expected_ce + (1 - lambda_value) * expected_triplet
    assert loss.total.item() == pytest.approx(expected)


def test_cross_entropies_of_strips_add_up() -> None:
    """PCB's loss: one prediction per strip, each with the image's label."""
    feature, _ = batch()
    logits = np.random.default_rng(1).normal(size=(7, 3, 6))
    expected_ce = sum(cross_entropy(logits[:, :, strip]) for strip in range(6))
    assert CrossEntropy()(torch.from_numpy(logits), LABELS).item() == pytest.approx(expected_ce)
    loss = RetrievalLoss(margin=0.7)(feature, torch.from_numpy(logits), LABELS)
    expected = 0.5 * expected_ce + 0.5 * triplet(feature.detach().numpy(), 0.7, False)
    assert loss.total.item() == pytest.approx(expected)


@pytest.mark.parametrize("form", ["hinge", "printed"])
def test_batch_hard_triplet(form: str) -> None:
    feature, logits = batch()
    expected = triplet(feature.detach().numpy(), 0.7, form == "printed")
    assert BatchHardTriplet(0.7, form)(feature, LABELS).item() == pytest.approx(expected)
    loss = build_loss(ObjectiveConfig(loss="triplet", margin=0.7, triplet=form))(feature, logits, LABELS)
    assert loss.total.item() == pytest.approx(expected)


def test_both_forms_of_the_triplet_loss_differ() -> None:
    feature, _ = batch()
    hinge, printed = (BatchHardTriplet(form=form)(feature, LABELS).item() for form in ("hinge", "printed"))
    assert hinge != pytest.approx(printed)


@pytest.mark.parametrize(
    ("name", "kind", "has_ce", "has_triplet"),
    [
        ("ce", IdentityLoss, True, False),
        ("triplet", TripletLoss, False, True),
        ("retrieval", RetrievalLoss, True, True),
    ],
)
def test_a_term_outside_the_loss_is_zero_and_has_no_gradient(
    name: str, kind: type[nn.Module], has_ce: bool, has_triplet: bool
) -> None:
    feature, logits = batch()
    module = build_loss(ObjectiveConfig(loss=name))
    assert type(module) is kind
    loss: LossTerms = module(feature, logits, LABELS)
    assert (loss.terms["cross_entropy"].item() != 0) == has_ce
    assert (loss.terms["triplet"].item() != 0) == has_triplet
    gradients = torch.autograd.grad(loss.total, (feature, logits), allow_unused=True)
    assert (gradients[0] is not None) == has_triplet
    assert (gradients[1] is not None) == has_ce


@pytest.mark.parametrize("form", ["hinge", "printed"])
def test_gradients_match_finite_differences(form: str) -> None:
    feature, logits = batch(3)
    loss = RetrievalLoss(margin=0.9, form=form)
    assert torch.autograd.gradcheck(
        lambda f, h: loss(f, h, LABELS).total, (feature, logits), eps=1e-6, atol=1e-6
    )


@pytest.mark.parametrize(
    "wrong", [{"lambda_value": 1.5}, {"margin": -0.1}, {"loss": "soft"}, {"triplet": "soft"}, {"lamda": 1}]
)
def test_invalid_configs_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ObjectiveConfig.model_validate(wrong)


def test_labels_of_another_length_are_named() -> None:
    feature, _ = batch()
    with pytest.raises(AutoReIDError, match="label"):
        BatchHardTriplet()(feature, LABELS[:-1])


def test_a_loss_with_parameters_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    LOSSES.names()  # registers the built-in ones
    monkeypatch.setattr(LOSSES, "_entries", dict(LOSSES._entries))
    LOSSES.register("learned")(lambda config: nn.Linear(2, 1))
    with pytest.raises(AutoReIDError, match="learned: has parameters"):
        build_loss(ObjectiveConfig(loss="learned"))
