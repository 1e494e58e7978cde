"""Triton kernels of `part_attention`: the part-aware module up to one bias vector per strip.

Maths, for E edges on x (N, C, H, W) in M = 4 strips, h hidden and D output channels:

    mean_m = mean of strip m        v_m = project_weight_m relu(mean_m) + project_bias_m
    normalized = (v - mean_N v) rstd        f = normalized, or scale normalized + shift
    A = softmax((key_weight f + key_bias) (query_weight f + query_bias)^T)        part = A f
    bias = fuse_weight part, or fuse_weight relu(part)

csrc/part_attention/part_attention.h has the gradients.

Forward: `strip_means`, one program per strip of an image and block of channels; `project`, one program per
strip and block of hidden channels, for all images, so that it can compute the batch statistics; `attend`,
one program per 4 images of an edge, whose attention is one 16 x 16 matrix with 4 blocks. Backward:
`attend_backward` and `project_backward` in the same way, `mean_grads` adds up the edges, `spread_grads`
writes dx, `weight_grads` computes the gradients of the parameters.

Traffic: x is read once and dx written once, 6.3 MB at N = 16, C = 32, 96 x 32 in float32: 3 us at 2.4 TB/s
(predicted). All else is N M (C + E (3 h + D)) values, which stay in the L2 cache; there, launches dominate.
FLOPs forward: 2 E N M (C h + 2 h h + 2 M h + h D).

Layout, all contiguous: x and dx (N, H, W, C); means (N, M, C); activations (E, N, M, columns), whose rows
n M + m programs handle 16 at a time; parameters as in the op's schema. Products are in float32, without TF32.
"""

from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from autoreid_fast.kernels.part_attention import backward, forward
from autoreid_fast.kernels.part_attention.backward import Matrices
from autoreid_fast.ops.part_attention import PARTS

BLOCK_ROWS = 16
"""Rows of a product's tile: the least that `tl.dot` accepts. A multiple of PARTS: whole images."""
BLOCK_COLUMNS = 32
"""Columns of a product's tile, and terms that it adds at a time."""
BLOCK_PIXELS = 64
"""Pixels of a tile of x, by BLOCK_COLUMNS channels."""
WARPS = 4
STAGES = 1
"""Pipeline stages of a loop with products: loads staged ahead cost registers and spill some."""


class Problem:
    """The sizes of one call, its parameters made contiguous, and the grids of its launches."""

    def __init__(self, x: Tensor, parameters: Sequence[Tensor], affine: Tensor | None) -> None:
        self.images, self.channels, self.height, self.width = x.shape
        self.parameters = [parameter.contiguous() for parameter in parameters]
        self.affine = None if affine is None else affine.contiguous()
        self.edges, _, self.hidden, _ = parameters[0].shape
        self.out_channels = parameters[-1].shape[1]
        self.rows, self.strips = self.images * PARTS, self.edges * PARTS
        self.dtype, self.device = x.dtype, x.device
        self.product_options = {
            "BLOCK_ROWS": BLOCK_ROWS,
            "BLOCK_COLUMNS": BLOCK_COLUMNS,
            "num_warps": WARPS,
            "num_stages": STAGES,
        }
        """Launch options of the kernels with products."""
        self.pixel_options = {
            "BLOCK_PIXELS": BLOCK_PIXELS,
            "BLOCK_COLUMNS": BLOCK_COLUMNS,
            "num_warps": WARPS,
        }
        """Launch options of the kernels over pixels."""
        self.strip_grid = self.rows, triton.cdiv(self.channels, BLOCK_COLUMNS)
        self.norm_grid = self.strips, triton.cdiv(self.hidden, BLOCK_COLUMNS)
        self.attention_grid = triton.cdiv(self.rows, BLOCK_ROWS), self.edges

    def empty(self, *shape: int) -> Tensor:
        """An empty tensor of x's dtype."""
        return torch.empty(shape, dtype=self.dtype, device=self.device)

    def empty_float(self, *shape: int) -> Tensor:
        """An empty float32 tensor."""
        return torch.empty(shape, dtype=torch.float32, device=self.device)

    def empty_activations(self) -> Tensor:
        """An empty float32 tensor (E, N, M, h)."""
        return self.empty_float(self.edges, self.images, PARTS, self.hidden)

    def features(self, normalized: Tensor) -> Tensor:
        """f (E, N, M, h): `normalized`, with the batch norm's affine part where it has one."""
        if self.affine is None:
            return normalized
        f = self.empty_activations()
        forward.scale_and_shift[self.rows, self.edges](
            normalized, self.affine, f, self.hidden, self.strips, BLOCK_COLUMNS=BLOCK_COLUMNS, num_warps=1
        )
        return f


