"""One training step: forward pass, gradients averaged over the processes, update of the optimiser."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from autoreid_fast.distributed.collectives import mean_over_processes
from autoreid_fast.losses import LossTerms
from autoreid_fast.training.config import Nonfinite
from autoreid_fast.training.joint_batch import average_gradients


class TrainStep:
    """One step of ``optimizer`` on its own parameters of ``model``.

    With ``nonfinite="skip"`` a step whose loss or gradient is NaN or infinite changes nothing: neither
    parameters nor the running statistics that its forward pass has updated. This check waits for the GPU, so
    such a step cannot be captured in a CUDA graph.

    Args:
        model: Module whose buffers the forward pass updates.
        optimizer: Optimiser of the parameters that learn in this step.
        nonfinite: ``"stop"``: apply the update regardless, because the loop stops the run; ``"skip"``: see
            above.
        clip: Largest norm of the gradient; None: no clipping.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        nonfinite: Nonfinite,
        clip: float | None = None,
    ) -> None:
        self.optimizer = optimizer
        self.parameters: list[nn.Parameter] = [
            parameter for group in optimizer.param_groups for parameter in group["params"]
        ]
        self._skips = nonfinite == "skip"
        self._buffers = list(model.buffers()) if self._skips else []
        self._clip = clip

    def __call__(self, forward: Callable[[], LossTerms]) -> LossTerms:
        """Take one step on the loss that ``forward`` computes.

        A parameter that does not contribute to the loss has no gradient: the optimiser leaves it as it is.

        Returns:
            The loss and its terms, detached; the loss is NaN if the step was skipped.
        """

        def gradients() -> tuple[LossTerms, Sequence[Tensor | None]]:
            losses = forward()
            return losses, average_gradients(
                torch.autograd.grad(losses.total, self.parameters, allow_unused=True)
            )

        return self.apply(gradients)

    def apply(self, compute_gradients: Callable[[], tuple[LossTerms, Sequence[Tensor | None]]]) -> LossTerms:
        """Take one step along given gradients.

        Args:
            compute_gradients: Returns the losses, and the gradients of the parameters averaged over the
                processes.

        Returns:
            The loss and its terms, detached; the loss is NaN if the step was skipped.
        """
        saved = [buffer.clone() for buffer in self._buffers]
        losses, values = compute_gradients()
        for parameter, gradient in zip(self.parameters, values, strict=True):
            parameter.grad = _in_layout_of(parameter, gradient)
        if self._clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self._clip)
        terms = {name: term.detach() for name, term in losses.terms.items()}
        total = losses.total.detach()
        if self._skips and not self._finite(total):
            with torch.no_grad():
                for buffer, value in zip(self._buffers, saved, strict=True):
                    buffer.copy_(value)
            return LossTerms(torch.full_like(total, torch.nan), terms)
        self.optimizer.step()
        return LossTerms(total, terms)

    def _finite(self, loss: Tensor) -> bool:
        """Whether loss and gradients are finite in all processes; gradients are averaged already."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        both = torch.stack([mean_over_processes(loss.clone()), nn.utils.get_total_norm(gradients)])
        return bool(both.isfinite().all())


def _in_layout_of(parameter: Tensor, gradient: Tensor | None) -> Tensor | None:
    """Copy ``gradient`` to the strides of its parameter, which fused optimisers require."""
    if gradient is None or gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)
