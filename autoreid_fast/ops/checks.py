"""Checks of one call's arguments, and the wording of their errors.

Every error says which function and argument is wrong, what it is, what was expected and, where there is one,
the way out:

    batch_hard: `labels` has shape (5,); expected (N,) with N = 4 as in `features`
    batch_hard: `features` has shape (5000, 8); expected N <= 4096: split the batch
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from autoreid_fast.errors import AutoReIDError

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
    """float64 if another argument, which stands before this one, is float64; float32 otherwise."""

    argument: str


DTypes = tuple[torch.dtype, ...] | SameAs | AccumulationOf


class CallCheck:
    """The arguments of one call checked so far: the sizes, dtypes and device that they have fixed."""

    def __init__(self, function: str) -> None:
        self.function = function
        self.sizes: dict[str, int] = {}
        self.sources: dict[str, str] = {}
        """Symbol: the argument that fixed it."""
        self.lists: set[str] = set()
        """Symbols that the length of a list has fixed."""
        self.tensors: dict[str, Tensor] = {}
        self.first = ""
        """The tensor on whose device all others must be."""
        self.device: torch.device | None = None

    def tensor(self, name: str, value: Any, shape: Shape, dtypes: DTypes) -> None:
        """Check type, shape, dtype and device of a tensor."""
        if not isinstance(value, Tensor):
            self.refuse(name, f"has type {type(value).__name__}", "a tensor")
        if not self._fits(name, value.shape, shape):
            self.refuse(name, f"has shape {tuple(value.shape)}", f"{written(shape)}{self.fixed(shape, name)}")
        allowed = dtypes if isinstance(dtypes, tuple) else (self._dtype(dtypes),)
        if value.dtype not in allowed:
            other = (
                ""
                if isinstance(dtypes, tuple)
                else (f" with `{dtypes.argument}` {self.tensors[dtypes.argument].dtype}")
            )
            self.refuse(name, f"is {value.dtype}", either(allowed) + other, f"call {name}.to({allowed[0]})")
        if self.device is None:
            self.first, self.device = name, value.device
        elif value.device != self.device:
            expected = f"{self.device}, the device of `{self.first}`"
            self.refuse(name, f"is on {value.device}", expected, f'call {name}.to("{self.device}")')
        self.tensors[name] = value

    def count(self, name: str, count: int, symbol: str) -> None:
        """Check the number of entries of a list."""
        if symbol not in self.sizes:
            self.lists.add(symbol)
        if not self._fits(name, (count,), (symbol,)):
            self.refuse(name, f"has {count} entries", f"{symbol}{self.fixed((symbol,), name)}")

    def fixed(self, shape: Shape, argument: str) -> str:
        """The sizes of a shape that other arguments have fixed, for an error message."""
        names = [size.partition("+")[0] for size in shape if isinstance(size, str)]
        others = [name for name in dict.fromkeys(names) if self.sources.get(name, argument) != argument]
        texts = [f"{name} = {self.sizes[name]} as in `{self.sources[name]}`" for name in others]
        return f" with {', '.join(texts)}" if texts else ""

    def refuse(self, argument: str, problem: str, expected: str, hint: str = "") -> NoReturn:
        """Raise the error of one argument."""
        raise AutoReIDError(
            f"{self.function}: `{argument}` {problem}; expected {expected}" + (f": {hint}" if hint else "")
        )

    def _fits(self, name: str, sizes: Sequence[int], shape: Shape) -> bool:
        """Whether sizes are those of a shape; symbols that are still free become these sizes."""
        if shape and shape[-1] is ...:
            shape = shape[:-1]
            sizes = sizes[: len(shape)]
        if len(sizes) != len(shape):
            return False
        for size, expected in zip(sizes, shape, strict=True):
            if isinstance(expected, str):
                if "+" in expected:
                    expected, _, more = expected.partition("+")
                    size = size - int(more)
                if expected not in self.sizes:
                    self.sizes[expected] = size
                    self.sources[expected] = name
                elif self.sizes[expected] != size:
                    return False
            elif size != expected:
                return False
        return True

    def _dtype(self, dtypes: SameAs | AccumulationOf) -> torch.dtype:
        other = self.tensors[dtypes.argument]
        return other.dtype if isinstance(dtypes, SameAs) else accumulation_dtype(other)


def accumulation_dtype(x: Tensor) -> torch.dtype:
    """Dtype of sums over x: float64 for float64, float32 for every other dtype."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def written(shape: Shape) -> str:
    """A shape as documentation writes it: (N, C, 3, 3), (N,)."""
    sizes = ["..." if size is ... else str(size).replace("+", " + ") for size in shape]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def either(values: Sequence[Any]) -> str:
    """'a', 'b' or 'c'."""
    texts = [repr(value) if isinstance(value, str) else str(value) for value in values]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} or {texts[-1]}"


def shown(value: Any) -> str:
    """A wrong value in an error: itself if it is short, otherwise its type."""
    if value is None or isinstance(value, str | bool | int | float | np.generic | torch.dtype):
        text = repr(value)
        return f"is {text}" if len(text) <= 40 else f"is {text[:37]}..."
    return f"has type {type(value).__name__}"
