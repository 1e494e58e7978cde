"""A direct call of a dispatcher op with arguments that do not fit is refused, in a line that names both."""

from collections.abc import Callable

import pytest
import torch

pytest.importorskip("autoreid_fast._cpu", reason="no native library: pure-Python install")
from autoreid_fast import ops

OPS = torch.ops.autoreid_fast
assert ops  # registers the ops

FEATURES, LABELS = torch.randn(4, 2), torch.tensor([0, 0, 1, 1])
QUERY, GALLERY = torch.randn(2, 3), torch.randn(5, 3)
OFFSETS, MATCHES = torch.tensor([0, 1, 2]), torch.tensor([0, 4])
X, DEPTHWISE, POINTWISE = torch.randn(1, 4, 5, 5), torch.randn(1, 4, 3, 3), torch.randn(1, 2, 4)
Z, WEIGHTS = torch.randn(2, 3, 4, 5), torch.ones(2)
VALID = torch.ones(5, dtype=torch.bool)
NONE = torch.tensor([0, 0, 0])
NEIGHBORS = torch.tensor([[0], [1]]).int()


def stencil(x=X, weights=DEPTHWISE, dilations=(1,), stride=1):  # type: ignore[no-untyped-def]
    return OPS.stencil3x3(x, weights, list(dilations), stride, True, True, True)


def separable(x=X, depthwise=DEPTHWISE, pointwise=POINTWISE, dilations=(1,), stride=1):  # type: ignore[no-untyped-def]
    return OPS.separable_conv(x, depthwise, pointwise, list(dilations), stride, True)


def count(**arguments):  # type: ignore[no-untyped-def]
    valid = {
        "valid": VALID,
        "excluded_offsets": NONE,
        "excluded": torch.empty(0, dtype=torch.int64),
        "offsets": OFFSETS,
        "keys": torch.ones(2),
        "indices": MATCHES,
    }
    return OPS.count_closer(QUERY, GALLERY, **{**valid, **arguments}, gallery_offset=0, cosine=False)


def mixed(candidates=(Z, Z), weights=WEIGHTS, kinds=(1, 1), statistics=None):  # type: ignore[no-untyped-def]
    return OPS.mixed_op_sum(list(candidates), weights, list(kinds), statistics, 1e-5)


