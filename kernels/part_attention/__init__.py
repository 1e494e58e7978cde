"""The part-aware module up to one bias vector a strip, in Triton; `autoreid_fast.ops` has the public face.

Maths, for E edges on x (N, C, H, W) in M = 4 strips; csrc/part_attention/part_attention.h has the gradients:

    mean_m = mean of strip m,   v_m = P_m relu(mean_m) + p_m,   vhat = (v - mean_N v) rstd
    f = vhat, or scale vhat + shift,   A = softmax((key f + k) (query f + q)^T),   part = A f
    bias = W2 part, or W2 relu(part)

Forward: `strip_means`, a program a strip of an image; `project`, a program some channels of all images, so
that the batch norm is its own; `attend`, a program 4 images of an edge, whose attention is one 16 x 16 matrix
with 4 blocks. Backward: `attend_back` and `project_back` likewise, `mean_grads` adds up the edges, `spread`
writes d x; `weight_grads` makes each parameter's gradient. No atomics: the same bits every time.

Bytes: x is read once, and d x written once: 6.3 MB at N = 16, C = 32, 96 x 32 in fp32, 3 us at
2.4 TB/s (arithmetic). The rest is N M (C + E (3 h + D)) numbers, in the L2; there launches are what counts.

Layouts: x and d x (N, H, W, C); activations (E, N, M, columns), whose rows n M + m a program takes 16 of. All
are contiguous; products are in fp32 without TF32.
"""

from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from autoreid_fast.kernels.part_attention import backward as back
from autoreid_fast.kernels.part_attention import forward as forth

PARTS = forth.PARTS.value
ROWS = 16
"""Of a product's tile: the least that `tl.dot` takes. A multiple of PARTS: whole images."""
BLOCK = 32
"""Columns of a product's tile, and terms that it adds at once."""
PIXELS = 64
"""Of a tile of x, by BLOCK channels."""
WARPS = 4
STAGES = 1
"""Of a loop with products: loads that are staged ahead take registers and spill some."""


