"""Operations of a derived network on our ops, where that pays (figures: docs/develop/decisions.md).

Values, parameters and state dicts are those of the plain modules; pools and 5x5 convolutions stay plain. The
plain layers also run where an op has no kernel for a tensor, where one of them is no longer as it was built
(`AsBuilt`), and under `ops.backend("reference")`: a counter or a tracer then sees every convolution.
"""

from collections.abc import Sequence
from typing import TypeGuard, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoreid_fast.nas.operations.as_built import AsBuilt
from autoreid_fast.nas.operations.layers import ConvBN, DepthwiseSeparable, FactorizedReduce, Layer, SepConv
from autoreid_fast.nas.operations.part_aware import PartAware, strip_of_rows
from autoreid_fast.nas.operations.registry import build_operation
from autoreid_fast.ops import part_attention, runs_native, separable_conv
from autoreid_fast.ops.batch_norm.layer import SyncBatchNorm
from autoreid_fast.ops.part_attention.strips import PARTS


class FusedSeparable(DepthwiseSeparable):
    """`DepthwiseSeparable` with ReLU and both convolutions in one op.

    Like `FusedSepConv` it splits into ``head``, the part that shares an op with other operations on the same
    input, and ``tail``, the rest.
    """

    def __init__(self, channels: int, kernel: int, stride: int, dilation: int, affine: bool) -> None:
        super().__init__(channels, kernel, stride, dilation, affine)
        self.built = AsBuilt(self, ["", "0", "1", "2"])

    def forward(self, x: Tensor) -> Tensor:
        if not self.fuses(x):
            return cast(Tensor, super().forward(x))
        (z,) = _convolve([self], x)
        return self.tail(z)

    def fuses(self, x: Tensor) -> bool:
        """Whether `separable_conv` computes ``head`` on x (N, C, H, W)."""
        return _runs("separable_conv", x) and self.built.describes(self)

    @property
    def head(self) -> "FusedSeparable":
        return self

    def tail(self, z: Tensor) -> Tensor:
        normalized: Tensor = self.norm(z)
        return normalized


class FusedSepConv(SepConv):
    """`SepConv` of two `FusedSeparable`."""

    first = Layer[FusedSeparable](0)
    half_type = FusedSeparable

    def __init__(self, channels: int, kernel: int, stride: int, affine: bool) -> None:
        super().__init__(channels, kernel, stride, affine)
        self.built = AsBuilt(self, ["", "0"])

    def fuses(self, x: Tensor) -> bool:
        """Whether `separable_conv` computes ``head`` on x (N, C, H, W)."""
        return self.built.describes(self) and self.first.fuses(x)

    @property
    def head(self) -> FusedSeparable:
        return self.first

    def tail(self, z: Tensor) -> Tensor:
        return cast(Tensor, self.second(self.first.tail(z)))


