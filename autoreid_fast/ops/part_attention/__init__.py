"""The part-aware module of Sec. 3.3 for all edges of one source at once, up to one bias vector a strip."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from autoreid_fast.distributed.processes import current_shard
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.ops import contract, triton_kernels
from autoreid_fast.ops.part_attention import reference as twin
from autoreid_fast.ops.part_attention.sync import sync_part_attention

_PARAMETERS = (
    "project_weight",
    "project_bias",
    "key_weight",
    "key_bias",
    "query_weight",
    "query_bias",
    "fuse_weight",
)


def part_attention(
    x: Tensor,
    project_weight: Tensor,
    project_bias: Tensor,
    key_weight: Tensor,
    key_bias: Tensor,
    query_weight: Tensor,
    query_bias: Tensor,
    fuse_weight: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    affine: Tensor | None = None,
    *,
    relu: bool = False,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    sync: bool = False,
) -> Tensor:
    """What the part vectors of E part-aware modules on one x add to their fusing 1x1 convolutions.

    The fusing convolution of a module reads cat(x, repeat(part)), so it is W1 x + (W2 part)[strip]: this op
    gives the second term, and neither the repeated tensor nor the concatenation exists. For each edge:

        v_m = project_weight_m ReLU(mean of strip m) + project_bias_m,   f_m = BN(v_m) over the N images
        A = softmax((key f) (query f)^T) along its rows,   part = A f,   bias_m = fuse_weight part_m

    The M = 4 strips hold the rows floor(m H / M) .. floor((m + 1) H / M) - 1, as `nas.part_aware` has them.

    Args:
        x: (N, C, H, W), H >= 4, in float32, float16, bfloat16 or float64 (on CUDA: by the reference twin).
            Read once, as it is where it is contiguous in `torch.channels_last`; other strides cost a copy.
            All sums are in float32 (float64 for float64).
        project_weight: (E, M, h, C), for each edge and strip. This and all below: any floating dtype.
        project_bias: (E, M, h).
        key_weight: (E, h, h), as `nn.Linear` has it.
        key_bias: (E, h).
        query_weight: (E, h, h).
        query_bias: (E, h).
        fuse_weight: (E, D, h): W2, the columns of the fusing convolution that read the part vector.
        running_mean: (E, M, h) float32 (float64 for float64 x), moved in place in training.
        running_var: likewise; unbiased, as `nn.BatchNorm1d` keeps it. Both or neither.
        affine: (2, E, M, h), scale and shift of the batch norm; None in the supernet, which has none.
        relu: W2 acts on ReLU(part), as the FactorizedReduce that fuses at stride 2 does.
        training: normalise by the batch's statistics, and move the running ones; otherwise by the running
            ones, which are constants, or by the batch's where there are none.
        momentum: the share of the batch in the running statistics.
        eps: added to the variances.
        sync: take batch statistics over the images of all processes of torch.distributed, as
            `sync_batch_norm` does.

    Returns:
        (E, N, M, D), in the dtype of x. Differentiable once with respect to x, the parameters and affine
        (more often under `ops.backend("reference")`); only what is needed is computed, and the gradient of x
        has pixels last.

    Raises:
        AutoReIDError: a wrong shape, dtype or device; H < 4; one image where the batch's statistics are asked
            for.
    """
    parameters = (
        project_weight, project_bias, key_weight, key_bias, query_weight, query_bias, fuse_weight
    )  # fmt: skip
    batch = training or running_mean is None
    _check(x, parameters, running_mean, running_var, affine)
    if batch and x.shape[0] < 2:
        raise AutoReIDError(
            "part_attention: x is a batch of one image, which has no batch statistics: use at least 2, or "
            "evaluate by running statistics"
        )
    statistics = None
    if not batch:
        assert running_mean is not None and running_var is not None
        statistics = torch.stack([running_mean, running_var])
    acc = twin.accumulation_dtype(x)
    wide = [each.to(acc) for each in parameters]
    scale_and_shift = None if affine is None else affine.to(acc)
    if sync and batch and current_shard().processes > 1:
        bias, found = sync_part_attention(x, wide, scale_and_shift, relu, eps)
        if training and running_mean is not None and running_var is not None:
            found.move(running_mean, running_var, momentum)
        return bias
    by_twin = contract.reference_forced() or (x.dtype == torch.float64 and x.is_cuda)
    op: Any = twin.part_attention if by_twin else torch.ops.autoreid_fast.part_attention
    bias, _, _, used = op(x, *wide, scale_and_shift, statistics, relu, eps)
    if training and running_mean is not None:
        assert running_var is not None
        images = x.shape[0]
        with torch.no_grad():
            unbiased = used[1] * (images / (images - 1))
            torch._foreach_lerp_((running_mean, running_var), (used[0], unbiased), momentum)
    return bias


def _check(
    x: Tensor,
    parameters: Sequence[Tensor],
    running_mean: Tensor | None,
    running_var: Tensor | None,
    affine: Tensor | None,
) -> None:
    if x.ndim != 4 or 0 in x.shape:
        raise AutoReIDError(
            f"part_attention: x has shape {tuple(x.shape)}; expected (N, C, H, W), none of them 0"
        )
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        raise AutoReIDError(f"part_attention: x is {x.dtype}; expected a floating type")
    if x.shape[2] < twin.PARTS:
        raise AutoReIDError(
            f"part_attention: x has {x.shape[2]} rows and needs {twin.PARTS}: use taller images"
        )
    project, fuse = parameters[0], parameters[-1]
    if project.ndim != 4 or project.shape[1] != twin.PARTS or project.shape[3] != x.shape[1]:
        raise AutoReIDError(
            f"part_attention: project_weight has shape {tuple(project.shape)}; expected "
            f"(E, {twin.PARTS}, h, {x.shape[1]})"
        )
    edges, _, hidden, _ = project.shape
    if edges == 0 or hidden == 0:
        raise AutoReIDError(f"part_attention: project_weight has shape {tuple(project.shape)}; expected no 0")
    if fuse.ndim != 3 or fuse.shape[1] == 0:
        raise AutoReIDError(
            f"part_attention: fuse_weight has shape {tuple(fuse.shape)}; expected ({edges}, D, {hidden})"
        )
    strip, square, vector = (edges, twin.PARTS, hidden), (edges, hidden, hidden), (edges, hidden)
    shapes = (project.shape, strip, square, vector, square, vector, (edges, fuse.shape[1], hidden))
    named = [*zip(_PARAMETERS, parameters, shapes, strict=True), ("affine", affine, (2, *strip))]
    acc = twin.accumulation_dtype(x)
    for name, each, shape in [
        *named,
        ("running_mean", running_mean, strip),
        ("running_var", running_var, strip),
    ]:
        if each is None:
            continue
        if each.shape != shape:
            raise AutoReIDError(
                f"part_attention: {name} has shape {tuple(each.shape)}; expected {tuple(shape)}, with "
                f"project_weight {tuple(project.shape)} and fuse_weight {tuple(fuse.shape)}"
            )
        if each.device != x.device:
            raise AutoReIDError(f"part_attention: {name} is on {each.device}, x is on {x.device}")
        if not each.is_floating_point() or (name.startswith("running") and each.dtype != acc):
            raise AutoReIDError(
                f"part_attention: {name} is {each.dtype}; expected "
                + (str(acc) if name.startswith("running") else "a floating type")
            )
    if (running_mean is None) != (running_var is None):
        raise AutoReIDError("part_attention: running_mean and running_var go together: give both or neither")


def _fake(
    x: Tensor,
    project_weight: Tensor,
    project_bias: Tensor,
    key_weight: Tensor,
    key_bias: Tensor,
    query_weight: Tensor,
    query_bias: Tensor,
    fuse_weight: Tensor,
    affine: Tensor | None,
    statistics: Tensor | None,
    relu: bool,
    eps: float,
) -> tuple[Tensor, ...]:
    edges, parts, hidden, channels = project_weight.shape
    images, new = x.shape[0], project_weight.new_empty
    return (
        x.new_empty((edges, images, parts, fuse_weight.shape[1])),
        new((images, parts, channels)),
        new((edges, images, parts, hidden)),
        new((2, edges, parts, hidden)),
    )


def _fake_backward(
    grad: Tensor,
    x: Tensor,
    parameters: list[Tensor],
    affine: Tensor | None,
    means: Tensor,
    normalized: Tensor,
    used: Tensor,
    batch: bool,
    relu: bool,
    eps: float,
    need_x: bool,
    need_parameters: bool,
) -> tuple[Tensor, list[Tensor]]:
    images, channels, height, width = x.shape
    grad_x = x.new_empty((images if need_x else 0, height, width, channels)).permute(0, 3, 1, 2)
    if not need_parameters:
        return grad_x, []
    tensors = parameters if affine is None else [*parameters, affine]
    return grad_x, [each.new_empty(each.shape) for each in tensors]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, *parameters, affine, statistics, ctx.relu, ctx.eps = inputs
    ctx.batch = statistics is None
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)  # no zeros for the others
    ctx.save_for_backward(x, *parameters, affine, *output[1:])


def _backward(ctx: Any, grad: Tensor | None, *rest: Any) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * len(ctx.needs_input_grad)
    x, *parameters, affine, means, normalized, used = ctx.saved_tensors
    need_x, need_parameters = ctx.needs_input_grad[0], any(ctx.needs_input_grad[1:9])
    grad_x, grads = torch.ops.autoreid_fast.part_attention_backward(
        grad, x, parameters, affine, means, normalized, used, ctx.batch, ctx.relu, ctx.eps,
        need_x, need_parameters,
    )  # fmt: skip
    grads = [*grads, *[None] * (8 - len(grads))]  # those of the parameters and of affine
    return grad_x if need_x else None, *grads, None, None, None


def _no_second_derivative(ctx: Any, *rest: Any) -> None:
    raise AutoReIDError(
        "part_attention: the native op is differentiable once; use ops.backend('reference') for more"
    )


contract.define(
    "part_attention",
    "(Tensor x, Tensor project_weight, Tensor project_bias, Tensor key_weight, Tensor key_bias, "
    "Tensor query_weight, Tensor query_bias, Tensor fuse_weight, Tensor? affine, Tensor? statistics, "
    "bool relu, float eps) -> (Tensor bias, Tensor means, Tensor normalized, Tensor used)",
    twin.part_attention,
    _fake,
)
contract.define(
    "part_attention_backward",
    "(Tensor grad, Tensor x, Tensor[] parameters, Tensor? affine, Tensor means, Tensor normalized, "
    "Tensor used, bool batch, bool relu, float eps, bool need_x, bool need_parameters) -> "
    "(Tensor grad_x, Tensor[] grads)",
    twin.part_attention_backward,
    _fake_backward,
)
torch.library.register_autograd("autoreid_fast::part_attention", _backward, setup_context=_setup_context)
torch.library.register_autograd("autoreid_fast::part_attention_backward", _no_second_derivative)
triton_kernels.lay("part_attention", "part_attention", "part_attention_backward")