class Problem:
    """The sizes of one call, and its parameters as the kernels take them."""

    def __init__(self, x: Tensor, parameters: Sequence[Tensor], affine: Tensor | None) -> None:
        self.images, self.channels, self.height, self.width = x.shape
        self.parameters = [each.contiguous() for each in parameters]
        self.affine = None if affine is None else affine.contiguous()
        self.edges, _, self.hidden, _ = parameters[0].shape
        self.out = parameters[-1].shape[1]
        self.rows, self.strips = self.images * PARTS, self.edges * PARTS
        self.device = x.device
        self.tile = {"ROWS": ROWS, "BLOCK": BLOCK, "num_warps": WARPS, "num_stages": STAGES}
        """Of every kernel with products."""
        self.strip_grid = self.rows, triton.cdiv(self.channels, BLOCK)
        self.norm_grid = self.strips, triton.cdiv(self.hidden, BLOCK)
        self.attention_grid = triton.cdiv(self.rows, ROWS), self.edges

    def numbers(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self.device)

    def activations(self) -> Tensor:
        return self.numbers(self.edges, self.images, PARTS, self.hidden)

    def features(self, normalized: Tensor) -> Tensor:
        """f, which is vhat where the batch norm has no affine."""
        if self.affine is None:
            return normalized
        f = self.activations()
        forth.scale_and_shift[self.rows, self.edges](
            normalized, self.affine, f, self.hidden, self.strips, BLOCK=BLOCK, num_warps=1
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
    """The CUDA kernel of `autoreid_fast::part_attention`; arguments as the twin has them, but no float64."""
    parameters = (
        project_weight, project_bias, key_weight, key_bias, query_weight, query_bias, fuse_weight
    )  # fmt: skip
    p = Problem(x, parameters, affine)
    weight, start, *attention = p.parameters
    means = p.numbers(p.images, PARTS, p.channels)
    forth.strip_means[p.strip_grid](
        x.permute(0, 2, 3, 1).contiguous(), means, p.height, p.width, p.channels,
        PIXELS=PIXELS, BLOCK=BLOCK, num_warps=WARPS,
    )  # fmt: skip
    normalized, used = p.activations(), p.numbers(2, p.edges, PARTS, p.hidden)
    forth.project[p.norm_grid](
        means, weight, start, used if statistics is None else statistics.contiguous(), normalized, used, eps,
        p.images, p.channels, p.hidden, p.strips, BATCH=statistics is None, **p.tile,
    )  # fmt: skip
    bias = torch.empty((p.edges, p.images, PARTS, p.out), dtype=x.dtype, device=x.device)
    forth.attend[p.attention_grid](
        p.features(normalized), *attention, bias, p.rows, p.hidden, p.out, RELU=relu, **p.tile
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
    """The CUDA kernel of `autoreid_fast::part_attention_backward`; arguments as the twin has them."""
    p = Problem(x, parameters, affine)
    g, means, normalized, used = (each.contiguous() for each in (grad, means, normalized, used))
    f = p.features(normalized)
    part, d_keys, d_queries, d_f = (p.activations() for _ in range(4))
    back.attend_back[p.attention_grid](
        g, f, *p.parameters[2:], part, d_keys, d_queries, d_f, p.rows, p.hidden, p.out, RELU=relu, **p.tile
    )
    grad_affine = used if p.affine is None else p.numbers(2, p.edges, PARTS, p.hidden)
    back.project_back[p.norm_grid](
        d_f, normalized, used if p.affine is None else p.affine, used, grad_affine, eps,
        p.images, p.hidden, p.strips, BATCH=batch, HAS_AFFINE=p.affine is not None, **p.tile,
    )  # fmt: skip
    grad_x = torch.empty(
        (p.images if need_x else 0, p.height, p.width, p.channels), dtype=x.dtype, device=x.device
    )
    if need_x:
        grad_means = torch.empty_like(means)
        back.mean_grads[triton.cdiv(p.images, ROWS), triton.cdiv(p.channels, BLOCK), PARTS](
            d_f, p.parameters[0], means, grad_means, p.images, p.channels, p.hidden, p.edges, **p.tile
        )
        back.spread[p.strip_grid](
            grad_means, grad_x, p.height, p.width, p.channels, PIXELS=PIXELS, BLOCK=BLOCK, num_warps=WARPS
        )
    grads: list[Tensor] = []
    if need_parameters:
        grads = _parameter_grads(p, g, f, means, part, d_keys, d_queries, d_f)
        if p.affine is not None:
            grads.append(grad_affine)
    return grad_x.permute(0, 3, 1, 2), grads


def _parameter_grads(
    p: Problem,
    g: Tensor,
    f: Tensor,
    means: Tensor,
    part: Tensor,
    d_keys: Tensor,
    d_queries: Tensor,
    d_v: Tensor,
) -> list[Tensor]:
    grads = [p.numbers(*each.shape) for each in p.parameters]
    d_project, d_start, d_key, d_key_bias, d_query, d_query_bias, d_fuse = grads
    edge = p.rows * p.hidden
    # Of strip m all images' rows, M apart; every edge has the same means.
    _weight_grads(
        p.strips, d_v, means, d_project, d_start, p.images, (PARTS * p.hidden, PARTS * p.channels),
        (edge, p.hidden, 0, p.channels), inner=PARTS, relu=True,
    )  # fmt: skip
    for d_out, d_weight, d_bias in ((d_keys, d_key, d_key_bias), (d_queries, d_query, d_query_bias)):
        _weight_grads(p.edges, d_out, f, d_weight, d_bias, p.rows, (p.hidden, p.hidden), (edge, 0, edge, 0))
    _weight_grads(p.edges, g, part, d_fuse, None, p.rows, (p.out, p.hidden), (p.rows * p.out, 0, edge, 0))
    return grads


def _weight_grads(
    count: int,
    a: Tensor,
    b: Tensor,
    grad: Tensor,
    grad_bias: Tensor | None,
    depth: int,
    row_strides: tuple[int, int],
    matrix_strides: tuple[int, int, int, int],
    inner: int = 1,
    relu: bool = False,
) -> None:
    """Of `count` matrices each; `back.weight_grads` says how they lie."""
    rows, columns = grad.shape[-2:]
    back.weight_grads[triton.cdiv(rows, BLOCK), triton.cdiv(columns, BLOCK), count](
        a, b, grad, grad if grad_bias is None else grad_bias, depth, rows, columns,
        *row_strides, *matrix_strides,
        INNER=inner, RELU=relu, HAS_BIAS=grad_bias is not None,
        BLOCK=BLOCK, num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip
