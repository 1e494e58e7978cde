"""The objectives against the paper's equations, written out in NumPy."""

import numpy as np
import pytest
import torch

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.losses import LossTerms, ObjectiveConfig, objective

LABELS = torch.tensor([0, 0, 1, 1, 2, 2, 2])


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(seed)
    feature = torch.from_numpy(random.normal(size=(7, 5))).requires_grad_()
    return feature, torch.from_numpy(random.normal(size=(7, 3))).requires_grad_()


def cross_entropy(logits: np.ndarray) -> float:
    """Eq. (3), the mean over the batch."""
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return float(np.mean([-np.log(shares[row, label]) for row, label in enumerate(LABELS.tolist())]))


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
    terms = objective(feature, logits, LABELS, config)
    expected_ce = cross_entropy(logits.detach().numpy())
    expected_triplet = triplet(feature.detach().numpy(), 0.7, form == "printed")
    assert terms.cross_entropy.item() == pytest.approx(expected_ce)
    assert terms.triplet.item() == pytest.approx(expected_triplet)
    assert terms.total.item() == pytest.approx(
        lambda_value * expected_ce + (1 - lambda_value) * expected_triplet
    )


def test_the_cross_entropies_of_strips_add_up() -> None:
    """PCB's loss: one prediction a strip, each with the image's label."""
    feature, _ = batch()
    random = np.random.default_rng(1)
    logits = random.normal(size=(7, 3, 6))
    terms = objective(feature, torch.from_numpy(logits), LABELS, ObjectiveConfig(loss="ce"))
    assert terms.total.item() == pytest.approx(sum(cross_entropy(logits[:, :, i]) for i in range(6)))
    both = objective(feature, torch.from_numpy(logits), LABELS, ObjectiveConfig(margin=0.7))
    expected = 0.5 * terms.total.item() + 0.5 * triplet(feature.detach().numpy(), 0.7, False)
    assert both.total.item() == pytest.approx(expected)


def test_batch_hard_alone() -> None:
    feature, logits = batch()
    terms = objective(feature, logits, LABELS, ObjectiveConfig(loss="triplet", margin=0.7))
    assert terms.total.item() == pytest.approx(triplet(feature.detach().numpy(), 0.7, False))
    assert terms.cross_entropy.item() == 0


def test_the_two_forms_of_the_triplet_loss_differ() -> None:
    feature, logits = batch()
    hinge, printed = (
        objective(feature, logits, LABELS, ObjectiveConfig(triplet=form), "triplet").total.item()
        for form in ("hinge", "printed")
    )
    assert hinge != pytest.approx(printed)


@pytest.mark.parametrize(
    ("loss", "terms", "holds_ce", "holds_triplet"),
    [
        ("ce", None, True, False),
        ("retrieval", None, True, True),
        ("retrieval", "ce", True, False),
        ("retrieval", "triplet", False, True),
        ("ce", "ret", True, True),
    ],
)
def test_terms_that_are_not_in_the_loss_are_zero_and_reach_nothing(
    loss: str, terms: str | None, holds_ce: bool, holds_triplet: bool
) -> None:
    feature, logits = batch()
    result: LossTerms = objective(feature, logits, LABELS, ObjectiveConfig(loss=loss), terms)
    assert (result.cross_entropy.item() != 0) == holds_ce
    assert (result.triplet.item() != 0) == holds_triplet
    gradients = torch.autograd.grad(result.total, (feature, logits), allow_unused=True)
    assert (gradients[0] is not None) == holds_triplet
    assert (gradients[1] is not None) == holds_ce


@pytest.mark.parametrize("form", ["hinge", "printed"])
def test_gradients_match_finite_differences(form: str) -> None:
    feature, logits = batch(3)
    config = ObjectiveConfig(margin=0.9, triplet=form)
    assert torch.autograd.gradcheck(
        lambda f, h: objective(f, h, LABELS, config).total, (feature, logits), eps=1e-6, atol=1e-6
    )


@pytest.mark.parametrize(
    "wrong", [{"lambda_value": 1.5}, {"margin": -0.1}, {"loss": "soft"}, {"triplet": "soft"}, {"lamda": 1}]
)
def test_a_config_that_means_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ObjectiveConfig.model_validate(wrong)


def test_labels_of_another_length_are_named() -> None:
    feature, logits = batch()
    with pytest.raises(AutoReIDError, match="label"):
        objective(feature, logits, LABELS[:-1], ObjectiveConfig(), "triplet")
