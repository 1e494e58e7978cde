"""`OpSpec`s of the five steps of `k_reciprocal`."""

from typing import Any

import torch
from torch import Tensor

from autoreid_fast.ops.arguments import FLOATING, Arguments, Number, SameAs, TensorArgument
from autoreid_fast.ops.k_reciprocal import reference
from autoreid_fast.ops.sampling import Draw
from autoreid_fast.ops.spec import BadInput, OpSpec

_TABLE = (
    TensorArgument("query_features", ("Q", "D"), FLOATING),
    TensorArgument("gallery_features", ("G", "D"), SameAs("query_features")),
    Number("k1", 1, whole=True),
    Number("k2", 1, whole=True),
    Number("lambda_value", 0, 1),
)
ARGUMENTS = Arguments("k_reciprocal", _TABLE)
ENCODE_ARGUMENTS = Arguments("k_reciprocal_encode", _TABLE)

_CSR = "(Tensor offsets, Tensor columns, Tensor values)"

_BAD_INPUTS = (
    BadInput(
        "NaN",
        lambda sample: {"query_features": sample["query_features"] * torch.nan},
        "`query_features` has NaN.* in row 0",
    ),
    BadInput(
        "too large",
        lambda sample: {name: sample[name].float() + 1e30 for name in ("query_features", "gallery_features")},
        "`query_features` has .*too large",
    ),
)


def _sample(draw: Draw) -> dict[str, Any]:
    """Whole numbers, so that every implementation finds the same neighbours."""
    dim = draw.size(1, 12)
    return {
        "query_features": draw.whole(draw.size(1, 9), dim),
        "gallery_features": draw.whole(draw.size(1, 70), dim),
        "k1": draw.size(1, 24),
        "k2": draw.size(1, 8),
        "lambda_value": draw.choice((0.0, 0.3, 1.0)),
    }


def _fake_neighbors(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    total = features.shape[0]
    return features.new_empty((total, count), dtype=torch.int32), features.new_empty((total,))


def _fake_csr(offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    entries = torch.library.get_ctx().new_dynamic_size()
    return (
        offsets,
        offsets.new_empty((entries,), dtype=torch.int32),
        offsets.new_empty((entries,), dtype=torch.float32),
    )


def _fake_rows(
    features: Tensor, neighbors: Tensor, farthest: Tensor, k1: int
) -> tuple[Tensor, Tensor, Tensor]:
    return _fake_csr(features.new_empty((features.shape[0] + 1,), dtype=torch.int64))


def _fake_from_csr(
    offsets: Tensor, columns: Tensor, values: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return _fake_csr(torch.empty_like(offsets))


def _fake_block(queries: Tensor, gallery: Tensor, *rest: Any) -> Tensor:
    return queries.new_empty((queries.shape[0], gallery.shape[0]))


NEIGHBORS = OpSpec(
    name="k_reciprocal_neighbors",
    schema="(Tensor features, int count) -> (Tensor neighbors, Tensor farthest)",
    reference=reference.neighbors,
    fake=_fake_neighbors,
)
ROWS = OpSpec(
    name="k_reciprocal_rows",
    schema=f"(Tensor features, Tensor neighbors, Tensor farthest, int k1) -> {_CSR}",
    reference=reference.rows,
    fake=_fake_rows,
)
EXPAND = OpSpec(
    name="k_reciprocal_expand",
    schema=f"(Tensor offsets, Tensor columns, Tensor values, Tensor neighbors, int k2) -> {_CSR}",
    reference=reference.expand,
    fake=_fake_from_csr,
)
INVERT = OpSpec(
    name="k_reciprocal_invert",
    schema=f"(Tensor offsets, Tensor columns, Tensor values, int first) -> {_CSR}",
    reference=reference.invert,
    fake=_fake_from_csr,
    arguments=ENCODE_ARGUMENTS,  # the last step of `k_reciprocal_encode`
    sample=_sample,
    dtypes=(torch.float32,),
    bad_inputs=_BAD_INPUTS,
)
BLOCK = OpSpec(
    name="k_reciprocal_block",
    schema="(Tensor queries, Tensor gallery, Tensor farthest, Tensor offsets, Tensor columns, Tensor values, "
    "Tensor inverse_offsets, Tensor inverse_rows, Tensor inverse_values, float lambda_value) -> Tensor",
    reference=reference.block,
    fake=_fake_block,
    arguments=ARGUMENTS,  # the last step of `k_reciprocal`
    sample=_sample,
    dtypes=(torch.float32, torch.bfloat16),  # all dtypes are computed in float32
    bad_inputs=_BAD_INPUTS,
    benchmark="k_reciprocal",
)
