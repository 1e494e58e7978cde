"""Operations of a derived network on our ops, where that pays (figures: docs/develop/decisions.md).

Values, parameters and state dicts are those of `operations.py`'s modules, which are plain torch; pools and
5x5 convolutions stay these. Where an op has no kernel for a tensor, or `ops.backend("reference")` asks for
it, the plain modules run: what counts or traces a network sees every convolution.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoreid_fast.nas.operations import FactorizedReduce, build_operation
from autoreid_fast.nas.part_aware import PARTS, PartAware, strip_of_rows
from autoreid_fast.ops import part_attention, runs_native, separable_conv


class FusedSeparable(nn.Sequential):
    """ReLU, depthwise 3x3 convolution, pointwise convolution, batch norm; one op up to the batch norm."""

    def forward(self, x: Tensor) -> Tensor:
        (z,) = _convolve([self], x)
        return self.tail(z)

    @property
    def head(self) -> "FusedSeparable":
        """The part that reads the operation's input, up to its batch norm."""
        return self

    def tail(self, z: Tensor) -> Tensor:
        """The rest of the operation."""
        return cast(Tensor, self[3](z))

    def plain(self, x: Tensor) -> Tensor:
        """The head by its layers."""
        return self.pointwise(self.depthwise(self[0](x)))

    @property
    def depthwise(self) -> nn.Conv2d:
        return cast(nn.Conv2d, self[1])

    @property
    def pointwise(self) -> nn.Conv2d:
        return cast(nn.Conv2d, self[2])


class FusedSepConv(nn.Sequential):
    """The depth-wise separable convolution, applied twice: two `FusedSeparable`, whose terms it shares."""

    @property
    def head(self) -> FusedSeparable:
        return cast(FusedSeparable, self[0])

    def tail(self, z: Tensor) -> Tensor:
        return cast(Tensor, self[1](self.head.tail(z)))


class FusedPartAware(PartAware):
    """`PartAware`, its fusing convolution as W1 x + (W2 part)[strip]: nothing is repeated or concatenated."""

    sync_bn = False

    def __init__(self, plain: PartAware) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(plain.__dict__)  # its very parameters and buffers

    def forward(self, x: Tensor) -> Tensor:
        if not runs_native("part_attention", x):
            return super().forward(x)
        self.check(x)
        if isinstance(self.fuse, FactorizedReduce):
            return cast(Tensor, self.fuse.bn(self._reduced(x, self.fuse)))
        convolution, bn = cast(nn.Sequential, self.fuse)
        weight = cast(nn.Conv2d, convolution).weight
        strip = strip_of_rows(x.shape[2], x.device)
        share = _rows(self._share(x, weight, relu=False), strip)
        return cast(Tensor, bn(F.conv2d(x, weight[:, : x.shape[1]]) + share))

    def _reduced(self, x: Tensor, fuse: FactorizedReduce) -> Tensor:
        """The two convolutions of stride 2, the second on x shifted by (1, 1)."""
        channels, height, width = x.shape[1:]
        weights = (fuse.conv.weight, fuse.conv_shifted.weight)
        shares = self._share(x, torch.cat(weights), relu=True).split([len(each) for each in weights], 2)
        strip = strip_of_rows(height, x.device)
        z = []
        for shift, (weight, share) in enumerate(zip(weights, shares, strict=True)):
            pixels = F.relu(x[:, :, shift::2, shift::2])
            rows = _rows(share, strip[shift::2])
            if shift and (height % 2 or width % 2):  # the shifted x has a row or a column too few
                pad = (0, width % 2, 0, height % 2)
                pixels, rows = F.pad(pixels, pad), F.pad(rows.expand(-1, -1, -1, width // 2), pad)
            z.append(F.conv2d(pixels, weight[:, :channels]) + rows)
        return torch.cat(z, dim=1)

    def _share(self, x: Tensor, weight: Tensor, relu: bool) -> Tensor:
        """What the part vectors add by the fusing ``weight`` (D, C + hidden, 1, 1), a strip: (N, M, D)."""
        channels, hidden = x.shape[1], self.hidden
        project, bn = cast(nn.Conv1d, self.project[1]), cast(nn.BatchNorm1d, self.project[2])
        assert project.bias is not None and bn.running_mean is not None and bn.running_var is not None
        assert bn.momentum is not None and bn.num_batches_tracked is not None
        affine = torch.stack([bn.weight, bn.bias]).view(2, 1, PARTS, hidden)
        if self.training:
            bn.num_batches_tracked.add_(1)
        return part_attention(
            x,
            project.weight.view(1, PARTS, hidden, channels),
            project.bias.view(1, PARTS, hidden),
            self.key.weight[None],
            self.key.bias[None],
            self.query.weight[None],
            self.query.bias[None],
            weight.flatten(1)[None, :, channels:],
            bn.running_mean.view(1, PARTS, hidden),
            bn.running_var.view(1, PARTS, hidden),
            affine,
            relu=relu,
            training=self.training,
            momentum=bn.momentum,
            eps=bn.eps,
            sync=self.sync_bn,
        )[0]


def build_fused(name: str, channels: int, stride: int) -> nn.Module:
    """`operations.build_operation` of a derived network: affine, and on our ops where they pay."""
    plain = build_operation(name, channels, stride, affine=True)
    if name == "sep_conv_3x3":
        return FusedSepConv(*(FusedSeparable(*half.children()) for half in plain.children()))
    if name == "dil_conv_3x3":
        return FusedSeparable(*plain.children())
    return FusedPartAware(plain) if isinstance(plain, PartAware) else plain


def apply_all(operations: Sequence[nn.Module], x: Tensor) -> list[Tensor]:
    """What each of ``operations``, all of one stride, makes of x (N, C, H, W).

    Every separable 3x3 convolution that reads x is in one call of `separable_conv`.
    """
    heads = [each.head for each in operations if isinstance(each, FusedSeparable | FusedSepConv)]
    z = iter(_convolve(heads, x))
    return [
        each.tail(next(z)) if isinstance(each, FusedSeparable | FusedSepConv) else each(x)
        for each in operations
    ]


def _convolve(heads: Sequence[FusedSeparable], x: Tensor) -> Sequence[Tensor]:
    """Each head's pointwise (depthwise (ReLU(x))), (N, C, H', W')."""
    if not heads or not runs_native("separable_conv", x):
        return [head.plain(x) for head in heads]
    # autocast knows torch's own operators alone
    depthwise = torch.stack([head.depthwise.weight.squeeze(1) for head in heads]).to(x.dtype)
    pointwise = torch.stack([head.pointwise.weight.flatten(1) for head in heads]).to(x.dtype)
    dilations = [head.depthwise.dilation[0] for head in heads]
    z = separable_conv(x, depthwise, pointwise, dilations, heads[0].depthwise.stride[0]).z
    return [z.squeeze(0)] if len(heads) == 1 else z.unbind()  # squeezing back costs no copy


def _rows(share: Tensor, strip: Tensor) -> Tensor:
    """Repeat (N, M, D) over the rows of the strips ``strip`` (H,): (N, D, H, 1)."""
    return share.index_select(1, strip).transpose(1, 2).unsqueeze(3)
