"""Argument tables: the shapes, dtypes, devices and limits of an op's arguments as data, and one checker.

A table reads like the op's docstring. Sizes are numbers or symbols, and a symbol means the same size in
every argument of the call:

    Arguments(
        "batch_hard",
        (
            TensorArgument("features", ("N", "D"), FLOATING),
            TensorArgument("labels", ("N",), (torch.int64,)),
            Choice("form", ("hinge", "printed")),
        ),
        limits=(Limit("N", maximum=4096, hint="split the batch"),),
    )

All tensors of a call must be on the device of the first one. Every error says which function and argument
is wrong, what it is, and what was expected:

    batch_hard: `labels` has shape (5,); expected (N,) with N = 4 as in `features`
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from types import EllipsisType
from typing import Any, NoReturn

import torch
from torch import Tensor

from autoreid_fast.errors import AutoReIDError

FLOATING = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""The dtypes of the dense ops; float64 runs on CUDA by the reference."""

MAX_POSITIONS = 2**31 - 4097
"""Largest N * H * W of the Triton kernels: their last tile must end within int32."""

Size = int | str
"""A number, a symbol ("N"), or a symbol plus a number ("Q+1")."""
Shape = tuple[Size | EllipsisType, ...]
"""Sizes; a last ``...`` stands for any further dimensions."""


@dataclass(frozen=True)
class SameAs:
    """The dtype of another argument, which stands before this one in the table."""

    argument: str


@dataclass(frozen=True)
class AccumulationOf:
    """float64 if another argument is float64, float32 otherwise."""

    argument: str


DTypes = tuple[torch.dtype, ...] | SameAs | AccumulationOf


