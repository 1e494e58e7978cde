"""`OpSpec`s of `nearest` and `nearest_block`."""

from typing import Any

import torch
from torch import Tensor

from autoreid_fast.ops.arguments import Arguments, Number, TensorArgument
from autoreid_fast.ops.keys import DTYPES, GALLERY, METRIC, METRICS, QUERY, sample_features
from autoreid_fast.ops.nearest import reference
from autoreid_fast.ops.sampling import Draw
from autoreid_fast.ops.spec import BadInput, OpSpec

MAX_NEAREST = 1000

NEAREST_ARGUMENTS = Arguments(
    "nearest",
    (QUERY, GALLERY, Number("k", 1, MAX_NEAREST, whole=True), Number("k", 1, "G", whole=True), METRIC),
    may_be_zero=("Q",),
)
NEAREST_BLOCK_ARGUMENTS = Arguments(
    "nearest_block",
    (
        TensorArgument("block", ("Q", "G"), (torch.float32,)),
        Number("k", 1, MAX_NEAREST, whole=True),
        Number("k", 1, "G", whole=True),
    ),
    may_be_zero=("Q",),
)


def _sample(draw: Draw) -> dict[str, Any]:
    metric = draw.choice(METRICS)
    query, gallery = sample_features(draw, metric)
    return {"query": query, "gallery": gallery, "k": draw.size(1, len(gallery)), "metric": metric}


def _sample_block(draw: Draw) -> dict[str, Any]:
    block = draw.whole(draw.size(1, 12), draw.size(1, 150), high=20, dtype=torch.float32)
    return {"block": block, "k": draw.size(1, block.shape[1])}


def _fake(query: Tensor, gallery: Tensor, k: int, cosine: bool) -> tuple[Tensor, Tensor]:
    return _fake_block(query, k)


def _fake_block(block: Tensor, k: int) -> tuple[Tensor, Tensor]:
    shape = (block.shape[0], k)
    return block.new_empty(shape, dtype=torch.float32), block.new_empty(shape, dtype=torch.int64)


NEAREST = OpSpec(
    name="nearest",
    schema="(Tensor query, Tensor gallery, int k, bool cosine) -> (Tensor keys, Tensor indices)",
    reference=reference.nearest,
    fake=_fake,
    arguments=NEAREST_ARGUMENTS,
    sample=_sample,
    dtypes=DTYPES,
    bad_inputs=(
        BadInput("NaN", lambda sample: {"query": sample["query"] * torch.nan}, "`query` has NaN.* in row 0"),
        BadInput("k above G", lambda sample: {"k": len(sample["gallery"]) + 1}, "`k` is .* with G = "),
        BadInput(
            "k above its limit",
            lambda sample: {"gallery": sample["gallery"][:1].expand(2000, -1), "k": MAX_NEAREST + 1},
            "`k` is 1001; expected 1 to 1000",
        ),
    ),
    benchmark="nearest",
)
NEAREST_BLOCK = OpSpec(
    name="nearest_block",
    schema="(Tensor block, int k) -> (Tensor keys, Tensor indices)",
    reference=reference.nearest_block,
    fake=_fake_block,
    arguments=NEAREST_BLOCK_ARGUMENTS,
    sample=_sample_block,
    dtypes=(torch.float32,),
    bad_inputs=(
        BadInput("k above G", lambda sample: {"k": sample["block"].shape[1] + 1}, "`k` is .* with G = "),
        BadInput(
            "k above its limit",
            lambda sample: {"block": sample["block"][:, :1].expand(-1, 2000), "k": MAX_NEAREST + 1},
            "`k` is 1001; expected 1 to 1000",
        ),
    ),
)
