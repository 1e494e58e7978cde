"""Argument tables: the shapes, dtypes, devices and limits of an op's arguments as data, and their check.

A table reads like the op's docstring. Sizes are numbers or symbols, and a symbol means the same size in
every argument of the call::

    Arguments(
        "batch_hard",
        (
            TensorArgument("features", ("N", "D"), FLOATING),
            TensorArgument("labels", ("N",), (torch.int64,)),
            Choice("form", ("hinge", "printed")),
        ),
        limits=(Limit("N", maximum=4096, hint="split the batch"),),
    )

All tensors of a call must be on the device of the first one. `checks.py` has the wording of the errors.
"""

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from autoreid_fast.ops.checks import (
    AccumulationOf,
    CallCheck,
    DTypes,
    SameAs,
    Shape,
    accumulation_dtype,
    either,
    shown,
    written,
)

__all__ = [
    "FLOATING",
    "MAX_POSITIONS",
    "AccumulationOf",
    "Argument",
    "Arguments",
    "Choice",
    "Flag",
    "Limit",
    "Number",
    "SameAs",
    "Shape",
    "TensorArgument",
    "TensorListArgument",
    "Values",
    "accumulation_dtype",
]

FLOATING = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""Dtypes of the dense ops; float64 on CUDA uses the reference."""
WHOLE = (int, np.integer, torch.SymInt)
REAL = (float, np.floating, torch.SymFloat, *WHOLE)
LARGEST = 2**31 - 1
"""Largest whole number where an argument has no other bound."""
MAX_POSITIONS = 2**31 - 4097
"""Largest N * H * W of the Triton kernels: their last tile must end within int32."""


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

    def check(self, call: CallCheck, value: Any) -> None:
        if value is None and self.optional:
            return
        call.tensor(self.name, value, self.shape, self.dtypes)
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

    def check(self, call: CallCheck, value: Any) -> None:
        if value is None and self.optional:
            return
        if not isinstance(value, list | tuple):
            call.refuse(self.name, f"has type {type(value).__name__}", "a list of tensors")
        if len(value) == 0:
            call.refuse(self.name, "is empty", "at least one tensor")
        call.count(self.name, len(value), self.count)
        first: Tensor | None = None
        for index, tensor in enumerate(value):
            if tensor is None and self.optional_entries:
                continue
            if first is None:
                call.tensor(f"{self.name}[{index}]", tensor, self.shape, self.dtypes)
                first = call.tensors[self.name] = tensor
            elif not _same_kind(tensor, first):
                call.tensor(f"{self.name}[{index}]", tensor, self.shape, SameAs(self.name))

    def symbols(self) -> Shape:
        return (self.count, *self.shape)


def _same_kind(tensor: Any, first: Tensor) -> bool:
    """Whether a tensor has the shape, dtype and device of one that was checked: the usual case, and fast."""
    return (
        isinstance(tensor, Tensor)
        and tensor.shape == first.shape
        and tensor.dtype == first.dtype
        and tensor.device == first.device
    )


def _is_scalar(value: Any) -> bool:
    """Whether a value can be compared with choices; arrays and tensors compare by entry."""
    return isinstance(value, (str, bool, np.bool, torch.dtype, *REAL))


@dataclass(frozen=True)
class Values:
    """A list or tuple of ``count`` numbers or flags, each one of ``choices``."""

    name: str
    count: str
    choices: tuple[Any, ...]

    def check(self, call: CallCheck, value: Any) -> None:
        if not isinstance(value, list | tuple):
            call.refuse(self.name, f"has type {type(value).__name__}", f"a list of {either(self.choices)}")
        call.count(self.name, len(value), self.count)
        for number in value:
            if not _is_scalar(number) or number not in self.choices:
                call.refuse(self.name, f"is {tuple(value)}", f"only {either(self.choices)}")

    def symbols(self) -> Shape:
        return (self.count,)


@dataclass(frozen=True)
class Choice:
    """One of a few values: a string, a number or a dtype."""

    name: str
    choices: tuple[Any, ...]

    def check(self, call: CallCheck, value: Any) -> None:
        if not _is_scalar(value) or value not in self.choices:
            call.refuse(self.name, shown(value), either(self.choices))

    def symbols(self) -> Shape:
        return ()


@dataclass(frozen=True)
class Flag:
    """True or False."""

    name: str

    def check(self, call: CallCheck, value: Any) -> None:
        if not isinstance(value, bool | np.bool):
            call.refuse(self.name, shown(value), "True or False")

    def symbols(self) -> Shape:
        return ()


@dataclass(frozen=True)
class Number:
    """A number between two bounds, both allowed."""

    name: str
    minimum: float = float("-inf")
    maximum: float | str = float("inf")
    """A number, or a symbol that an argument before this one fixes."""
    whole: bool = False
    """Whether only whole numbers are accepted; without another maximum, up to `LARGEST`."""

    def check(self, call: CallCheck, value: Any) -> None:
        kind = "a whole number" if self.whole else "a number"
        if not isinstance(value, WHOLE if self.whole else REAL) or isinstance(value, bool):
            call.refuse(self.name, shown(value), kind)
        if isinstance(self.maximum, str):
            highest: float = call.sizes[self.maximum]
            text = f"{highest}{call.fixed((self.maximum,), self.name)}"
        else:
            highest = LARGEST if self.whole and self.maximum == float("inf") else self.maximum
            text = str(highest)
        if not self.minimum <= value <= highest:
            if highest < float("inf"):
                bounds = f"{self.minimum} to {text}"
            else:
                bounds = kind if self.minimum == float("-inf") else f"at least {self.minimum}"
            call.refuse(self.name, f"is {value}", bounds)

    def symbols(self) -> Shape:
        return ()


Argument = TensorArgument | TensorListArgument | Values | Choice | Flag | Number


@dataclass(frozen=True)
class Limit:
    """Bounds on a size, or on a product of sizes ("N*H*W")."""

    sizes: str
    minimum: int = 0
    maximum: int | None = None
    hint: str = ""
    """The way out: "split the batch"."""

    def check(self, call: CallCheck) -> None:
        symbols = self.sizes.split("*")
        product = 1
        for symbol in symbols:
            if symbol not in call.sizes:
                return  # of an optional argument that was not given
            product *= call.sizes[symbol]
        if isinstance(product, torch.SymInt):
            return  # the bound would become one of the exported program, whose batch is free
        if product < self.minimum or (self.maximum is not None and product > self.maximum):
            low = f"{self.minimum} <= " if self.minimum else ""
            high = "" if self.maximum is None else f" <= {self.maximum}"
            argument = call.sources[symbols[0]]
            call.refuse(argument, described(call, symbols[0]), f"{low}{' * '.join(symbols)}{high}", self.hint)


@dataclass(frozen=True)
class Arguments:
    """The argument table of one function.

    Examples:
        >>> import torch
        >>> table = Arguments("scale", (TensorArgument("x", ("N", "D"), FLOATING),))
        >>> table.check(x=torch.ones(2, 3))
        >>> table.check(x=torch.ones(2))
        Traceback (most recent call last):
        ...
        autoreid_fast.errors.AutoReIDError: scale: `x` has shape (2,); expected (N, D)
    """

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
        call = CallCheck(self.function)
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

    def _refuse_zero(self, call: CallCheck, symbol: str) -> NoReturn:
        argument = call.sources[symbol]
        tables = [one for one in self.arguments if argument.partition("[")[0] == one.name]
        shape = f" in {written(tables[0].shape)}" if isinstance(tables[0], TensorArgument) else ""
        call.refuse(argument, described(call, symbol), f"{symbol} >= 1{shape}")


def described(call: CallCheck, symbol: str) -> str:
    """The argument that fixed a size, as an error message gives it."""
    if symbol in call.lists:
        return f"has {call.sizes[symbol]} entries"
    return f"has shape {tuple(call.tensors[call.sources[symbol]].shape)}"
