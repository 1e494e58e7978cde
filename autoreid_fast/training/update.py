"""An optimiser's step that leaves a network as it was where the loss or a gradient is not finite."""

from typing import Literal

import torch
from torch import Tensor, nn

from autoreid_fast.distributed.collectives import mean_over_processes

Nonfinite = Literal["stop", "skip"]
NONFINITE = (
    "A loss that is no longer finite: stop, with the step, its images and the last good checkpoint; or skip "
    "the step, with a warning, which on a GPU looks at each step's loss and waits for it."
)


class Updates:
    """Steps of optimisers of ``model``; with ``nonfinite`` skip they look first at what they would do.

    A step that is skipped changes neither parameters nor the statistics that its forward pass gathered.
    Looking waits for the GPU, so a captured step cannot skip.
    """

    def __init__(self, model: nn.Module, nonfinite: Nonfinite) -> None:
        self._buffers = list(model.buffers()) if nonfinite == "skip" else []
        self._skips = nonfinite == "skip"
        self._kept: list[Tensor] = []

    def begin(self) -> None:
        """Call before the forward pass of a step."""
        self._kept = [buffer.clone() for buffer in self._buffers]

    def take(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> Tensor:
        """Step by the gradients that the parameters have; the loss, detached: NaN where that was skipped."""
        loss = loss.detach()
        if self._skips and not self._finite(optimizer, loss):
            with torch.no_grad():
                for buffer, kept in zip(self._buffers, self._kept, strict=True):
                    buffer.copy_(kept)
            return torch.full_like(loss, torch.nan)
        optimizer.step()
        return loss

    @staticmethod
    def _finite(optimizer: torch.optim.Optimizer, loss: Tensor) -> bool:
        """Of all processes: gradients are averaged already, and what one of them has is in the mean."""
        parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        both = torch.stack([mean_over_processes(loss.clone()), nn.utils.get_total_norm(gradients)])
        return bool(both.isfinite().all())
