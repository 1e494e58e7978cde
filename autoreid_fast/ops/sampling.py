"""Random sizes, values and layouts of which an op's samples are made."""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

LAYOUTS = ("contiguous", "channels_last", "permuted", "strided", "offset")


class Draw:
    """A source of random arguments for one call of an op.

    Args:
        seed: the same seed gives the same values on every device.
        dtype: of the floating tensors.
        device: of all tensors.
        layout: one of `LAYOUTS` for all tensors, or None: a random one for each.

    Examples:
        >>> draw = Draw(seed=0)
        >>> draw.tensor(2, 3).shape
        torch.Size([2, 3])
        >>> 1 <= draw.size(1, 8) <= 8
        True
    """

    def __init__(
        self,
        seed: int,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        layout: str | None = None,
    ) -> None:
        self.dtype = dtype
        self.device = torch.device(device)
        self._layout = layout
        self._random = torch.Generator().manual_seed(seed)

    def size(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, both included."""
        return int(torch.randint(low, high + 1, (), generator=self._random))

    def flag(self) -> bool:
        """True or False."""
        return self.size(0, 1) == 1

    def choice(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[self.size(0, len(options) - 1)]

    def tensor(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Standard normal values."""
        return self._laid_out(lambda size: torch.randn(size, generator=self._random), shape, dtype)

    def positive(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Values from 0.5 to 1.5: variances, scales."""
        return self._laid_out(lambda size: torch.rand(size, generator=self._random) + 0.5, shape, dtype)

    def whole(self, *shape: int, high: int = 3, dtype: torch.dtype | None = None) -> Tensor:
        """Whole numbers from -high to high: exact in every dtype, with many ties."""
        return self._laid_out(
            lambda size: torch.randint(-high, high + 1, size, generator=self._random).float(), shape, dtype
        )

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """int64 from ``low`` to ``high``, both included; contiguous."""
        return torch.randint(low, high + 1, shape, generator=self._random).to(self.device)

    def flags(self, *shape: int) -> Tensor:
        """Booleans; contiguous."""
        return self.integers(0, 1, *shape).bool()

    def _laid_out(self, values: Any, shape: tuple[int, ...], dtype: torch.dtype | None) -> Tensor:
        layout = self._layout or self.choice(LAYOUTS)
        spread = {"strided": lambda size: 2 * size, "offset": lambda size: size + 1}.get(
            layout, lambda size: size
        )
        x: Tensor = values([spread(size) for size in shape]).to(dtype or self.dtype).to(self.device)
        if layout == "strided":  # every other element
            return x[(slice(None, None, 2),) * len(shape)]
        if layout == "offset":  # a window of a larger tensor
            return x[(slice(1, None),) * len(shape)]
        if layout == "permuted" and x.ndim:
            return x.movedim(0, -1).contiguous().movedim(-1, 0)
        if layout == "channels_last" and x.ndim == 4:
            return x.contiguous(memory_format=torch.channels_last)
        return x
