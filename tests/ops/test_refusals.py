"""Every public op refuses a wrong dtype, device, rank or size with a line that names the argument."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from autoreid_fast import ops
from autoreid_fast.errors import AutoReIDError

F32, I64 = torch.float32, torch.int64


@dataclass(frozen=True)
class Op:
    """A valid call of one op, and which sizes of its arguments are free."""

    run: Callable[..., Any]
    arguments: dict[str, Any]
    free: tuple[str, ...] = ()
    """`name.dimension`: another size there is a valid call."""
    unlike: tuple[str, ...] = ()
    """`name.dtype`: the argument may have a floating dtype of its own."""


def labels(*values: int) -> Tensor:
    return torch.tensor(values)


def features(count: int) -> Tensor:
    return torch.arange(count * 3.0).view(count, 3) % 5


def found() -> ops.Relevance:
    return ops.relevance(labels(1, 2), labels(1, 2, 2, -1, 1), labels(1, 1), labels(2, 2, 1, 1, 1))


def thresholds() -> ops.Thresholds:
    shard = found()
    keys = ops.match_keys(features(2), features(5), shard)
    return ops.order_thresholds(2, ops.row_of_each(shard.match_offsets), keys, shard.matches)


def part_arguments() -> dict[str, Tensor]:
    shapes = {
        "x": (2, 3, 4, 2),
        "project_weight": (1, 4, 2, 3),
        "project_bias": (1, 4, 2),
        "key_weight": (1, 2, 2),
        "key_bias": (1, 2),
        "query_weight": (1, 2, 2),
        "query_bias": (1, 2),
        "fuse_weight": (1, 5, 2),
        "running_mean": (1, 4, 2),
        "running_var": (1, 4, 2),
        "affine": (2, 1, 4, 2),
    }
    return {name: torch.ones(shape) for name, shape in shapes.items()}


def table() -> dict[str, Op]:
    pair = {"query": features(2), "gallery": features(5)}
    people = {
        "query_pids": labels(1, 2),
        "gallery_pids": labels(1, 2, 2, -1, 1),
        "query_cams": labels(1, 1),
        "gallery_cams": labels(2, 2, 1, 1, 1),
    }
    both = {"query_features": features(2), "gallery_features": features(5)}
    keyed = (ops.count_closer, {**pair, "shard": found(), "thresholds": thresholds()})
    blocked = {"block": torch.rand(2, 5), "shard": found(), "thresholds": thresholds()}
    weights = torch.ones(2, 3, 3, 3)
    all_ops = [
        Op(
            ops.batch_from_cache,
            {
                "images": torch.zeros(4, 3, 2, 3, dtype=torch.uint8),
                "index": labels(0, 3),
                "y": labels(0, 1),
                "x": labels(0, 1),
                "flip": torch.tensor([True, False]),
            },
            free=("images.0", "images.1", "images.2"),
        ),
        Op(ops.batch_hard, {"features": features(4), "labels": labels(0, 0, 1, 1)}, free=("features.1",)),
        Op(*keyed),
        Op(ops.count_closer_block, blocked),
        Op(ops.k_reciprocal, both, free=("query_features.0", "gallery_features.0")),
        Op(ops.k_reciprocal_encode, both, free=("query_features.0", "gallery_features.0")),
        Op(ops.match_keys, {**pair, "shard": found()}),
        Op(
            ops.mixed_op_sum,
            {
                "candidates": [torch.rand(2, 3, 2, 2), torch.rand(2, 3, 2, 2)],
                "weights": torch.ones(2),
                "normalized": [True, False],
                "running_mean": torch.zeros(2, 3),
                "running_var": torch.ones(2, 3),
                "statistics": [torch.ones(2, 3), None],
            },
            unlike=("weights",),
        ),
        Op(ops.nearest, {**pair, "k": 2}, free=("query.0", "gallery.0")),
        Op(ops.nearest_block, {"block": torch.rand(2, 5), "k": 2}, free=("block.0", "block.1")),
        Op(
            ops.order_thresholds,
            {"num_query": 2, "rows": labels(0, 1), "keys": torch.ones(2), "indices": labels(1, 2)},
        ),
        Op(
            ops.part_attention,
            part_arguments(),
            free=("x.0", "x.2", "x.3", "fuse_weight.1"),
            unlike=(*tuple(part_arguments())[1:8], "affine"),
        ),
        Op(ops.rank_distances, {"block": torch.rand(2, 5), "found": found()}),
        Op(ops.rank_gallery, {**pair, **people}),
        Op(ops.relevance, people),
        Op(ops.row_of_each, {"offsets": labels(0, 2, 3)}, free=("offsets.0",)),
        Op(
            ops.separable_conv,
            {
                "x": torch.ones(2, 3, 2, 2),
                "depthwise": weights,
                "pointwise": torch.ones(2, 4, 3),
                "dilations": (1, 2),
            },
            free=("x.0", "x.2", "x.3", "pointwise.1"),
        ),
        Op(
            ops.stencil3x3,
            {"x": torch.ones(2, 3, 2, 2), "weights": weights, "dilations": (1, 2)},
            free=("x.0", "x.2", "x.3"),
        ),
        Op(
            ops.sync_batch_norm,
            {"x": torch.rand(2, 3, 2, 2), "weight": torch.ones(3), "bias": torch.ones(3)},
            free=("x.0", "x.2", "x.3"),
        ),
    ]  # fmt: skip
    return {op.run.__name__: op for op in all_ops}


def wrong(name: str, tensor: Tensor, op: Op) -> Iterator[tuple[str, Tensor]]:
    """Wrong dtypes, device, ranks and sizes in place of one tensor."""
    strangers = [torch.complex64, torch.int32]
    if tensor.is_floating_point() and name not in op.unlike and name != "features":
        strangers += [torch.float64] if "query" not in name and "gallery" not in name else []
    for dtype in strangers:
        yield f"{dtype}", tensor.to(dtype)
    if sum(isinstance(each, Tensor | tuple) for each in op.arguments.values()) > 1:
        yield "device", tensor.to("meta")
    yield "rank + 1", tensor[None]
    yield "rank 0", tensor.sum().to(tensor.dtype)
    if tensor.ndim > 1:
        yield "rank - 1", tensor[0]
    for dim in range(tensor.ndim):
        if f"{name}.{dim}" not in op.free:
            yield f"size {dim} + 1", torch.cat([tensor, tensor.narrow(dim, 0, 1)], dim)


def mistakes(op: Op) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(argument, mistake, arguments with it) for every tensor, also those in lists and named tuples."""
    for name, value in op.arguments.items():
        if isinstance(value, Tensor):
            for what, other in wrong(name, value, op):
                yield name, what, {**op.arguments, name: other}
        elif isinstance(value, ops.Relevance | ops.Thresholds):
            for field, tensor in value._asdict().items():
                for what, other in wrong(field, tensor, op):
                    yield f"{name}.{field}", what, {**op.arguments, name: value._replace(**{field: other})}
        elif isinstance(value, list | tuple):
            yield name, "one more", {**op.arguments, name: [*value, value[0]]}
            for at, each in enumerate(value):
                if isinstance(each, Tensor):
                    for what, other in wrong(name, each, op):
                        changed = [*value[:at], other, *value[at + 1 :]]
                        yield name, f"[{at}] {what}", {**op.arguments, name: changed}


def test_every_public_op_is_in_the_table() -> None:
    functions = {name for name in ops.__all__ if inspect.isfunction(getattr(ops, name))}
    assert functions - {"backend", "load_specs", "runs_native", "specs", "status"} == set(table())


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("name", list(table()))
def test_a_wrong_tensor_is_refused_by_name(name: str, backend: ops.contract.Backend) -> None:
    op = table()[name]
    accepted: list[str] = []
    with ops.backend(backend):
        op.run(**op.arguments)
        for argument, mistake, arguments in mistakes(op):
            try:
                op.run(**arguments)
            except AutoReIDError as error:
                message = str(error)
                if argument.rpartition(".")[2] not in message or "\n" in message:
                    accepted.append(f"{argument} {mistake}: unnamed: {message}")
            except Exception as error:
                accepted.append(f"{argument} {mistake}: {type(error).__name__}: {str(error)[:90]!r}")
            else:
                accepted.append(f"{argument} {mistake}: accepted")
    assert not accepted, "\n".join(accepted)
