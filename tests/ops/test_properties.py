"""Any shape, stride, dtype and value: native kernels and references agree, or raise the same error."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from autoreid_fast import ops
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.evaluation.protocol import Labels, order_thresholds, relevance_of
from autoreid_fast.evaluation.ranking import rank_distances, rank_gallery
from autoreid_fast.ops.csr import row_indices

QUICK = settings(deadline=None, max_examples=60, derandomize=True, database=None)
SPECIAL = [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-40, torch.inf, -torch.inf, torch.nan, 0.5]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


@st.composite
def tensors(
    draw: st.DrawFn, shape: tuple[int, ...], values: str = "any", dtype: torch.dtype = torch.float32
) -> Tensor:
    """A tensor of this shape: dense, permuted, every other element, expanded, or at an offset.

    values: "any" (special values included), "finite", or "ties" (few small whole numbers).
    """
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    layout = draw(st.sampled_from(["dense", "permuted", "strided", "expanded", "offset"]))
    order = draw(st.permutations(range(len(shape)))) if layout == "permuted" else list(range(len(shape)))
    size = [shape[dim] for dim in order]
    if layout == "strided":
        size = [2 * each for each in size]
    if layout == "offset":
        size = [each + 1 for each in size]
    x = torch.randn(size, generator=random)
    if values == "ties":
        x = torch.randint(-1, 2, size, generator=random).float()
    elif values == "any" and draw(st.booleans()):
        chosen = torch.tensor(draw(st.lists(st.sampled_from(SPECIAL), min_size=1, max_size=4)))
        where = torch.randint(0, 4, size, generator=random) == 0
        x = torch.where(where, chosen[torch.randint(0, len(chosen), size, generator=random)], x)
    x = x.to(dtype)
    if layout == "strided":
        x = x[(slice(None, None, 2),) * len(size)]
    if layout == "offset":
        x = x[(slice(1, None),) * len(size)]
    x = x.permute([order.index(dim) for dim in range(len(shape))])
    if layout == "expanded" and len(shape) and shape[0] > 0:
        x = x[:1].expand(shape)
    assert x.shape == shape
    return x


def outcome(run: Callable[[], Any]) -> Any:
    """Outputs of `run` in a flat list, or the message of its error."""
    try:
        found = run()
    except AutoReIDError as error:
        return str(error)
    return [each for each in (found if isinstance(found, tuple) else (found,)) if each is not None]


def agree(run: Callable[[], Any], rtol: float, atol: float) -> None:
    ours = outcome(run)
    with ops.backend("reference"):
        theirs = outcome(run)
    if isinstance(ours, str) or isinstance(theirs, str):
        assert ours == theirs
        return
    for one, two in zip(ours, theirs, strict=True):
        assert (one.shape, one.dtype) == (two.shape, two.dtype)
        torch.testing.assert_close(one, two, rtol=rtol, atol=atol, equal_nan=True)


def gradients_agree(run: Callable[[], Any], leaves: list[Tensor], rtol: float, atol: float) -> None:
    """`agree`, also on the gradients of the leaves; the gradients of the outputs are small whole numbers."""

    def with_gradients() -> tuple[Tensor | None, ...]:
        outputs = outcome(run)
        if isinstance(outputs, str):
            raise AutoReIDError(outputs)
        kept = [each for each in outputs if each.requires_grad]
        grads = [torch.arange(each.numel()).view(each.shape).remainder(5).sub(2).to(each) for each in kept]
        found = torch.autograd.grad(kept, leaves, grads, allow_unused=True) if kept else ()
        return (*(each.detach() for each in outputs), *found)

    for leaf in leaves:
        leaf.requires_grad_()
    agree(with_gradients, rtol, atol)


def tolerance(dtype: torch.dtype) -> tuple[float, float]:
    return {torch.float64: (1e-10, 1e-10), torch.float32: (2e-4, 2e-4)}.get(dtype, (2e-2, 2e-2))


@QUICK
@given(st.data())
def test_stencil3x3(data: st.DataObject) -> None:
    n, c, h, w, f = (data.draw(st.integers(0, 5)) for _ in range(5))
    dtype = data.draw(st.sampled_from(DTYPES))
    x = data.draw(tensors((n, c, h, w), dtype=dtype))
    weights = data.draw(tensors((f, c, 3, 3), "ties", dtype))
    dilations = data.draw(st.lists(st.integers(1, 2), min_size=f, max_size=f))
    stride, relu, pool = data.draw(st.integers(1, 2)), data.draw(st.booleans()), data.draw(st.booleans())
    gradients_agree(
        lambda: ops.stencil3x3(x, weights, dilations, stride, relu, pool, not pool),
        [x, weights],
        *tolerance(dtype),
    )


@QUICK
@given(st.data())
def test_separable_conv(data: st.DataObject) -> None:
    n, c, h, w, d, f = (data.draw(st.integers(0, 5)) for _ in range(6))
    dtype = data.draw(st.sampled_from(DTYPES))
    x = data.draw(tensors((n, c, h, w), data.draw(st.sampled_from(["any", "finite"])), dtype))
    depthwise = data.draw(tensors((f, c, 3, 3), "ties", dtype))
    pointwise = data.draw(tensors((f, d, c), "ties", dtype))
    dilations, stride = [1 + k % 2 for k in range(f)], data.draw(st.integers(1, 2))
    gradients_agree(
        lambda: ops.separable_conv(x, depthwise, pointwise, dilations, stride, True),
        [x, depthwise, pointwise],
        *tolerance(dtype),
    )


@QUICK
@given(st.data())
def test_mixed_op_sum(data: st.DataObject) -> None:
    n, c, h, w, count = (data.draw(st.integers(0, 4)) for _ in range(5))
    dtype, values = data.draw(st.sampled_from(DTYPES)), data.draw(st.sampled_from(["any", "finite"]))
    candidates = [data.draw(tensors((n, c, h, w), values, dtype)) for _ in range(count)]
    weights = data.draw(tensors((count,), "finite"))
    flags = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    rtol, atol = tolerance(dtype)
    run = lambda: ops.mixed_op_sum(candidates, weights, flags, eps=0.1)  # noqa: E731
    gradients_agree(run, [*candidates, weights], rtol, 5 * atol)


@QUICK
@given(st.data())
def test_part_attention(data: st.DataObject) -> None:
    n, c, h, w, e, hidden, d = (data.draw(st.integers(low, 5)) for low in (0, 0, 3, 0, 0, 0, 0))
    dtype = data.draw(st.sampled_from(DTYPES))
    shapes = [(e, 4, hidden, c), (e, 4, hidden), (e, hidden, hidden), (e, hidden)]
    shapes += [(e, hidden, hidden), (e, hidden), (e, d, hidden)]
    x = data.draw(tensors((n, c, h, w), data.draw(st.sampled_from(["any", "finite"])), dtype))
    parameters = [data.draw(tensors(shape, "finite")) for shape in shapes]
    rtol, atol = tolerance(dtype)
    gradients_agree(lambda: ops.part_attention(x, *parameters, eps=0.1), [x, *parameters], 5 * rtol, 5 * atol)


@QUICK
@given(st.data())
def test_sync_batch_norm(data: st.DataObject) -> None:
    """In one process: batch norm in training, by sums in float64."""
    shape = data.draw(st.lists(st.integers(0, 4), min_size=2, max_size=5))
    dtype = data.draw(st.sampled_from(DTYPES))
    x = data.draw(tensors(tuple(shape), data.draw(st.sampled_from(["any", "finite"])), dtype))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    weight, bias = (data.draw(tensors((shape[1],), "finite", wide)) for _ in range(2))
    if x.numel() in (0, shape[1]):  # empty, or one value per channel
        with pytest.raises(AutoReIDError, match="sync_batch_norm: `x` has shape"):
            ops.sync_batch_norm(x, weight, bias)
        return
    leaves = [each.requires_grad_() for each in (x, weight, bias)]
    found, statistics = ops.sync_batch_norm(x, weight, bias, eps=0.1)
    exact = [each.detach().double().requires_grad_() for each in leaves]
    dims = [dim for dim in range(x.ndim) if dim != 1]
    channel = [-1 if dim == 1 else 1 for dim in range(x.ndim)]
    mean, centred = exact[0].mean(dims, keepdim=True), exact[0] - exact[0].mean(dims, keepdim=True)
    variance = centred.square().mean(dims, keepdim=True)
    expected = centred * (variance + 0.1).rsqrt() * exact[1].view(channel) + exact[2].view(channel)
    grad = torch.arange(found.numel()).view(shape).remainder(5).sub(2)
    pairs = [(found, expected), (statistics.mean, mean.flatten()), (statistics.variance, variance.flatten())]
    pairs += zip(
        torch.autograd.grad(found, leaves, grad.to(found)),
        torch.autograd.grad(expected, exact, grad.double()),
        strict=True,
    )
    rtol, atol = tolerance(dtype)
    for ours, truth in pairs:
        truth = truth.to(ours.dtype)
        torch.testing.assert_close(ours, truth, rtol=5 * rtol, atol=5 * atol, equal_nan=True)


@QUICK
@given(st.data())
def test_batch_hard(data: st.DataObject) -> None:
    n, d = data.draw(st.integers(0, 9)), data.draw(st.integers(0, 5))
    dtype = data.draw(st.sampled_from(DTYPES))
    values = data.draw(st.sampled_from(["ties", "finite", "any"]))
    x = data.draw(tensors((n, d), values, dtype))
    labels = torch.tensor(data.draw(st.lists(st.integers(-2, 3), min_size=n, max_size=n)), dtype=torch.int64)
    form = data.draw(st.sampled_from(["hinge", "printed", "other"]))
    agree(lambda: ops.batch_hard(x, labels, 0.3, form), 1e-5, 1e-5)


@QUICK
@given(st.data())
def test_nearest_and_ranks(data: st.DataObject) -> None:
    q, g, d = (data.draw(st.integers(0, 7)) for _ in range(3))
    dtype = data.draw(st.sampled_from(DTYPES))
    values = data.draw(st.sampled_from(["ties", "any"]))  # ties are exact in both
    query, gallery = data.draw(tensors((q, d), values, dtype)), data.draw(tensors((g, d), values, dtype))
    metric = data.draw(st.sampled_from(["euclidean", "sqeuclidean"]))
    k = data.draw(st.integers(0, 8))
    if values == "any":  # rounding may order near neighbours otherwise, but their distances are the same
        agree(lambda: ops.nearest(query, gallery, k, metric).distances, 1e-3, 1e-3)
        return
    agree(lambda: ops.nearest(query, gallery, k, metric), 0, 1e-6)
    names = protocol(data, q, g)
    agree(lambda: rank_gallery(query, gallery, Labels(*names), metric), 0, 0)


def protocol(data: st.DataObject, q: int, g: int) -> list[Tensor]:
    """Identities and cameras of q queries and g gallery entries: junk, distractors, true matches."""
    return [
        torch.tensor(
            data.draw(st.lists(st.integers(low, 2), min_size=count, max_size=count)), dtype=torch.int64
        )
        for low, count in ((-1, q), (-1, g), (1, q), (1, g))
    ]


def sorted_ranks(block: Tensor, query: list[int], gallery: list[int], cams: list[list[int]]) -> list[int]:
    """The protocol by sorting: every true match's place among the entries that its query ranks."""
    ranks = []
    for row, pid in enumerate(query):
        own = [
            entry
            for entry, other in enumerate(gallery)
            if other != -1 and not (other == pid and cams[0][row] == cams[1][entry])
        ]
        order = sorted(own, key=lambda entry: (block[row, entry].item(), entry))
        ranks += [place for place, entry in enumerate(order, 1) if pid == gallery[entry] != -1]
    return ranks


