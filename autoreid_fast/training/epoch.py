"""One epoch on its way: which batches are still to do, what each step lost, and whether that is a number."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from autoreid_fast.data.dataset import some
from autoreid_fast.errors import AutoReIDError

logger = logging.getLogger("autoreid_fast")

Batch = TypeVar("Batch")
BatchNames = Callable[[int], Sequence[str]]
"""The file names of the images that step ``i`` (from 0) of an epoch sees."""

LOOK_EVERY = 50
"""Steps on a GPU between two looks at the losses, each of which waits for it."""
NAMED = 64


class NotFiniteError(AutoReIDError):
    """Something that is learned from is no number: ``what``, where, and the ``images`` of that step."""

    def __init__(self, what: str, images: str = "") -> None:
        super().__init__(what + images)
        self.what, self.images = what, images


class Epoch:
    """The position in epoch ``number`` (from 0), and the losses of its steps so far.

    ``done`` steps were taken, ``first`` of them before the run was interrupted: batches begin behind them.
    ``after_step`` is called after each step. ``tolerant``: a loss that is not finite is a warning, and left
    out of the means.
    """

    def __init__(
        self,
        number: int,
        after_step: Callable[["Epoch"], None] = lambda epoch: None,
        tolerant: bool = False,
        losses: Tensor | None = None,
    ) -> None:
        self.number = number
        self.first = self.done = 0 if losses is None else len(losses)
        self._after_step = after_step
        self._tolerant = tolerant
        self._before = losses
        self._rows: list[Tensor] = []
        self._looked_at = 0
        self._titles: tuple[str, ...] = ()
        self._names: BatchNames = lambda step: ()

    def steps(self, batches: Iterable[Batch], names: BatchNames) -> Iterator[Batch]:
        """Yield ``batches``, which begin with that of step ``done``; ``names`` are for what goes wrong.

        Raises:
            NotFiniteError: a loss is not finite, unless ``tolerant``: within `LOOK_EVERY` steps on a GPU.
        """
        self._names = names
        for batch in batches:
            yield batch
            self.done += 1
            if self._rows[-1].device.type == "cpu" or self.done % LOOK_EVERY == 0:
                self.look()
            self._after_step(self)

    def add(self, **losses: Tensor) -> None:
        """Keep what the step that ends now lost: the same names, of one element each, at every step."""
        self._titles = tuple(losses)
        self._rows.append(torch.stack([loss.detach() for loss in losses.values()]))

    def losses(self) -> Tensor:
        """Of each step its losses, (done, K), on the CPU; there must have been one."""
        parts = [self._before] if self._before is not None else []
        if self._rows:
            parts.append(torch.stack(self._rows).cpu())
        return torch.cat(parts)

    def means(self) -> Tensor:
        """The mean of each loss over the epoch's steps, (K,), on the CPU; NaN where none was finite."""
        self.look()
        losses = self.losses()
        return losses.where(losses.isfinite(), torch.nan).nanmean(0)

    def look(self) -> None:
        """Whether the losses added since the last look are finite.

        Raises:
            NotFiniteError: they are not, unless ``tolerant``.
        """
        fresh = self._rows[self._looked_at :]
        if not fresh:
            return
        values = torch.stack(fresh).cpu()
        for row in (~values.isfinite()).any(1).nonzero().flatten().tolist():
            step = self.first + self._looked_at + row
            bad = ((t, v) for t, v in zip(self._titles, values[row].tolist(), strict=True) if v - v != 0)
            title, value = next(bad)
            what = f"{title} is {value} in epoch {self.number + 1}, step {step + 1}"
            images = f"; its images: {some(self._names(step), NAMED)}"
            if not self._tolerant:
                raise NotFiniteError(what, images)
            logger.warning("%s: skipped%s", what, images)
        self._looked_at = len(self._rows)