def accumulation_dtype(x: Tensor) -> torch.dtype:
    """Dtype of sums over x: float64 for float64, float32 for every other dtype."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


@dataclass
class _Call:
    """Sizes, dtypes and device that the arguments checked so far have fixed."""

    function: str
    sizes: dict[str, int] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    """Symbol: the argument that fixed it."""
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: dict[str, torch.dtype] = field(default_factory=dict)
    first: str = ""
    device: torch.device | None = None

    def refuse(self, argument: str, problem: str, expected: str, hint: str = "") -> NoReturn:
        raise AutoReIDError(
            f"{self.function}: `{argument}` {problem}; expected {expected}" + (f": {hint}" if hint else "")
        )

    def matches(self, size: int, expected: Size, argument: str) -> bool:
        """Whether a size is the expected one; a symbol that is still free becomes this size."""
        if isinstance(expected, int):
            return size == expected
        symbol, plus, more = expected.partition("+")
        if plus:
            size -= int(more)
        if symbol not in self.sizes:
            self.sizes[symbol], self.sources[symbol] = size, argument
        return self.sizes[symbol] == size

    def known(self, symbols: Sequence[Size | EllipsisType], argument: str) -> str:
        """The sizes among ``symbols`` that other arguments have fixed, for an error message."""
        names = [str(symbol).partition("+")[0] for symbol in symbols if isinstance(symbol, str)]
        fixed = [name for name in dict.fromkeys(names) if self.sources.get(name, argument) != argument]
        said = [f"{name} = {self.sizes[name]} as in `{self.sources[name]}`" for name in fixed]
        return f" with {', '.join(said)}" if said else ""

    def check_tensor(self, name: str, value: Any, shape: Shape, dtypes: DTypes) -> None:
        if not isinstance(value, Tensor):
            self.refuse(name, f"is a {type(value).__name__}", "a tensor")
        self.check_shape(name, value, shape)
        allowed = self.allowed(dtypes)
        if value.dtype not in allowed:
            like = (
                ""
                if isinstance(dtypes, tuple)
                else f" with `{dtypes.argument}` " + str(self.dtypes[dtypes.argument])
            )
            self.refuse(name, f"is {value.dtype}", either(allowed) + like, f"call {name}.to({allowed[0]})")
        if self.device is None:
            self.first, self.device = name, value.device
        elif value.device != self.device:
            self.refuse(name, f"is on {value.device}", f"{self.device}, the device of `{self.first}`",
                        f'call {name}.to("{self.device}")')  # fmt: skip
        self.shapes[name], self.dtypes[name] = value.shape, value.dtype

    def check_shape(self, name: str, value: Tensor, shape: Shape) -> None:
        open_end = bool(shape) and shape[-1] is ...
        named = shape[:-1] if open_end else shape
        fits = value.ndim >= len(named) if open_end else value.ndim == len(named)
        if fits:
            for size, expected in zip(value.shape, named, strict=False):
                assert not isinstance(expected, EllipsisType)
                fits = fits and self.matches(size, expected, name)
        if not fits:
            expected = f"{written(shape)}{self.known(shape, name)}"
            self.refuse(name, f"has shape {tuple(value.shape)}", expected)

    def allowed(self, dtypes: DTypes) -> tuple[torch.dtype, ...]:
        if isinstance(dtypes, SameAs):
            return (self.dtypes[dtypes.argument],)
        if isinstance(dtypes, AccumulationOf):
            return (torch.float64 if self.dtypes[dtypes.argument] == torch.float64 else torch.float32,)
        return dtypes

    def check_count(self, name: str, count: int, symbol: str) -> None:
        if not self.matches(count, symbol, name):
            self.refuse(name, f"has {count} entries", f"{symbol}{self.known((symbol,), name)}")


@dataclass(frozen=True)
class TensorArgument:
    """A tensor of one shape and one of some dtypes."""

    name: str
    shape: Shape
    dtypes: DTypes
    optional: bool = False
    """Whether None is a valid value."""
    contiguous: bool = False
    """Whether only contiguous tensors are accepted."""
    updated: bool = False
    """Whether the function changes it in place."""

    def check(self, call: _Call, value: Any) -> None:
        if value is None and self.optional:
            return
        call.check_tensor(self.name, value, self.shape, self.dtypes)
        if self.contiguous and not value.is_contiguous():
            call.refuse(
                self.name, "is not contiguous", "a contiguous tensor", f"call {self.name}.contiguous()"
            )

    def symbols(self) -> Shape:
        return self.shape


@dataclass(frozen=True)
class TensorListArgument:
    """``count`` tensors of one shape and dtype."""

    name: str
    count: str
    shape: Shape
    dtypes: DTypes
    optional: bool = False
    optional_entries: bool = False
    """Whether an entry may be None."""

    def check(self, call: _Call, value: Any) -> None:
        if value is None and self.optional:
            return
        if not isinstance(value, list | tuple):
            call.refuse(self.name, f"is a {type(value).__name__}", "a list of tensors")
        if len(value) == 0:
            call.refuse(self.name, "is empty", "at least one tensor")
        call.check_count(self.name, len(value), self.count)
        dtypes = self.dtypes
        for index, tensor in enumerate(value):
            if tensor is None and self.optional_entries:
                continue
            call.check_tensor(f"{self.name}[{index}]", tensor, self.shape, dtypes)
            if index == 0 and isinstance(dtypes, tuple):
                call.dtypes[self.name], dtypes = tensor.dtype, SameAs(f"{self.name}[0]")

    def symbols(self) -> Shape:
        return (self.count, *self.shape)


@dataclass(frozen=True)
class Values:
    """A list or tuple of ``count`` numbers or flags, each one of ``choices``."""

    name: str
    count: str
    choices: tuple[Any, ...]

    def check(self, call: _Call, value: Any) -> None:
        if not isinstance(value, list | tuple):
            call.refuse(self.name, f"is a {type(value).__name__}", f"a list of {either(self.choices)}")
        call.check_count(self.name, len(value), self.count)
        for number in value:
            if number not in self.choices:
                call.refuse(self.name, f"is {tuple(value)}", f"only {either(self.choices)}")

    def symbols(self) -> Shape:
        return (self.count,)


@dataclass(frozen=True)
class Choice:
    """One of a few values: a string, a number or a dtype."""

    name: str
    choices: tuple[Any, ...]

    def check(self, call: _Call, value: Any) -> None:
        if value not in self.choices:
            call.refuse(self.name, f"is {value!r}", either(self.choices))

    def symbols(self) -> Shape:
        return ()


@dataclass(frozen=True)
class Number:
    """A number between two bounds, both allowed."""

    name: str
    minimum: float
    maximum: float | str = float("inf")
    """A number, or a symbol that an argument before this one fixes."""

    def check(self, call: _Call, value: Any) -> None:
        if isinstance(self.maximum, str):
            highest: float = call.sizes[self.maximum]
            said = f"{highest}{call.known((self.maximum,), self.name)}"
        else:
            highest, said = self.maximum, str(self.maximum)
        if not self.minimum <= value <= highest:
            bounds = f"at least {self.minimum}" if highest == float("inf") else f"{self.minimum} to {said}"
            call.refuse(self.name, f"is {value}", bounds)

    def symbols(self) -> Shape:
        return ()


Argument = TensorArgument | TensorListArgument | Values | Choice | Number


@dataclass(frozen=True)
class Limit:
    """Bounds on a size, or on a product of sizes ("N*H*W")."""

    sizes: str
    minimum: int = 0
    maximum: int = 2**63 - 1
    hint: str = ""
    """The way out: "split the batch"."""

    def check(self, call: _Call) -> None:
        symbols = self.sizes.split("*")
        if any(symbol not in call.sizes for symbol in symbols):
            return  # an optional argument that was not given
        if not self.minimum <= prod([call.sizes[symbol] for symbol in symbols]) <= self.maximum:
            argument = call.sources[symbols[0]]
            problem = (
                f"has shape {tuple(call.shapes[argument])}"
                if argument in call.shapes
                else (f"has {call.sizes[symbols[0]]} entries")
            )
            low, high = f"{self.minimum} <= " if self.minimum else "", ""
            if self.maximum < 2**63 - 1:
                high = f" <= {self.maximum}"
            call.refuse(argument, problem, f"{low}{' * '.join(symbols)}{high}", self.hint)


@dataclass(frozen=True)
class Arguments:
    """The argument table of one function."""

    function: str
    """Its name, as error messages give it."""
    arguments: tuple[Argument, ...]
    """In the order of the signature; tensors before those that refer to them."""
    limits: tuple[Limit, ...] = ()
    may_be_zero: tuple[str, ...] = ()
    """Symbols of sizes that may be 0; all others are at least 1."""
    together: tuple[tuple[str, str], ...] = ()
    """Pairs of optional arguments of which both or neither must be given."""

    def check(self, **values: Any) -> None:
        """Check the arguments of one call; those that are not in the table are not checked.

        Raises:
            AutoReIDError: a wrong type, shape, dtype, device, layout, size or value.
        """
        call = _Call(self.function)
        for argument in self.arguments:
            argument.check(call, values[argument.name])
        for symbol, size in call.sizes.items():
            if size < 1 and symbol not in self.may_be_zero:
                self._refuse_zero(call, symbol)
        for limit in self.limits:
            limit.check(call)
        for one, other in self.together:
            if (values[one] is None) != (values[other] is None):
                given, missing = (one, other) if values[other] is None else (other, one)
                call.refuse(missing, "is None", f"a tensor, as `{given}` is given", "give both or neither")

    def _refuse_zero(self, call: _Call, symbol: str) -> NoReturn:
        name = call.sources[symbol]
        if name not in call.shapes:
            call.refuse(name, "is empty", f"at least one entry ({symbol} >= 1)")
        shape = tuple(call.shapes[name])
        call.refuse(name, f"has shape {shape}", f"{symbol} >= 1{self._shape_of(name)}")

    def _shape_of(self, name: str) -> str:
        for argument in self.arguments:
            if isinstance(argument, TensorArgument | TensorListArgument) and name.startswith(argument.name):
                return f" in {written(argument.shape)}"
        return ""


def written(shape: Shape) -> str:
    """A shape as documentation writes it: (N, C, 3, 3), (N,)."""
    sizes = ["..." if size is ... else str(size).replace("+", " + ") for size in shape]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def either(values: Sequence[Any]) -> str:
    """'a', 'b' or 'c'."""
    said = [repr(value) if isinstance(value, str) else str(value) for value in values]
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} or {said[-1]}"


def flattened(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a structured argument as the table names them: ``relevance.matches``."""
    return {f"{name}.{key}": value for key, value in fields.items()}