@QUICK
@given(st.data())
def test_ranks_of_given_distances(data: st.DataObject) -> None:
    """`relevance_of`, `order_thresholds`, `count_closer_block`: against sorting; in shards, far along."""
    q, g = data.draw(st.integers(0, 4)), data.draw(st.integers(0, 9))
    block = data.draw(tensors((q, g), data.draw(st.sampled_from(["ties", "any"])))).nan_to_num(nan=0.25)
    block = block.clamp(-1e9, 1e9)  # finite, with zeros of both signs, denormals and ties
    names = protocol(data, q, g)
    found = relevance_of(Labels(*names))
    agree(lambda: rank_distances(block, found), 0, 0)
    ranked = rank_distances(block, found)
    query, gallery, *cams = [each.tolist() for each in names]
    assert ranked.ranks.tolist() == sorted_ranks(block, query, gallery, cams)
    assert ranked.offsets.tolist() == found.match_offsets.tolist()

    rows = row_indices(found.match_offsets)
    start, cut = data.draw(st.sampled_from([0, 2**31 + 7, 2**40])), data.draw(st.integers(0, g))
    keys, indices = block[rows, found.matches], found.matches + start
    counts = torch.zeros_like(indices)
    thresholds = order_thresholds(q, rows, keys, indices)
    for first, last in ((0, cut), (cut, g)):
        shard = relevance_of(Labels(*names).shard(first, last))
        lists = (shard.valid, shard.excluded_offsets, shard.excluded, *thresholds)
        counts += ops.count_closer_block(block[:, first:last], *lists, start + first)
    assert torch.equal(counts + 1, ranked.ranks)