BAD: dict[str, tuple[Callable[[], object], str]] = {
    "batch_hard rank": (
        lambda: OPS.batch_hard(FEATURES[0], LABELS, 0.3, False),
        "batch_hard: `features` has shape (2); expected (>= 1, >= 1)",
    ),
    "batch_hard size": (
        lambda: OPS.batch_hard(FEATURES, LABELS[:3], 0.3, False),
        "batch_hard: `labels` has shape (3); expected (4)",
    ),
    "batch_hard dtype": (
        lambda: OPS.batch_hard(FEATURES, LABELS.int(), 0.3, False),
        "batch_hard: `labels` is int32; expected int64",
    ),
    "batch_hard floating": (
        lambda: OPS.batch_hard(FEATURES.int(), LABELS, 0.3, False),
        "batch_hard: `features` is int32; expected float32, float16, bfloat16 or float64",
    ),
    "batch_hard_backward index": (
        lambda: OPS.batch_hard_backward(
            torch.ones(()), FEATURES, LABELS + 3, LABELS, torch.ones(4), torch.ones(4), 0.3, False
        ),
        "batch_hard: `positive` has a value that is not from -1 to 3",
    ),
    "match_keys index": (
        lambda: OPS.match_keys(QUERY, GALLERY, OFFSETS, torch.tensor([0, 5]), False),
        "match_keys: `matches` has a value that is not from 0 to 4",
    ),
    "match_keys order": (
        lambda: OPS.match_keys(QUERY, GALLERY, torch.tensor([0, 3, 2]), MATCHES, False),
        "match_keys: `offsets` does not ascend between 0 and the number of entries, 2",
    ),
    "match_keys missing": (
        lambda: OPS.match_keys(QUERY, GALLERY, torch.tensor([0, 1, 1]), MATCHES, False),
        "match_keys: `offsets` does not go from 0 to the number of entries, 2",
    ),
    "match_keys offsets": (
        lambda: OPS.match_keys(QUERY, GALLERY, OFFSETS[:2], MATCHES, False),
        "match_keys: `offsets` has shape (2); expected (3)",
    ),
    "match_keys columns": (
        lambda: OPS.match_keys(QUERY, GALLERY[:, :2], OFFSETS, MATCHES, False),
        "match_keys: `gallery` has shape (5, 2); expected (any, 3)",
    ),
    "match_keys float64": (
        lambda: OPS.match_keys(QUERY.double(), GALLERY, OFFSETS, MATCHES, False),
        "match_keys: `query` is float64; expected float32, float16 or bfloat16",
    ),
    "count_closer valid": (
        lambda: count(valid=VALID[:4]),
        "count_closer: `valid` has shape (4); expected (5)",
    ),
    "count_closer excluded": (
        lambda: count(excluded_offsets=torch.tensor([0, 0, 1]), excluded=torch.tensor([5])),
        "count_closer: `excluded` has a value that is not from 0 to 4",
    ),
    "count_closer indices": (
        lambda: count(indices=MATCHES[:1]),
        "count_closer: `indices` has shape (1); expected (2)",
    ),
    "nearest k": (
        lambda: OPS.nearest(QUERY, GALLERY, 6, False),
        "nearest: `k` is 6; expected 1 to 5, at most the number of gallery entries",
    ),
    "stencil3x3 rank": (
        lambda: stencil(x=X[0]),
        "stencil3x3: `x` has shape (4, 5, 5); expected (>= 1, >= 1, >= 1, >= 1)",
    ),
    "stencil3x3 channels": (
        lambda: stencil(weights=DEPTHWISE[:, :2]),
        "stencil3x3: `weights` has shape (1, 2, 3, 3); expected (any, 4, 3, 3)",
    ),
    "stencil3x3 dtype": (
        lambda: stencil(weights=DEPTHWISE.double()),
        "stencil3x3: `weights` is float64; expected float32",
    ),
    "stencil3x3 dilations": (
        lambda: stencil(dilations=()),
        "stencil3x3: `dilations` has 0 values; expected one per filter, 1",
    ),
    "stencil3x3 dilation": (
        lambda: stencil(dilations=(4,)),
        "stencil3x3: `dilations` has 4; expected 1 or 2",
    ),
    "stencil3x3 stride": (lambda: stencil(stride=3), "stencil3x3: `stride` is 3; expected 1 or 2"),
    "stencil3x3 floating": (
        lambda: stencil(x=X.int(), weights=DEPTHWISE.int()),
        "stencil3x3: `x` is int32; expected float32, float16, bfloat16 or float64",
    ),
    "stencil3x3_backward grad": (
        lambda: OPS.stencil3x3_backward(X[:, :, :2], None, None, X, DEPTHWISE, [1], 1, True, True, True),
        "stencil3x3: `grad_max` has shape (1, 4, 2, 5); expected (1, 4, 5, 5)",
    ),
    "separable_conv depthwise": (
        lambda: separable(depthwise=DEPTHWISE[:, :2]),
        "separable_conv: `depthwise` has shape (1, 2, 3, 3); expected (any, 4, 3, 3)",
    ),
    "separable_conv pointwise": (
        lambda: separable(pointwise=POINTWISE[:, :, :2]),
        "separable_conv: `pointwise` has shape (1, 2, 2); expected (1, >= 1, 4)",
    ),
    "separable_conv filters": (
        lambda: separable(depthwise=DEPTHWISE[:0], pointwise=POINTWISE[:0], dilations=()),
        "separable_conv: `depthwise` has no filter",
    ),
    "separable_conv dtype": (
        lambda: separable(pointwise=POINTWISE.double()),
        "separable_conv: `pointwise` is float64; expected float32",
    ),
    "separable_conv_backward grad": (
        lambda: OPS.separable_conv_backward(
            torch.ones(1, 1, 2, 5, 4), X, DEPTHWISE, POINTWISE, [1], 1, True, True
        ),
        "separable_conv: `grad` has shape (1, 1, 2, 5, 4); expected (1, 1, 2, 5, 5)",
    ),
    "mixed_op_sum sizes": (
        lambda: mixed(candidates=(Z, Z[:1])),
        "mixed_op_sum: `candidates` has shape (1, 3, 4, 5); expected (2, 3, 4, 5)",
    ),
    "mixed_op_sum dtype": (
        lambda: mixed(weights=WEIGHTS.double()),
        "mixed_op_sum: `weights` is float64; expected float32",
    ),
    "mixed_op_sum kind": (lambda: mixed(kinds=(1, 4)), "mixed_op_sum: `kinds` has 4; expected 0 to 3"),
    "mixed_op_sum kinds": (
        lambda: mixed(kinds=(1,)),
        "mixed_op_sum: `kinds` has 1 values; expected one per candidate, 2",
    ),
    "mixed_op_sum no statistics": (
        lambda: mixed(kinds=(1, 2)),
        "mixed_op_sum: `statistics` is None, but `kinds` has 2, a candidate with given statistics",
    ),
    "mixed_op_sum statistics": (
        lambda: mixed(kinds=(1, 3), statistics=torch.zeros(2, 2, 4)),
        "mixed_op_sum: `statistics` has shape (2, 2, 4); expected (2, 2, 3)",
    ),
    "k_reciprocal_rows neighbors": (
        lambda: OPS.k_reciprocal_rows(FEATURES, torch.zeros(3, 2).int(), torch.ones(4), 1),
        "k_reciprocal: `neighbors` has shape (3, 2); expected (4, >= 1)",
    ),
    "k_reciprocal_rows index": (
        lambda: OPS.k_reciprocal_rows(FEATURES, torch.full((4, 2), 4).int(), torch.ones(4), 1),
        "k_reciprocal: `neighbors` has a value that is not from 0 to 3",
    ),
    "k_reciprocal_expand column": (
        lambda: OPS.k_reciprocal_expand(OFFSETS, torch.tensor([0, 2]).int(), torch.ones(2), NEIGHBORS, 1),
        "k_reciprocal: `columns` has a value that is not from 0 to 1",
    ),
    "k_reciprocal_invert offsets": (
        lambda: OPS.k_reciprocal_invert(OFFSETS, torch.tensor([0]).int(), torch.ones(1), 0),
        "k_reciprocal: `offsets` does not ascend between 0 and the number of entries, 1",
    ),
    "k_reciprocal_neighbors count": (
        lambda: OPS.k_reciprocal_neighbors(FEATURES, 5),
        "k_reciprocal: `count` is 5; expected 1 to 4",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_dispatcher_op_refuses(case: str) -> None:
    call, message = BAD[case]
    with pytest.raises(RuntimeError) as caught:
        call()
    assert message in str(caught.value)
