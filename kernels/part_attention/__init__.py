"""Triton kernels of `part_attention`: the part-aware module as far as the bias vector of each strip.

csrc/part_attention/part_attention.h has the maths, forward and backward, and the names.

Forward: `strip_means`, one program per strip of an image and block of channels; `project`, one program per
strip and block of hidden channels, for all images, so that it can compute the batch statistics; `attend`,
one program per 4 images of an edge, whose attention is one 16 x 16 matrix with 4 blocks. Backward:
`attend_backward` and `project_backward` in the same way, `mean_grads` adds up the edges, `spread_grads`
writes dx, `weight_grads` computes the gradients of the parameters.

Traffic: x is read once and dx written once (docs/lab/tuning.md has measured times). All else is values per
strip, which stay in the L2 cache; there, launches dominate: the N M (C + E (h + D)) of the op's inputs and
outputs, another E N M h for f if the norm is affine, and in the backward pass 4 E N M h for part and the
gradients of keys, queries and f, and N M C for the gradients of the means.
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
        self.rows, self.strip_count = self.images * PARTS, self.edges * PARTS
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
        self.norm_grid = self.strip_count, triton.cdiv(self.hidden, BLOCK_COLUMNS)
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

    def body_vectors(self, normalized: Tensor) -> Tensor:
        """Body vectors f (E, N, M, h): `normalized`, with the batch norm's affine part where it has one."""
        if self.affine is None:
            return normalized
        f = self.empty_activations()
        forward.scale_and_shift[self.rows, self.edges](
            normalized,
            self.affine,
            f,
            self.hidden,
            self.strip_count,
            BLOCK_COLUMNS=BLOCK_COLUMNS,
            num_warps=1,
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
    means = problem.empty_float(problem.images, PARTS, problem.channels)
    forward.strip_means[problem.strip_grid](
        x.permute(0, 2, 3, 1).contiguous(),
        means,
        problem.height,
        problem.width,
        problem.channels,
        **problem.pixel_options,
    )
    normalized, norm_statistics = _project(problem, means, statistics, eps)
    strip_bias = problem.empty(problem.edges, problem.images, PARTS, problem.out_channels)
    forward.attend[problem.attention_grid](
        problem.body_vectors(normalized),
        *problem.parameters[2:],
        strip_bias,
        problem.rows,
        problem.hidden,
        problem.out_channels,
        RELU_PART=relu,
        **problem.product_options,
    )
    return strip_bias, means, normalized, norm_statistics


def _project(problem: Problem, means: Tensor, statistics: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """Normalised projections (E, N, M, h), and the statistics (2, E, M, h) that normalise them."""
    normalized = problem.empty_activations()
    norm_statistics = problem.empty_float(2, problem.edges, PARTS, problem.hidden)
    forward.project[problem.norm_grid](
        means,
        *problem.parameters[:2],
        norm_statistics if statistics is None else statistics.contiguous(),
        normalized,
        norm_statistics,
        eps,
        problem.images,
        problem.channels,
        problem.hidden,
        problem.strip_count,
        BATCH_STATISTICS=statistics is None,
        **problem.product_options,
    )
    return normalized, norm_statistics


def part_attention_backward(
    grad: Tensor,
    x: Tensor,
    parameters: Sequence[Tensor],
    affine: Tensor | None,
    means: Tensor,
    normalized: Tensor,
    norm_statistics: Tensor,
    batch_statistics: bool,
    relu: bool,
    eps: float,
    need_x: bool,
    need_parameters: bool,
) -> tuple[Tensor, list[Tensor]]:
    """Run `autoreid_fast::part_attention_backward` on CUDA; arguments and results as in the schema."""
    problem = Problem(x, parameters, affine)
    grad, means = grad.contiguous(), means.contiguous()
    normalized, norm_statistics = normalized.contiguous(), norm_statistics.contiguous()
    f = problem.body_vectors(normalized)
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
        RELU_PART=relu,
        **problem.product_options,
    )
    grad_affine = _norm_grad(problem, grad_f, normalized, norm_statistics, batch_statistics, eps)
    grad_projected = grad_f  # in place
    grad_x = problem.empty(problem.images if need_x else 0, problem.height, problem.width, problem.channels)
    if need_x:
        _input_grad(problem, grad_projected, means, grad_x)
    grads: list[Tensor] = []
    if need_parameters:
        grads = _parameter_grads(problem, grad, f, means, part, grad_keys, grad_queries, grad_projected)
        if grad_affine is not None:
            grads.append(grad_affine)
    return grad_x.permute(0, 3, 1, 2), grads


def _norm_grad(
    problem: Problem,
    grad_f: Tensor,
    normalized: Tensor,
    norm_statistics: Tensor,
    batch_statistics: bool,
    eps: float,
) -> Tensor | None:
    """Turn ``grad_f`` into the gradient of the projections, in place; return the gradient of affine."""
    affine = problem.affine
    grad_affine = None if affine is None else problem.empty_float(2, problem.edges, PARTS, problem.hidden)
    backward.project_backward[problem.norm_grid](
        grad_f,
        normalized,
        norm_statistics if affine is None else affine,
        norm_statistics,
        norm_statistics if grad_affine is None else grad_affine,
        eps,
        problem.images,
        problem.hidden,
        problem.strip_count,
        BATCH_STATISTICS=batch_statistics,
        HAS_AFFINE=affine is not None,
        **problem.product_options,
    )
    return grad_affine


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
