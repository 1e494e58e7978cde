"""`ops.batch_hard`: values and gradients, by every implementation on this machine."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from autoreid_fast import ops
from autoreid_fast.ops.batch_hard.spec import BATCH_HARD

KEYS = ("loss", "positive", "negative", "positive_distance", "negative_distance")


def identities(count: int, each: int = 4) -> Tensor:
    return torch.arange(count) // each


def brute_force(x: Tensor, labels: Tensor, margin: float, form: str) -> tuple[float, list[int], list[int]]:
    """The definition, pair by pair, in float64."""
    x = x.double()
    terms, positives, negatives = [], [], []
    for i in range(len(x)):
        distance = [float((x[i] - x[j]).square().sum().sqrt()) for j in range(len(x))]
        same = [j for j in range(len(x)) if labels[j] == labels[i] and j != i]
        other = [j for j in range(len(x)) if labels[j] != labels[i]]
        valid = bool(same and other)
        positives.append(max(same, key=lambda j: (distance[j], -j)) if valid else -1)
        negatives.append(min(other, key=lambda j: (distance[j], j)) if valid else -1)
        if valid:
            excess = distance[positives[-1]] - distance[negatives[-1]]
            terms.append(max(0.0, margin + excess) if form == "hinge" else max(margin, excess))
    return (sum(terms) / len(terms) if terms else 0.0), positives, negatives


@pytest.mark.parametrize("form", ["hinge", "printed"])
@pytest.mark.parametrize(("count", "dim"), [(1, 3), (2, 1), (7, 5), (16, 33), (33, 130)])
def test_equals_the_definition(backend: str, count: int, dim: int, form: ops.Form) -> None:
    x, labels = torch.randn(count, dim), torch.randint(0, max(1, count // 3), (count,))
    loss, positive, negative = brute_force(x, labels, 0.3, form)
    found = ops.batch_hard(x, labels, 0.3, form)
    assert found.positive.tolist() == positive
    assert found.negative.tolist() == negative
    assert float(found.loss) == pytest.approx(loss, rel=1e-5, abs=1e-6)
    assert torch.equal(found.positive_distance == 0, found.positive < 0)


def test_ties_go_to_the_lower_index(backend: str) -> None:
    x = torch.randint(0, 2, (40, 3)).float()
    labels = torch.randint(0, 5, (40,))
    found = ops.batch_hard(x, labels)
    _, positive, negative = brute_force(x, labels, 0.3, "hinge")
    assert (found.positive.tolist(), found.negative.tolist()) == (positive, negative)


def test_close_pairs_far_from_the_origin(backend: str) -> None:
    """|a|^2 + |b|^2 - 2ab would cancel these distances completely."""
    x, labels = 1000 + 0.01 * torch.randn(30, 3), identities(30, 3)
    found = ops.batch_hard(x, labels)
    _, positive, negative = brute_force(x, labels, 0.3, "hinge")
    assert (found.positive.tolist(), found.negative.tolist()) == (positive, negative)


def test_anchors_without_a_pair_are_left_out(backend: str) -> None:
    x = torch.tensor([[0.0], [1.0], [3.0], [3.5]], requires_grad=True)
    labels = torch.tensor([0, 0, 1, 2])
    found = ops.batch_hard(x, labels, margin=2.0)
    assert found.positive.tolist() == [1, 0, -1, -1]
    assert found.negative.tolist() == [2, 2, -1, -1]
    assert found.loss.item() == pytest.approx(((2 + 1 - 3) + (2 + 1 - 2)) / 2)
    found.loss.backward()
    assert x.grad is not None
    # Anchor 0 is at its kink; anchor 1: d/dx of (x1 - x0) - (x2 - x1), halved.
    assert x.grad.flatten().tolist() == [-0.5, 1.0, -0.5, 0.0]


@pytest.mark.parametrize(
    "labels", [torch.zeros(5).long(), torch.arange(5)], ids=["no negative", "no positive"]
)
def test_no_valid_anchor_gives_zero_loss_and_gradient(backend: str, labels: Tensor) -> None:
    x = torch.randn(5, 4, requires_grad=True)
    loss = ops.batch_hard(x, labels).loss
    loss.backward()
    assert loss.item() == 0
    assert x.grad is not None and not x.grad.any()


def test_identical_features_have_gradient_zero(backend: str) -> None:
    x = torch.ones(8, 5, requires_grad=True)
    found = ops.batch_hard(x, identities(8))
    found.loss.backward()
    assert found.loss.item() == pytest.approx(0.3)
    assert found.positive.tolist() == [1, 0, 0, 0, 5, 4, 4, 4]
    assert found.negative.tolist() == [4, 4, 4, 4, 0, 0, 0, 0]
    assert x.grad is not None and not x.grad.any()


def test_a_negative_may_be_infinitely_far(backend: str) -> None:
    found = ops.batch_hard(torch.tensor([[0.5], [1.0], [torch.inf]]), torch.tensor([0, 0, 1]))
    assert (found.positive.tolist(), found.negative.tolist()) == ([1, 0, -1], [2, 2, -1])
    assert found.loss.item() == 0


@pytest.mark.parametrize("form", ["hinge", "printed"])
def test_nan_reaches_loss_and_gradient(backend: str, form: ops.Form) -> None:
    for row in range(
        5
    ):  # row 4 is no anchor's positive and not a valid anchor: it can only be the nearest negative
        x = torch.randn(5, 6)
        x[row, 1] = torch.nan
        x.requires_grad_()
        loss = ops.batch_hard(x, torch.tensor([0, 0, 1, 1, 2]), form=form).loss
        loss.backward()
        assert loss.isnan()
        assert x.grad is not None and x.grad.isnan().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("form", ["hinge", "printed"])
def test_parity(backend: str, dtype: torch.dtype, form: ops.Form) -> None:
    """Error against float64: at most twice that of the reference in this dtype, gradients included."""
    for count, dim in [(64, 2048), (37, 129), (130, 16)]:
        x = torch.randn(count, dim).to(dtype)
        assert_parity(x, identities(count), form)


def assert_parity(x: Tensor, labels: Tensor, form: ops.Form) -> None:
    def run(features: Tensor) -> tuple[ops.BatchHard, Tensor]:
        leaf = features.detach().requires_grad_()
        found = ops.batch_hard(leaf, labels, 0.3, form)
        return found, torch.autograd.grad(found.loss, leaf)[0]

    with ops.backend("reference"):
        exact, exact_grad = run(x.double())
        reference, reference_grad = run(x)
    found, grad = run(x)
    accumulated = torch.finfo(exact.loss.dtype if x.dtype == torch.float64 else torch.float32).eps
    for key in KEYS:
        ours, theirs, truth = (getattr(r, key) for r in (found, reference, exact))
        assert ours.dtype == theirs.dtype
        if ours.dtype == torch.int64:
            assert torch.equal(ours, truth)
            continue
        atol = 8 * accumulated * truth.detach().abs().max().item()
        assert (ours.double() - truth).abs().max() <= 2 * (theirs.double() - truth).abs().max() + atol, key
    assert grad.dtype == x.dtype
    error, reference_error = (
        (grad.double() - exact_grad).norm(),
        (reference_grad.double() - exact_grad).norm(),
    )
    assert error <= 2 * reference_error + 8 * accumulated * exact_grad.norm()
    assert (
        torch.nn.functional.cosine_similarity(grad.double().flatten(), exact_grad.flatten(), dim=0) > 0.9999
    )


STRIDED: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "rows of a larger tensor": lambda x: torch.cat([x, x + 1], 1)[:, : x.shape[1]],
    "unaligned": lambda x: torch.cat([x[:, :1], x], 1)[:, 1:],
    "every other row": lambda x: x.repeat_interleave(2, 0)[::2],
    "transposed": lambda x: x.t().contiguous().t(),
    "every other column": lambda x: x.repeat_interleave(2, 1)[:, ::2],
}


@pytest.mark.parametrize("layout", STRIDED)
def test_strides(backend: str, layout: str) -> None:
    x, labels = torch.randn(12, 37), identities(12)
    strided = STRIDED[layout](x)
    assert torch.equal(strided, x)
    expected, found = ops.batch_hard(x, labels), ops.batch_hard(strided, labels.repeat_interleave(2)[::2])
    for key in KEYS:
        torch.testing.assert_close(getattr(found, key), getattr(expected, key), rtol=1e-6, atol=0)


def test_is_deterministic_for_any_number_of_threads() -> None:
    x, labels = torch.randn(150, 300), identities(150)

    def run() -> list[Tensor]:
        leaf = x.clone().requires_grad_()
        found = ops.batch_hard(leaf, labels)
        found.loss.backward()
        assert leaf.grad is not None
        return [*found, leaf.grad]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        two = run()
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(two, run(), strict=True))


def test_gradcheck(backend: str) -> None:
    x = torch.randn(10, 6, dtype=torch.float64, requires_grad=True)
    labels = identities(10, 3)
    assert torch.autograd.gradcheck(lambda f: ops.batch_hard(f, labels).loss, x)
    assert torch.autograd.gradcheck(lambda f: ops.batch_hard(f, labels, 0.05, "printed").loss, x)


def test_the_reference_is_differentiable_twice() -> None:
    x = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    labels = identities(6, 3)
    with ops.backend("reference"):
        assert torch.autograd.gradgradcheck(lambda f: ops.batch_hard(f, labels).loss, x)


def test_only_the_loss_is_differentiable(backend: str) -> None:
    found = ops.batch_hard(torch.randn(6, 4, requires_grad=True), identities(6, 3))
    assert [getattr(found, key).requires_grad for key in KEYS] == [True, False, False, False, False]


def test_largest_batch() -> None:
    x = torch.randn(ops.MAX_ANCHORS, 3)
    labels = torch.randint(0, 1000, (len(x),))
    found = ops.batch_hard(x, labels)
    with ops.backend("reference"):
        expected = ops.batch_hard(x, labels)
    torch.testing.assert_close(found.loss, expected.loss)
    torch.testing.assert_close(found.positive_distance, expected.positive_distance)


def test_backend_chooses_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setitem(vars(BATCH_HARD), "reference", lambda *a: calls.append(a) or torch.zeros(5).unbind())
    x, labels = torch.randn(4, 2), identities(4, 2)
    with ops.backend("reference"):
        ops.batch_hard(x, labels)
        with ops.backend("native"):
            ops.batch_hard(x, labels)
    ops.batch_hard(x, labels)
    assert len(calls) == 1
