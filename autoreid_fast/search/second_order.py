"""DARTS of second order: alpha's gradient through one step of omega (Liu et al., ICLR 2019, Sec. 2.3)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from autoreid_fast.training.joint_batch import average_gradients

REACH = 0.01
"""How far omega is moved, as a whole, for the finite difference (DARTS, footnote 2)."""


def unrolled_gradients(
    train_loss: Callable[[], Tensor],
    val_loss: Callable[[], Tensor],
    alpha: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    buffers: Iterable[Tensor],
) -> tuple[Tensor, list[Tensor]]:
    """L_val(w', alpha) and its gradient in alpha, where w' = w - xi * (SGD's step on L_train(w, alpha)).

    With v = dL_val / dw' and e = 0.01 / ||v||, the gradient (DARTS, Eqs. 7 and 8) is

        dL_val(w', alpha) / dalpha - xi * (dL_train(w + e v) / dalpha - dL_train(w - e v) / dalpha) / (2 e).

    As in DARTS the step knows momentum and weight decay and no clipping, and xi is its learning rate. All
    four passes see the same random numbers, for a finite difference between two dropout masks would be of
    the masks. ``omega``, which is what ``optimizer`` moves, and ``buffers`` (running statistics, which passes
    at displaced weights would spoil) end bit for bit as they began; torch's random state moves on by a pass.

    Args:
        train_loss: L_train of one batch, a scalar, at the parameters as they are when called.
        val_loss: L_val of one batch, likewise.
        alpha: the architecture parameters; one out of a loss's reach has the gradient zero.
        optimizer: the SGD of omega, of one parameter group.
        buffers: what else the passes change.
    """
    (group,) = optimizer.param_groups
    omega: list[Tensor] = group["params"]
    device = omega[0].device
    weights = [parameter.detach().clone() for parameter in omega]
    with _restored([*omega, *buffers]):
        with _random_state_kept(device):
            step = _sgd_step(optimizer, weights, _gradients(train_loss(), omega))
        _set(omega, torch._foreach_sub(weights, torch._foreach_mul(step, group["lr"])))
        with _random_state_kept(device):
            loss = val_loss()
            both = _gradients(loss, [*alpha, *omega])
        direct, towards = both[: len(alpha)], both[len(alpha) :]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(towards)))
        reach = REACH / norm.clamp(min=torch.finfo(norm.dtype).tiny ** 0.5)
        moved = torch._foreach_mul(towards, reach)
        _set(omega, torch._foreach_add(weights, moved))
        with _random_state_kept(device):
            above = _gradients(train_loss(), alpha)
        _set(omega, torch._foreach_sub(weights, moved))
        below = _gradients(train_loss(), alpha)
    scale = group["lr"] / (2 * reach)
    implicit = torch._foreach_mul(torch._foreach_sub(above, below), scale)
    return loss.detach(), list(torch._foreach_sub(direct, implicit))


def _sgd_step(
    optimizer: torch.optim.Optimizer, weights: list[Tensor], gradients: list[Tensor]
) -> list[Tensor]:
    """What SGD would subtract from the weights, over its learning rate: momentum * buffer + g + decay * w."""
    (group,) = optimizer.param_groups
    step = torch._foreach_add(gradients, weights, alpha=group["weight_decay"])
    for parameter, direction in zip(group["params"], step, strict=True):
        buffer = optimizer.state[parameter].get("momentum_buffer")
        if buffer is not None:
            direction.add_(buffer, alpha=group["momentum"])
    return list(step)


def _gradients(loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    return average_gradients(torch.autograd.grad(loss, parameters, materialize_grads=True))


def _set(tensors: list[Tensor], values: Iterable[Tensor]) -> None:
    with torch.no_grad():
        torch._foreach_copy_(tensors, list(values))


@contextmanager
def _restored(tensors: list[Tensor]) -> Iterator[None]:
    """Give ``tensors`` their present values back at the end."""
    values = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)


def _random_state_kept(device: torch.device) -> AbstractContextManager[None]:
    return torch.random.fork_rng([device] if device.type == "cuda" else [])
