"""Progress of one epoch: steps done, losses of each step, checks that they are finite."""

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
"""Return the file names of the images in step ``i`` (from 0) of an epoch."""

CHECK_EVERY = 50
"""Steps on a GPU between two checks of the losses, each of which waits for the GPU."""
MAX_NAMES = 64
"""Most image files that an error names."""


class NotFiniteError(AutoReIDError):
    """A loss, gradient or weight is NaN or infinite.

    Attributes:
        reason: What is not finite, and in which step.
        images: Images of that step, as the end of a message; may be empty.
    """

    def __init__(self, reason: str, images: str = "") -> None:
        super().__init__(reason + images)
        self.reason, self.images = reason, images


class Epoch:
    """Position in one epoch, and the losses of its steps so far.

    Args:
        number: Number of the epoch, from 0.
        after_step: Called after every step.
        skip_nonfinite: Log losses that are not finite and leave them out of the means, instead of raising.
        loss_names: Names of the columns of ``losses``, if the epoch is resumed.
        losses: (steps, K), losses of the steps done before the run was interrupted.

    Attributes:
        number: Number of the epoch, from 0.
        steps_before: Steps done before the run was interrupted; batches start after them.
        done: Steps done.
        loss_names: Names of the K losses of a step; empty before the first one.
    """

    def __init__(
        self,
        number: int,
        after_step: Callable[["Epoch"], None] = lambda epoch: None,
        skip_nonfinite: bool = False,
        loss_names: Sequence[str] = (),
        losses: Tensor | None = None,
    ) -> None:
        self.number = number
        self.steps_before = self.done = 0 if losses is None else len(losses)
        self.loss_names = tuple(loss_names)
        self._after_step = after_step
        self._skip_nonfinite = skip_nonfinite
        self._earlier = losses
        self._rows: list[Tensor] = []
        self._checked = 0
        self._names: BatchNames = lambda step: ()

    def steps(self, batches: Iterable[Batch], names: BatchNames) -> Iterator[Batch]:
        """Yield ``batches``, which start with that of step ``done``; call `add` for each.

        Raises:
            NotFiniteError: a loss is not finite; raised within `CHECK_EVERY` steps on a GPU.
        """
        self._names = names
        for batch in batches:
            yield batch
            self.done += 1
            if self._rows[-1].device.type == "cpu" or self.done % CHECK_EVERY == 0:
                self.check_losses()
            self._after_step(self)

    def add(self, **losses: Tensor) -> None:
        """Add the losses of the current step, scalars with the same names in every step."""
        self.loss_names = tuple(losses)
        self._rows.append(torch.stack([loss.detach() for loss in losses.values()]))

    def losses(self) -> Tensor:
        """Return the losses of all steps so far, (done, K), on the CPU; at least one step must be done."""
        parts = [self._earlier] if self._earlier is not None else []
        if self._rows:
            parts.append(torch.stack(self._rows).cpu())
        return torch.cat(parts)

    def means(self) -> Tensor:
        """Return the mean of each loss over its finite values, (K,), on the CPU; NaN if there are none."""
        self.check_losses()
        losses = self.losses()
        return losses.where(losses.isfinite(), torch.nan).nanmean(0)

    def check_losses(self) -> None:
        """Check the losses added since the last check.

        Raises:
            NotFiniteError: one is NaN or infinite, unless these are skipped.
        """
        unchecked = self._rows[self._checked :]
        if not unchecked:
            return
        values = torch.stack(unchecked).cpu()
        for row in (~values.isfinite()).any(1).nonzero().flatten().tolist():
            self._report(self.steps_before + self._checked + row, values[row])
        self._checked = len(self._rows)

    def _report(self, step: int, losses: Tensor) -> None:
        column = int((~losses.isfinite()).nonzero()[0])
        name, value = self.loss_names[column], losses[column].item()
        reason = f"{name} is {value} in epoch {self.number + 1}, step {step + 1}"
        images = f"; its images: {some(self._names(step), MAX_NAMES)}"
        if not self._skip_nonfinite:
            raise NotFiniteError(reason, images)
        logger.warning("%s: skipped%s", reason, images)