@QUICK
@given(st.data())
def test_nearest_block(data: st.DataObject) -> None:
    q, g = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 40))
    block = data.draw(tensors((q, g), "any")).nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf)
    block = data.draw(st.sampled_from([block, block.T.contiguous().T]))
    agree(lambda: ops.nearest_block(block, data.draw(st.just(min(3, g)))), 0, 0)


@QUICK
@given(st.data())
def test_k_reciprocal(data: st.DataObject) -> None:
    q, g, d = (data.draw(st.integers(0, 8)) for _ in range(3))
    query, gallery = (data.draw(tensors((n, d), "ties", data.draw(st.sampled_from(DTYPES)))) for n in (q, g))
    k1, k2 = data.draw(st.integers(0, 20)), data.draw(st.integers(0, 9))
    agree(lambda: ops.k_reciprocal(query, gallery.to(query), k1, k2, 0.3), 1e-5, 1e-5)


@QUICK
@given(st.data())
def test_batch_from_cache(data: st.DataObject) -> None:
    n, h, w, b = (data.draw(st.integers(low, 4)) for low in (0, 0, 1, 0))
    images = torch.randint(0, 256, (n, h, w, 3), dtype=torch.uint8)
    index = torch.tensor(
        data.draw(st.lists(st.integers(0, max(n - 1, 0)), min_size=b, max_size=b)), dtype=torch.int64
    )
    far = st.sampled_from([0, 1, -3, 4, 2**31, -(2**31), 2**62, -(2**62)])
    y, x = (
        torch.tensor(data.draw(st.lists(far, min_size=b, max_size=b)), dtype=torch.int64) for _ in range(2)
    )
    agree(lambda: ops.batch_from_cache(images, index, y, x, index % 2 == 0), 0, 0)
