"""`OpSpec`s of `match_keys`, `count_closer` and `count_closer_block`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from autoreid_fast.ops.arguments import Arguments, Number, TensorArgument
from autoreid_fast.ops.csr import offsets_of
from autoreid_fast.ops.keys import DTYPES, GALLERY, METRIC, METRICS, QUERY, sample_features
from autoreid_fast.ops.rank_gallery import reference
from autoreid_fast.ops.sampling import Draw
from autoreid_fast.ops.spec import BadInput, OpSpec

INT64 = (torch.int64,)

THRESHOLDS = (
    TensorArgument("valid", ("G",), (torch.bool,)),
    TensorArgument("excluded_offsets", ("Q+1",), INT64),
    TensorArgument("excluded", ("X",), INT64),
    TensorArgument("offsets", ("Q+1",), INT64),
    TensorArgument("keys", ("M",), (torch.float32,)),
    TensorArgument("indices", ("M",), INT64),
    Number("gallery_offset", 0, 2**63 - 1, whole=True),
)
THRESHOLDS_SCHEMA = (
    "Tensor valid, Tensor excluded_offsets, Tensor excluded, Tensor offsets, Tensor keys, Tensor indices, "
    "int gallery_offset"
)

MATCH_KEYS_ARGUMENTS = Arguments(
    "match_keys",
    (
        QUERY,
        GALLERY,
        TensorArgument("offsets", ("Q+1",), INT64),
        TensorArgument("matches", ("M",), INT64),
        METRIC,
    ),
    may_be_zero=("Q", "G", "M"),
)
COUNT_CLOSER_ARGUMENTS = Arguments(
    "count_closer", (QUERY, GALLERY, *THRESHOLDS, METRIC), may_be_zero=("Q", "G", "M", "X")
)
COUNT_CLOSER_BLOCK_ARGUMENTS = Arguments(
    "count_closer_block",
    (TensorArgument("block", ("Q", "G"), (torch.float32,)), *THRESHOLDS),
    may_be_zero=("Q", "G", "M", "X"),
)


def _sample_match_keys(draw: Draw) -> dict[str, Any]:
    metric = draw.choice(METRICS)
    query, gallery = sample_features(draw, metric)
    offsets, matches = _sample_rows(draw, len(query), len(gallery))
    return {"query": query, "gallery": gallery, "offsets": offsets, "matches": matches, "metric": metric}


def _sample_count_closer(draw: Draw) -> dict[str, Any]:
    metric = draw.choice(METRICS)
    query, gallery = sample_features(draw, metric)
    thresholds = _sample_thresholds(draw, len(query), len(gallery), metric)
    return {"query": query, "gallery": gallery, **thresholds, "metric": metric}


def _sample_count_closer_block(draw: Draw) -> dict[str, Any]:
    block = draw.whole(draw.size(1, 12), draw.size(1, 150), high=20, dtype=torch.float32)
    queries, entries = block.shape
    return {"block": block, **_sample_thresholds(draw, queries, entries, "euclidean")}


def _sample_thresholds(draw: Draw, queries: int, entries: int, metric: str) -> dict[str, Any]:
    """Thresholds at some entries with keys of their own, and a few excluded entries."""
    scale = 16 if metric == "cosine" else 1
    keys = draw.integers(-16, 40, queries, entries).float() / scale
    keys, indices = keys.sort(dim=1, stable=True)
    chosen = draw.flags(queries, entries)
    gallery_offset = draw.choice((0, 3))
    excluded_offsets, excluded = _sample_rows(draw, queries, entries)
    return {
        "valid": draw.flags(entries),
        "excluded_offsets": excluded_offsets,
        "excluded": excluded,
        "offsets": offsets_of(chosen.sum(1)),
        "keys": keys[chosen],
        "indices": indices[chosen] + gallery_offset,
        "gallery_offset": gallery_offset,
    }


def _sample_rows(draw: Draw, queries: int, entries: int) -> tuple[Tensor, Tensor]:
    """Some entries per query, ascending: offsets and indices."""
    chosen = draw.flags(queries, entries) & draw.flags(queries, entries)
    return offsets_of(chosen.sum(1)), chosen.nonzero()[:, 1]


def _fake_match_keys(
    query: Tensor, gallery: Tensor, offsets: Tensor, matches: Tensor, cosine: bool
) -> Tensor:
    return query.new_empty(matches.shape, dtype=torch.float32)


def _fake_count_closer(query: Tensor, gallery: Tensor, *thresholds: Any) -> Tensor:
    *_, indices, _gallery_offset, _cosine = thresholds
    return indices.new_empty(indices.shape)


def _fake_count_closer_block(block: Tensor, *thresholds: Any) -> Tensor:
    *_, indices, _gallery_offset = thresholds
    return indices.new_empty(indices.shape)


def _one_more(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """One entry more than the offsets have."""
    return lambda sample: {name: torch.cat([sample[name], sample[name].new_zeros(1)])}


_BAD_FEATURES = (
    BadInput("NaN", lambda sample: {"query": sample["query"] * torch.nan}, "`query` has NaN.* in row 0"),
    BadInput("too large", lambda sample: {"gallery": sample["gallery"] + 1e38}, "`gallery` has .*too large"),
)

MATCH_KEYS = OpSpec(
    name="match_keys",
    schema="(Tensor query, Tensor gallery, Tensor offsets, Tensor matches, bool cosine) -> Tensor",
    reference=reference.match_keys,
    fake=_fake_match_keys,
    arguments=MATCH_KEYS_ARGUMENTS,
    sample=_sample_match_keys,
    dtypes=DTYPES,
    bad_inputs=(
        *_BAD_FEATURES,
        BadInput("end of offsets", _one_more("matches"), "`matches` has .*the last of `offsets`"),
    ),
    benchmark="rank_gallery",
)
COUNT_CLOSER = OpSpec(
    name="count_closer",
    schema=f"(Tensor query, Tensor gallery, {THRESHOLDS_SCHEMA}, bool cosine) -> Tensor",
    reference=reference.count_closer,
    fake=_fake_count_closer,
    arguments=COUNT_CLOSER_ARGUMENTS,
    sample=_sample_count_closer,
    dtypes=DTYPES,
    bad_inputs=(
        *_BAD_FEATURES,
        BadInput("end of offsets", _one_more("excluded"), "`excluded` has .*the last of `excluded_offsets`"),
    ),
    benchmark="rank_gallery",
)
COUNT_CLOSER_BLOCK = OpSpec(
    name="count_closer_block",
    schema=f"(Tensor block, {THRESHOLDS_SCHEMA}) -> Tensor",
    reference=reference.count_closer_block,
    fake=_fake_count_closer_block,
    arguments=COUNT_CLOSER_BLOCK_ARGUMENTS,
    sample=_sample_count_closer_block,
    dtypes=(torch.float32,),
    bad_inputs=(
        BadInput("end of offsets", _one_more("excluded"), "`excluded` has .*the last of `excluded_offsets`"),
    ),
)