def part_attention(
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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run `autoreid_fast::part_attention` on CUDA; arguments and results as in the schema, but no float64."""
    parameters = [project_weight, project_bias, key_weight, key_bias, query_weight, query_bias, fuse_weight]
    problem = Problem(x, parameters, affine)
    project_weight, project_bias, *attention_parameters = problem.parameters
    means = problem.empty_float(problem.images, PARTS, problem.channels)
    forward.strip_means[problem.strip_grid](
        x.permute(0, 2, 3, 1).contiguous(),
        means,
        problem.height,
        problem.width,
        problem.channels,
        **problem.pixel_options,
    )
    normalized = problem.empty_activations()
    used = problem.empty_float(2, problem.edges, PARTS, problem.hidden)
    forward.project[problem.norm_grid](
        means,
        project_weight,
        project_bias,
        used if statistics is None else statistics.contiguous(),
        normalized,
        used,
        eps,
        problem.images,
        problem.channels,
        problem.hidden,
        problem.strips,
        BATCH=statistics is None,
        **problem.product_options,
    )
    bias = problem.empty(problem.edges, problem.images, PARTS, problem.out_channels)
    forward.attend[problem.attention_grid](
        problem.features(normalized),
        *attention_parameters,
        bias,
        problem.rows,
        problem.hidden,
        problem.out_channels,
        RELU=relu,
        **problem.product_options,
    )
    return bias, means, normalized, used


def part_attention_backward(
    grad: Tensor,
    x: Tensor,
    parameters: Sequence[Tensor],
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
    """Run `autoreid_fast::part_attention_backward` on CUDA; arguments and results as in the schema."""
    problem = Problem(x, parameters, affine)
    has_affine = problem.affine is not None
    grad, means = grad.contiguous(), means.contiguous()
    normalized, used = normalized.contiguous(), used.contiguous()
    f = problem.features(normalized)
    part, grad_keys, grad_queries, grad_f = (problem.empty_activations() for _ in range(4))
    backward.attend_backward[problem.attention_grid](
        grad,
        f,
        *problem.parameters[2:],
        part,
        grad_keys,
        grad_queries,
        grad_f,
        problem.rows,
        problem.hidden,
        problem.out_channels,
        RELU=relu,
        **problem.product_options,
    )
    grad_affine = problem.empty_float(2, problem.edges, PARTS, problem.hidden) if has_affine else used
    backward.project_backward[problem.norm_grid](
        grad_f,
        normalized,
        problem.affine if has_affine else used,
        used,
        grad_affine,
        eps,
        problem.images,
        problem.hidden,
        problem.strips,
        BATCH=batch,
        HAS_AFFINE=has_affine,
        **problem.product_options,
    )
    grad_projected = grad_f  # in place
    grad_x = problem.empty(problem.images if need_x else 0, problem.height, problem.width, problem.channels)
    if need_x:
        _input_grad(problem, grad_projected, means, grad_x)
    grads: list[Tensor] = []
    if need_parameters:
        grads = _parameter_grads(problem, grad, f, means, part, grad_keys, grad_queries, grad_projected)
        if has_affine:
            grads.append(grad_affine)
    return grad_x.permute(0, 3, 1, 2), grads


def _input_grad(problem: Problem, grad_projected: Tensor, means: Tensor, grad_x: Tensor) -> None:
    """Write ``grad_x`` (N, H, W, C)."""
    grad_means = torch.empty_like(means)
    image_blocks = triton.cdiv(problem.images, BLOCK_ROWS)
    backward.mean_grads[image_blocks, triton.cdiv(problem.channels, BLOCK_COLUMNS), PARTS](
        grad_projected,
        problem.parameters[0],
        means,
        grad_means,
        problem.images,
        problem.channels,
        problem.hidden,
        problem.edges,
        **problem.product_options,
    )
    backward.spread_grads[problem.strip_grid](
        grad_means, grad_x, problem.height, problem.width, problem.channels, **problem.pixel_options
    )


def _parameter_grads(
    problem: Problem,
    grad: Tensor,
    f: Tensor,
    means: Tensor,
    part: Tensor,
    grad_keys: Tensor,
    grad_queries: Tensor,
    grad_projected: Tensor,
) -> list[Tensor]:
    """Gradients of the seven parameters, in the schema's order."""
    grads = [problem.empty_float(*parameter.shape) for parameter in problem.parameters]
    project_weight, project_bias, key_weight, key_bias, query_weight, query_bias, fuse_weight = grads
    hidden, channels, out_channels = problem.hidden, problem.channels, problem.out_channels
    edge = problem.rows * hidden
    # Strip m: one row per image, M rows apart. All edges share the means.
    _weight_grads(
        Matrices(grad_projected, PARTS * hidden, stride_outer=edge, stride_inner=hidden),
        Matrices(means, PARTS * channels, stride_outer=0, stride_inner=channels),
        project_weight.flatten(0, 1),
        project_bias,
        depth=problem.images,
        inner=PARTS,
        relu=True,
    )
    f_rows = Matrices(f, hidden, stride_outer=edge)
    _weight_grads(Matrices(grad_keys, hidden, stride_outer=edge), f_rows, key_weight, key_bias, problem.rows)
    _weight_grads(
        Matrices(grad_queries, hidden, stride_outer=edge), f_rows, query_weight, query_bias, problem.rows
    )
    _weight_grads(
        Matrices(grad, out_channels, stride_outer=problem.rows * out_channels),
        Matrices(part, hidden, stride_outer=edge),
        fuse_weight,
        None,
        problem.rows,
    )
    return grads


def _weight_grads(
    a: Matrices,
    b: Matrices,
    grad: Tensor,
    grad_bias: Tensor | None,
    depth: int,
    inner: int = 1,
    relu: bool = False,
) -> None:
    """Write ``grad`` (stack, rows, columns) and ``grad_bias`` (stack, rows); see `backward.weight_grads`."""
    stack, rows, columns = grad.shape
    backward.weight_grads[triton.cdiv(rows, BLOCK_COLUMNS), triton.cdiv(columns, BLOCK_COLUMNS), stack](
        a,
        b,
        grad,
        grad if grad_bias is None else grad_bias,
        depth,
        rows,
        columns,
        INNER=inner,
        RELU=relu,
        HAS_BIAS=grad_bias is not None,
        BLOCK_COLUMNS=BLOCK_COLUMNS,
        num_warps=WARPS,
        num_stages=STAGES,
    )
