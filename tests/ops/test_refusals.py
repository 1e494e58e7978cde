"""Every op refuses wrong arguments in one line that names the op and the argument; calls from its table."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from autoreid_fast import ops
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.evaluation import protocol
from autoreid_fast.evaluation.protocol import Labels, relevance_of
from autoreid_fast.ops import batch_norm, sync_batch_norm
from autoreid_fast.ops.arguments import (
    Arguments,
    Choice,
    Flag,
    Limit,
    Number,
    Shape,
    TensorArgument,
    TensorListArgument,
    Values,
)
from autoreid_fast.ops.contract import public_function
from autoreid_fast.ops.sampling import Draw
from autoreid_fast.ops.spec import OpSpec

STRANGE_DTYPES = (torch.complex64, torch.int32, torch.float64, torch.float16)


@dataclass(frozen=True)
class Mistake:
    """One wrong call."""

    argument: str
    """Its argument, which the error must name."""
    name: str
    values: dict[str, Any]


def mistakes(table: Arguments, valid: dict[str, Any]) -> Iterator[Mistake]:
    """Every argument of the wrong type, dtype, device, rank, size, count or value; every limit exceeded."""
    for argument in table.arguments:
        if valid.get(argument.name) is None:
            continue
        for name, value in wrong_values(table, argument, valid):
            yield Mistake(argument.name, name, valid | {argument.name: value})
    for pair in table.together:
        if all(valid[name] is not None for name in pair):
            yield from (Mistake(name, "missing", valid | {name: None}) for name in pair)
    for symbol in symbols_of(table) - set(table.may_be_zero):
        yield from resized(table, valid, symbol, 0)
    for limit in table.limits:
        yield from beyond(table, valid, limit)


def wrong_values(table: Arguments, argument: Any, valid: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    value = valid[argument.name]
    if isinstance(argument, TensorArgument):
        yield "no tensor", 3.0
        if not argument.optional:
            yield "None", None
        if argument.contiguous:
            yield "layout", torch.stack([value, value], -1)[..., 0]
        for name, tensor in wrong_tensors(table, argument, argument.shape, value):
            yield name, tensor
    elif isinstance(argument, TensorListArgument):
        yield "no list", value[0]
        yield "one more", [*value, value[0]]
        for index, tensor in enumerate(value):
            if tensor is not None and (index > 0 or argument.optional):
                for name, other in wrong_tensors(table, argument, argument.shape, tensor):
                    yield f"[{index}] {name}", [*value[:index], other, *value[index + 1 :]]
    elif isinstance(argument, Values):
        yield "no list", 3
        yield "one more", [*value, value[0]]
        yield "another value", [*value[1:], -7]
        yield "an array among them", [*value[1:], np.ones(2)]
    elif isinstance(argument, Choice):
        yield "another value", "nonsense"
        yield "an array", np.ones(2)
    elif isinstance(argument, Flag):
        yield "a number", 1
        yield "a tensor", torch.ones(2)
    elif isinstance(argument, Number):
        for strange in (None, "3", True, [2.0], np.ones(2), torch.tensor(1), float("nan")):
            yield f"{strange!r:.9}", strange
        if argument.whole:
            yield "a float", 20.0
            yield "beyond int64", 2**63
        if argument.minimum != float("-inf"):
            yield "too small", argument.minimum - 1
        if argument.maximum != float("inf"):
            yield "too large", 2**63


def wrong_tensors(
    table: Arguments, argument: Any, shape: Shape, tensor: Tensor
) -> Iterator[tuple[str, Tensor]]:
    allowed = argument.dtypes if isinstance(argument.dtypes, tuple) else (tensor.dtype,)
    in_list = isinstance(argument, TensorListArgument)
    for dtype in STRANGE_DTYPES:
        if (dtype not in allowed) or (in_list and dtype != tensor.dtype):
            yield str(dtype), tensor.to(dtype)
    if sum(isinstance(one, TensorArgument | TensorListArgument) for one in table.arguments) > 1:
        yield "device", tensor.to("meta")
    ranks_are_free = shape[-1:] == (...,)
    if not ranks_are_free:
        yield "rank + 1", tensor[None]
    yield "rank 0", tensor.new_zeros(())
    if tensor.ndim > 1 and not (ranks_are_free and tensor.ndim > len(shape)):
        yield "rank - 1", tensor[0]
    uses = Counter(symbol for one in table.arguments for symbol in base_symbols(one.symbols()))
    for dim, size in enumerate(shape):
        if isinstance(size, int) or (isinstance(size, str) and (uses[size] > 1 or "+" in size or in_list)):
            yield f"size {dim} + 1", torch.cat([tensor, tensor.narrow(dim, 0, 1)], dim)


def base_symbols(shape: Shape) -> list[str]:
    return [size.partition("+")[0] for size in shape if isinstance(size, str)]


def symbols_of(table: Arguments) -> set[str]:
    return {symbol for one in table.arguments for symbol in base_symbols(one.symbols())}


def resized(table: Arguments, valid: dict[str, Any], symbol: str, size: int) -> Iterator[Mistake]:
    """A call whose arguments all agree that a symbol has this size."""
    values, named = dict(valid), []
    for argument in table.arguments:
        value = valid.get(argument.name)
        if value is None:
            continue
        if isinstance(argument, TensorArgument):
            values[argument.name] = reshaped(value, argument.shape, symbol, size)
        elif isinstance(argument, TensorListArgument):
            count = size if argument.count == symbol else len(value)
            entries = [None if one is None else reshaped(one, argument.shape, symbol, size) for one in value]
            values[argument.name] = [entries[index % len(entries)] for index in range(count)]
        elif isinstance(argument, Values) and argument.count == symbol:
            values[argument.name] = [value[index % len(value)] for index in range(size)]
        if symbol in base_symbols(argument.symbols()):
            named.append(argument.name)
    if named:
        yield Mistake(named[0], f"{symbol} = {size}", values)


def reshaped(tensor: Tensor, shape: Shape, symbol: str, size: int) -> Tensor:
    sizes = list(tensor.shape)
    for dim, expected in enumerate(shape):
        if isinstance(expected, str) and expected.partition("+")[0] == symbol:
            sizes[dim] = size + int(expected.partition("+")[2] or 0)
    return torch.empty(sizes, dtype=tensor.dtype, device="meta")


def beyond(table: Arguments, valid: dict[str, Any], limit: Limit) -> Iterator[Mistake]:
    symbols = limit.sizes.split("*")
    sizes = {symbol: size_of(table, valid, symbol) for symbol in symbols}
    if None in sizes.values():
        return
    others = 1
    for symbol in symbols[:-1]:
        others *= sizes[symbol] or 1
    if limit.maximum is not None:
        yield from resized(table, valid, symbols[-1], limit.maximum // others + 1)
    if limit.minimum > 1:
        yield from resized(table, valid, symbols[-1], (limit.minimum - 1) // others)


def size_of(table: Arguments, valid: dict[str, Any], symbol: str) -> int | None:
    for argument in table.arguments:
        value = valid.get(argument.name)
        if isinstance(value, Tensor) and symbol in argument.symbols():
            return value.shape[argument.symbols().index(symbol)]
        if isinstance(argument, TensorListArgument) and value is not None and symbol in argument.shape:
            return value[0].shape[argument.shape.index(symbol)]
        if isinstance(value, list | tuple) and argument.symbols()[:1] == (symbol,):
            return len(value)
    return None


def refusals(function: Callable[..., Any], table: Arguments, valid: dict[str, Any]) -> list[str]:
    """The wrong calls that are accepted, or whose error is not one line that names the argument."""
    return [
        f"{mistake.argument} {mistake.name}: {answer}"
        for mistake in mistakes(table, valid)
        if (answer := wrong_answer(function, table, mistake)) is not None
    ]


def wrong_answer(function: Callable[..., Any], table: Arguments, mistake: Mistake) -> str | None:
    try:
        function(**mistake.values)
    except AutoReIDError as error:
        message = str(error)
        right = message.startswith(f"{table.function}: ") and f"`{mistake.argument}" in message
        return None if right and "\n" not in message and "; expected " in message else message
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:90]}"
    return "accepted"


SPECS = [spec for spec in ops.specs() if spec.arguments is not None]


@pytest.mark.parametrize("choice", ["native", "reference"])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_wrong_arguments_are_refused_by_name(spec: OpSpec, choice: ops.contract.Backend) -> None:
    assert spec.arguments is not None and spec.sample is not None
    seen: set[str] = set()
    with ops.backend(choice):
        for seed in range(6):
            valid = spec.sample(Draw(seed, layout="contiguous"))
            new = {name for name, value in valid.items() if value is not None} - seen
            if new:
                public_function(spec)(**valid)
                wrong = refusals(public_function(spec), spec.arguments, valid)
                assert not wrong, "\n".join(wrong)
            seen |= new
    assert seen >= {argument.name for argument in spec.arguments.arguments}, "samples lack an argument"


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.bad_inputs], ids=lambda spec: spec.name)
def test_bad_inputs_of_its_own(spec: OpSpec) -> None:
    assert spec.arguments is not None and spec.sample is not None
    for bad in spec.bad_inputs:
        valid = spec.sample(Draw(0))
        with pytest.raises(AutoReIDError, match=bad.message) as caught:
            public_function(spec)(**valid | bad.change(valid))
        assert str(caught.value).startswith(f"{spec.arguments.function}: "), bad.name


OTHERS: list[tuple[Callable[..., Any], Arguments, dict[str, Any]]] = [
    (
        sync_batch_norm,
        batch_norm.ARGUMENTS,
        {"x": torch.rand(2, 3, 2, 2), "weight": torch.ones(3), "bias": torch.ones(3)},
    ),
    (
        lambda **fields: relevance_of(Labels(**fields)),
        protocol.LABELS,
        {
            "query_pids": torch.tensor([1, 2]),
            "gallery_pids": torch.tensor([1, 2, 2, -1, 1]),
            "query_cams": torch.tensor([1, 1]),
            "gallery_cams": torch.tensor([2, 2, 1, 1, 1]),
        },
    ),
]
"""Functions with a table that are not an op: the function, the table, a valid call."""


@pytest.mark.parametrize(
    ("function", "table", "valid"), OTHERS, ids=[table.function for _, table, _ in OTHERS]
)
def test_tables_of_other_functions(
    function: Callable[..., Any], table: Arguments, valid: dict[str, Any]
) -> None:
    function(**valid)
    wrong = refusals(function, table, valid)
    assert not wrong, "\n".join(wrong)
