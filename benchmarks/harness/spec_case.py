"""Cases made from an `OpSpec`, for ops without a file in ``benchmarks/``: one per dtype, on a sample.

Samples are small; a file in ``benchmarks/`` also has the sizes, peers and least work that matter.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from autoreid_fast import ops
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.ops.contract import dispatcher_op
from autoreid_fast.ops.parity import ROUNDINGS, Call, drawn, first_call, with_leaves
from autoreid_fast.ops.sampling import Draw
from autoreid_fast.ops.spec import OpSpec

from .case import Case, Variant, Work, case_names, find

SEEDS = 24
"""Samples among which the largest is measured."""


def cases_of_file(path: Path) -> list[Case]:
    """Cases of the `OpSpec`s in a Python file: their files in ``benchmarks/``, or samples of the specs.

    Raises:
        AutoReIDError: the file cannot be loaded, or a spec has neither.
    """
    cases = []
    for spec in ops.load_specs(path):
        if spec.benchmark in case_names():
            cases += find([spec.benchmark])
        elif spec.sample is None:
            raise AutoReIDError(
                f"bench: OpSpec `{spec.qualified}` has no `sample`; add one that draws a call"
            )
        else:
            cases += [case_of(spec, dtype) for dtype in spec.dtypes]
    return cases


def case_of(spec: OpSpec, dtype: torch.dtype) -> Case:
    """The op against its reference, on the largest of its samples in one dtype."""
    calls = {seed: _call(spec, dtype, seed) for seed in range(SEEDS)}
    seed, call = max(calls.items(), key=lambda item: _bytes(item[1]))
    ours = _function(dispatcher_op(spec), call)
    leaves = _tensors(with_leaves(call))
    reference = _function(spec.reference, call, _differentiable(ours, leaves))
    accumulation = torch.float64 if dtype == torch.float64 else torch.float32
    return Case(
        name=spec.name,
        variants=tuple(
            Variant({"seed": seed, "bytes": _bytes(call)}, dtype, device) for device in ("cpu", "cuda")
        ),
        inputs=lambda variant: tuple(leaves),
        ours=ours,
        reference=reference,
        work=lambda variant: Work(
            bytes=_bytes(call) + sum(output.nbytes for output in reference(*leaves)), flops=0
        ),
        tolerance=torch.finfo(dtype).eps + ROUNDINGS[accumulation] * torch.finfo(accumulation).eps,
    )


def _call(spec: OpSpec, dtype: torch.dtype, seed: int) -> Call:
    return first_call(spec, drawn(spec, Draw(seed, dtype, layout="contiguous")))


def _differentiable(function: Callable[..., tuple[Tensor, ...]], leaves: list[Tensor]) -> list[bool]:
    """Which outputs have a gradient; empty if the function fails, which its row then says."""
    try:
        return [output.requires_grad for output in function(*leaves)]
    except Exception:
        return []


def _function(
    function: Callable[..., Any], call: Call, differentiable: Sequence[bool] = ()
) -> Callable[..., tuple[Tensor, ...]]:
    """The floating outputs of ``function`` as a function of the call's tensors only.

    Outputs that are not ``differentiable`` are detached: the reference must have the gradients of the op.
    """
    leaves, structure = tree_flatten(call.arguments)

    def outputs(*tensors: Tensor) -> tuple[Tensor, ...]:
        remaining = iter(tensors)
        double = any(tensor.dtype == torch.float64 for tensor in tensors)
        arguments = [
            next(remaining) if isinstance(leaf, Tensor) else _constant(leaf, double) for leaf in leaves
        ]
        results = [
            result
            for result in tree_flatten(function(*tree_unflatten(arguments, structure)))[0]
            if isinstance(result, Tensor) and result.is_floating_point()
        ]
        constant = {index for index, kept in enumerate(differentiable) if not kept}
        return tuple(result.detach() if index in constant else result for index, result in enumerate(results))

    return outputs


def _constant(leaf: Any, double: bool) -> Any:
    """An argument that is not a tensor; a floating dtype becomes float64 with the tensors."""
    return torch.float64 if double and isinstance(leaf, torch.dtype) and leaf.is_floating_point else leaf


def _tensors(arguments: tuple[Any, ...]) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(arguments)[0] if isinstance(leaf, Tensor)]


def _bytes(call: Call) -> int:
    return sum(tensor.nbytes for tensor in _tensors(call.arguments))
