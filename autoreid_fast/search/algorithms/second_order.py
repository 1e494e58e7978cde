"""Second-order DARTS: alpha's gradient through one step of omega (Liu et al., ICLR 2019, Sec. 2.3)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from autoreid_fast.training.joint_batch import average_gradients

DISPLACEMENT = 0.01
"""Norm of the displacement of omega in the finite difference (DARTS, footnote 2)."""


def unrolled_gradients(
    train_loss: Callable[[], Tensor],
    val_loss: Callable[[], Tensor],
    alpha: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    buffers: Iterable[Tensor],
) -> tuple[Tensor, list[Tensor]]:
    """Return L_val(w', alpha) and its gradient in alpha, where w' is w after one step on L_train.

    The step is w' = w - xi * (SGD's step on L_train(w, alpha)). With v = dL_val / dw' and e = 0.01 / ||v||,
    the gradient (DARTS, Eqs. 7 and 8) is

        dL_val(w', alpha) / dalpha - xi * (dL_train(w + e v) / dalpha - dL_train(w - e v) / dalpha) / (2 e).

    As in DARTS, the step includes momentum and weight decay but no clipping, and xi is its learning rate. All
    four passes use the same random numbers: otherwise the finite difference would measure that of two dropout
    masks. Omega (the parameters of ``optimizer``) and ``buffers`` are restored bit for bit; torch's random
    state advances by one pass.

    Args:
        train_loss: Computes L_train of one batch, a scalar, at the present parameters.
        val_loss: Computes L_val of one batch, a scalar, at the present parameters.
        alpha: Architecture parameters; the gradient of one that does not contribute is zero.
        optimizer: SGD of omega, with one parameter group.
        buffers: Tensors that the passes change: running statistics.
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
            gradients = _gradients(loss, [*alpha, *omega])
        direct, direction = gradients[: len(alpha)], gradients[len(alpha) :]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(direction)))
        epsilon = DISPLACEMENT / norm.clamp(min=torch.finfo(norm.dtype).tiny ** 0.5)
        displacement = torch._foreach_mul(direction, epsilon)
        _set(omega, torch._foreach_add(weights, displacement))
        with _random_state_kept(device):
            above = _gradients(train_loss(), alpha)
        _set(omega, torch._foreach_sub(weights, displacement))
        below = _gradients(train_loss(), alpha)
    scale = group["lr"] / (2 * epsilon)
    implicit = torch._foreach_mul(torch._foreach_sub(above, below), scale)
    return loss.detach(), list(torch._foreach_sub(direct, implicit))


def _sgd_step(
    optimizer: torch.optim.Optimizer, weights: list[Tensor], gradients: list[Tensor]
) -> list[Tensor]:
    """Return SGD's step before the learning rate: momentum * buffer + gradient + decay * weight."""
    (group,) = optimizer.param_groups
    step = torch._foreach_add(gradients, weights, alpha=group["weight_decay"])
    for parameter, change in zip(group["params"], step, strict=True):
        buffer = optimizer.state[parameter].get("momentum_buffer")
        if buffer is not None:
            change.add_(buffer, alpha=group["momentum"])
    return list(step)


def _gradients(loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    return average_gradients(torch.autograd.grad(loss, parameters, materialize_grads=True))


def _set(tensors: list[Tensor], values: Iterable[Tensor]) -> None:
    with torch.no_grad():
        torch._foreach_copy_(tensors, list(values))


@contextmanager
def _restored(tensors: list[Tensor]) -> Iterator[None]:
    """Restore the present values of ``tensors`` at the end of the block."""
    values = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)


def _random_state_kept(device: torch.device) -> AbstractContextManager[None]:
    return torch.random.fork_rng([device] if device.type == "cuda" else [])
