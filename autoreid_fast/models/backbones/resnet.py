"""ResNet-18, -34 and -50 [13], with the parameter names of torchvision, whose weights load."""

from torch import Tensor, nn

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas.backbone import Backbone
from autoreid_fast.nas.macro import is_whole


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut: (N, in, H, W) -> (N, planes, H / stride, W / stride)."""

    expansion = 1

    def __init__(self, in_channels: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _downsample(in_channels, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolutions and the shortcut, to 4 * ``planes`` channels."""

    expansion = 4

    def __init__(self, in_channels: int, planes: int, stride: int) -> None:
        super().__init__()
        out_channels = planes * self.expansion
        self.conv1 = nn.Conv2d(in_channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _downsample(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + self.downsample(x))


def _downsample(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Build the shortcut: a projection where shapes differ, else the identity (an empty Sequential)."""
    if stride == 1 and in_channels == out_channels:
        return nn.Sequential()
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
    )


_LAYERS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
}


class ResNet(Backbone):
    """Images (N, 3, H, W) -> f (N, 8 * ``width``), for ``depth`` 50 (N, 32 * ``width``).

    Args:
        depth: 18, 34 or 50.
        width: Channels of the first convolution, 64 in [13]; the other layers scale with it.
        last_stride: Stride of the last stage, 2 in [13]; PCB [30] and HPM [12] use 1, which doubles the
            resolution of the feature map.

    Raises:
        AutoReIDError: another depth or stride, or a width that is no whole number of at least 1.
    """

    def __init__(self, depth: int, width: int = 64, last_stride: int = 2) -> None:
        super().__init__()
        if depth not in _LAYERS:
            raise AutoReIDError(f"ResNet: depth is {depth}; expected one of {', '.join(map(str, _LAYERS))}")
        if not is_whole(width) or width < 1:
            raise AutoReIDError(
                f"ResNet: width (channels) is {width!r}; expected a whole number of at least 1"
            )
        if last_stride not in (1, 2):
            raise AutoReIDError(f"ResNet: last_stride is {last_stride!r}; expected 1 or 2")
        block, repeats = _LAYERS[depth]
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = width

        def layer(planes: int, count: int, stride: int) -> nn.Sequential:
            nonlocal channels
            blocks = []
            for i in range(count):
                blocks.append(block(channels, planes, stride if i == 0 else 1))
                channels = planes * block.expansion
            return nn.Sequential(*blocks)

        self.layer1 = layer(width, repeats[0], 1)
        self.layer2 = layer(2 * width, repeats[1], 2)
        self.layer3 = layer(4 * width, repeats[2], 2)
        self.layer4 = layer(8 * width, repeats[3], last_stride)
        self.feature_dim = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def feature_map(self, images: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))
