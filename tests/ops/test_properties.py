"""Any shape, stride, dtype and value: native kernels and twins agree, or both refuse in the same words."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from autoreid_fast import ops
from autoreid_fast.errors import AutoReIDError

QUICK = settings(deadline=None, max_examples=60, derandomize=True, database=None)
SPECIAL = [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-40, torch.inf, -torch.inf, torch.nan, 0.5]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


@st.composite
def tensors(
    draw: st.DrawFn, shape: tuple[int, ...], values: str = "any", dtype: torch.dtype = torch.float32
) -> Tensor:
    """A tensor of this shape in any layout: dense, permuted, every other element, expanded, at an offset.

    values: "any" (all that a float can be), "finite", or "ties" (few small whole numbers).
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
    """What `run` gives, tensors in a flat list, or the words of its refusal."""
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


def tolerance(dtype: torch.dtype) -> tuple[float, float]:
    return {torch.float64: (1e-10, 1e-10), torch.float32: (2e-4, 2e-4)}.get(dtype, (2e-2, 2e-2))


@QUICK
@given(st.data())
def test_stencil3x3(data: st.DataObject) -> None:
    n, c, h, w, f = (data.draw(st.integers(low, 5)) for low in (0, 0, 0, 1, 0))
    dtype = data.draw(st.sampled_from(DTYPES))
    x = data.draw(tensors((n, c, h, w), dtype=dtype))
    weights = data.draw(tensors((f, c, 3, 3), "ties", dtype))
    dilations = data.draw(st.lists(st.integers(1, 2), min_size=f, max_size=f))
    stride, relu, pool = data.draw(st.integers(1, 2)), data.draw(st.booleans()), data.draw(st.booleans())
    agree(lambda: ops.stencil3x3(x, weights, dilations, stride, relu, pool, not pool), *tolerance(dtype))


@QUICK
@given(st.data())
def test_separable_conv(data: st.DataObject) -> None:
    n, c, h, w, d, f = (data.draw(st.integers(low, 5)) for low in (0, 1, 1, 1, 0, 0))
    dtype = data.draw(st.sampled_from(DTYPES))
    x = data.draw(tensors((n, c, h, w), "finite", dtype))
    depthwise = data.draw(tensors((f, c, 3, 3), "ties", dtype))
    pointwise = data.draw(tensors((f, d, c), "ties", dtype))
    dilations, stride = [1 + k % 2 for k in range(f)], data.draw(st.integers(1, 2))
    agree(lambda: ops.separable_conv(x, depthwise, pointwise, dilations, stride, True), *tolerance(dtype))


@QUICK
@given(st.data())
def test_mixed_op_sum(data: st.DataObject) -> None:
    n, c, h, w = (data.draw(st.integers(low, 4)) for low in (0, 1, 1, 1))
    dtype = data.draw(st.sampled_from(DTYPES))
    count = data.draw(st.integers(0, 4))
    candidates = [data.draw(tensors((n, c, h, w), "finite", dtype)) for _ in range(count)]
    weights = data.draw(tensors((count,), "finite"))
    flags = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    rtol, atol = tolerance(dtype)
    agree(lambda: ops.mixed_op_sum(candidates, weights, flags, eps=0.1), rtol, 5 * atol)


@QUICK
@given(st.data())
def test_part_attention(data: st.DataObject) -> None:
    n, c, h, w, e, hidden, d = (data.draw(st.integers(low, 5)) for low in (1, 1, 3, 1, 0, 0, 0))
    dtype = data.draw(st.sampled_from(DTYPES))
    shapes = [(e, 4, hidden, c), (e, 4, hidden), (e, hidden, hidden), (e, hidden)]
    shapes += [(e, hidden, hidden), (e, hidden), (e, d, hidden)]
    x = data.draw(tensors((n, c, h, w), "finite", dtype))
    parameters = [data.draw(tensors(shape, "finite")) for shape in shapes]
    rtol, atol = tolerance(dtype)
    agree(lambda: ops.part_attention(x, *parameters, eps=0.1), 5 * rtol, 5 * atol)


@QUICK
@given(st.data())
def test_batch_hard(data: st.DataObject) -> None:
    n, d = data.draw(st.integers(0, 9)), data.draw(st.integers(0, 5))
    dtype = data.draw(st.sampled_from(DTYPES))
    values = data.draw(st.sampled_from(["ties", "finite"]))
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
    if values == "any":
        assert not isinstance(outcome(lambda: ops.nearest(query, gallery, k, metric)), Exception)
        return
    agree(lambda: ops.nearest(query, gallery, k, metric), 0, 1e-6)
    labels = [
        torch.tensor(
            data.draw(st.lists(st.integers(low, 2), min_size=count, max_size=count)), dtype=torch.int64
        )
        for low, count in ((-1, q), (-1, g), (1, q), (1, g))
    ]
    agree(lambda: ops.rank_gallery(query, gallery, *labels, metric), 0, 0)


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


BEYOND = 2**31 + 7


@pytest.mark.parametrize("op", ["stencil3x3", "separable_conv", "mixed_op_sum", "part_attention"])
def test_offsets_beyond_int32_are_shaped_right(op: str) -> None:
    """Meta tensors of more than 2^31 elements: shapes and strides are computed without overflow."""
    x = torch.empty(3, 2**15, 2**8, 2**8, device="meta")
    if op == "stencil3x3":
        found = ops.stencil3x3(x, max_pool=True).max_pool
    elif op == "separable_conv":
        depthwise, pointwise = (
            torch.empty(1, 2**15, 3, 3, device="meta"),
            torch.empty(1, 8, 2**15, device="meta"),
        )
        found = ops.separable_conv(x, depthwise, pointwise, (1,)).z[0]
        assert found.shape == (3, 8, 2**8, 2**8)
        return
    elif op == "mixed_op_sum":
        found = ops.mixed_op_sum([x], torch.empty(1, device="meta"), [False])
    else:
        shapes = ((1, 4, 2, 2**15), (1, 4, 2), (1, 2, 2), (1, 2), (1, 2, 2), (1, 2), (1, 5, 2))
        part = ops.part_attention(x, *(torch.empty(shape, device="meta") for shape in shapes))
        assert part.shape == (1, 3, 4, 5)
        return
    assert found is not None
    assert found.shape == x.shape
    assert found.numel() > BEYOND


def test_rows_beyond_int32_are_read_where_they_lie() -> None:
    """Rows that lie 2^31 elements apart in memory that is mapped but, but for these rows, never touched."""
    storage = torch.empty(BEYOND + 64, dtype=torch.float32)  # 8 GiB of addresses, a few pages of memory
    rows = storage.as_strided((2, 5), (BEYOND, 1))
    rows.copy_(torch.arange(10.0).view(2, 5))
    packed = rows.clone()
    near, far = ops.nearest(rows, rows, 2), ops.nearest(packed, packed, 2)
    assert torch.equal(near.distances, far.distances)
    assert torch.equal(near.indices, far.indices)
    labels = torch.tensor([0, 1])
    wide, small = ops.batch_hard(rows, labels), ops.batch_hard(packed, labels)
    assert all(torch.equal(one, two) for one, two in zip(wide, small, strict=True))
    block = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0]])
    apart = storage.as_strided((2, 3), (BEYOND, 1)).copy_(block)
    assert torch.equal(ops.nearest_block(apart, 3).indices, ops.nearest_block(block, 3).indices)