class FusedPartAware(PartAware):
    """`PartAware` that fuses by W1 x + (W2 part)[strip], without repeating or concatenating anything."""

    def __init__(self, channels: int, stride: int, affine: bool) -> None:
        super().__init__(channels, stride, affine)
        fused = ["0"] if isinstance(self.fuse, ConvBN) else ["conv", "conv_shifted"]
        self.built = AsBuilt(
            self,
            ["", "project", "project.0", "project.1", "project.2", "key", "query", "fuse"]
            + [f"fuse.{name}" for name in fused],
        )

    def forward(self, x: Tensor) -> Tensor:
        if not _runs("part_attention", x) or not self.built.describes(self):
            return super().forward(x)
        self.check(x)
        if isinstance(self.fuse, FactorizedReduce):
            return cast(Tensor, self.fuse.norm(self._reduced(x, self.fuse)))
        weight = self.fuse.convolution.weight
        strip = strip_of_rows(x.shape[2], x.device)
        bias = _rows(self._bias(x, weight, relu=False), strip)
        return cast(Tensor, self.fuse.norm(F.conv2d(x, weight[:, : x.shape[1]]) + bias))

    def _reduced(self, x: Tensor, fuse: FactorizedReduce) -> Tensor:
        """Apply the two convolutions of stride 2, the second one to x shifted by (1, 1)."""
        channels, height, width = x.shape[1:]
        weights = (fuse.conv.weight, fuse.conv_shifted.weight)
        biases = self._bias(x, torch.cat(weights), relu=True).split([len(weight) for weight in weights], 2)
        strip = strip_of_rows(height, x.device)
        z = []
        for shift, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            pixels = F.relu(x[:, :, shift::2, shift::2])
            rows = _rows(bias, strip[shift::2])
            if shift and (height % 2 or width % 2):  # the shifted x lacks a row or a column
                pad = (0, width % 2, 0, height % 2)
                pixels, rows = F.pad(pixels, pad), F.pad(rows.expand(-1, -1, -1, width // 2), pad)
            z.append(F.conv2d(pixels, weight[:, :channels]) + rows)
        return torch.cat(z, dim=1)

    def _bias(self, x: Tensor, weight: Tensor, relu: bool) -> Tensor:
        """Apply the fusing ``weight`` (D, C + hidden, 1, 1) to the part vectors: (N, M, D), one per strip."""
        channels, hidden = x.shape[1], self.hidden
        project, norm = self.project.convolution, self.project.norm
        assert project.bias is not None and norm.running_mean is not None and norm.running_var is not None
        assert norm.momentum is not None and norm.num_batches_tracked is not None  # `AsBuilt`
        affine = torch.stack([norm.weight, norm.bias]).view(2, 1, PARTS, hidden)
        if self.training:
            norm.num_batches_tracked.add_(1)
        return part_attention(
            x,
            project.weight.view(1, PARTS, hidden, channels),
            project.bias.view(1, PARTS, hidden),
            self.key.weight[None],
            self.key.bias[None],
            self.query.weight[None],
            self.query.bias[None],
            weight.flatten(1)[None, :, channels:],
            norm.running_mean.view(1, PARTS, hidden),
            norm.running_var.view(1, PARTS, hidden),
            affine,
            relu=relu,
            training=self.training,
            momentum=norm.momentum,
            eps=norm.eps,
            sync=isinstance(norm, SyncBatchNorm),
        )[0]


def build_fused(name: str, channels: int, stride: int) -> nn.Module:
    """Build an operation of a derived network, on our ops where that pays; see `build_operation`."""
    match name:
        case "sep_conv_3x3":
            return FusedSepConv(channels, 3, stride, affine=True)
        case "dil_conv_3x3":
            return FusedSeparable(channels, 3, stride, dilation=2, affine=True)
        case "part_aware":
            return FusedPartAware(channels, stride, affine=True)
    return build_operation(name, channels, stride, affine=True)


def apply_all(operations: Sequence[nn.Module], x: Tensor) -> list[Tensor]:
    """Apply each of ``operations``, all of one stride, to x (N, C, H, W).

    One call of `separable_conv` computes all separable 3x3 convolutions that read x.
    """
    shared = {index: operation for index, operation in enumerate(operations) if _shares(operation, x)}
    z = _convolve([operation.head for operation in shared.values()], x)
    outputs = {index: operation.tail(one) for (index, operation), one in zip(shared.items(), z, strict=True)}
    return [
        outputs[index] if index in outputs else operation(x) for index, operation in enumerate(operations)
    ]


def _shares(operation: nn.Module, x: Tensor) -> TypeGuard[FusedSeparable | FusedSepConv]:
    """Whether an operation can share an op with others; a subclass may compute something else."""
    return (
        isinstance(operation, FusedSeparable | FusedSepConv)
        and type(operation) in (FusedSeparable, FusedSepConv)
        and operation.fuses(x)
    )


def _runs(op: str, x: Tensor) -> bool:
    """Whether ``op`` has a kernel for x; ops need at least one image."""
    return x.shape[0] > 0 and runs_native(op, x)


def _convolve(heads: Sequence[FusedSeparable], x: Tensor) -> Sequence[Tensor]:
    """Compute pointwise(depthwise(ReLU(x))) of each head, (N, C, H', W')."""
    if not heads:
        return []
    # autocast does not handle our op
    depthwise = torch.stack([head.depthwise.weight.squeeze(1) for head in heads]).to(x.dtype)
    pointwise = torch.stack([head.pointwise.weight.flatten(1) for head in heads]).to(x.dtype)
    dilations = [head.depthwise.dilation[0] for head in heads]
    z = separable_conv(x, depthwise, pointwise, dilations, heads[0].depthwise.stride[0]).z
    return [z.squeeze(0)] if len(heads) == 1 else z.unbind()  # the backward of squeeze costs no copy


def _rows(bias: Tensor, strip: Tensor) -> Tensor:
    """Repeat ``bias`` (N, M, D) over the rows of the strips ``strip`` (H,): (N, D, H, 1)."""
    return bias.index_select(1, strip).transpose(1, 2).unsqueeze(3)
