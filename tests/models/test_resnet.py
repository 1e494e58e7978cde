"""ResNets: names and counts of torchvision."""

import pytest
import torch

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.models.backbones.resnet import ResNet


@pytest.mark.parametrize(
    ("depth", "with_fc", "entries"), [(18, 11_689_512, 122), (34, 21_797_672, 218), (50, 25_557_032, 320)]
)
def test_counts_of_torchvision(depth: int, with_fc: int, entries: int) -> None:
    with torch.device("meta"):
        network = ResNet(depth)
    fc = network.feature_dim * 1000 + 1000
    assert sum(parameter.numel() for parameter in network.parameters()) + fc == with_fc
    assert len(network.state_dict()) + 2 == entries  # fc.weight and fc.bias


def test_names_of_torchvision() -> None:
    with torch.device("meta"):
        small, large = ResNet(18).state_dict(), ResNet(50).state_dict()
    assert small["conv1.weight"].shape == (64, 3, 7, 7)
    assert small["layer2.0.downsample.0.weight"].shape == (128, 64, 1, 1)
    assert "layer1.0.downsample.0.weight" not in small
    assert large["layer1.0.downsample.1.running_var"].shape == (256,)
    assert large["layer4.2.conv3.weight"].shape == (2048, 512, 1, 1)
    assert large["layer2.0.conv2.weight"].shape == (128, 128, 3, 3)


@pytest.mark.parametrize(("depth", "feature_dim"), [(18, 64), (34, 64), (50, 256)])
@pytest.mark.parametrize(("height", "width"), [(64, 32), (33, 17), (5, 1)])
def test_shapes_and_gradients(depth: int, feature_dim: int, height: int, width: int) -> None:
    network = ResNet(depth, width=8)
    feature = network(torch.randn(2, 3, height, width))
    assert feature.shape == (2, feature_dim) == (2, network.feature_dim)
    feature.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_basic_block_layer_by_layer() -> None:
    block = ResNet(18, width=4).eval().layer2[0]
    x = torch.randn(2, 4, 9, 5)
    inner = block.bn2(block.conv2(block.bn1(block.conv1(x)).clamp(min=0)))
    shortcut = block.downsample[1](block.downsample[0](x))
    torch.testing.assert_close(block(x), (inner + shortcut).clamp(min=0))


def test_refuses_bad_sizes() -> None:
    with pytest.raises(AutoReIDError, match=r"depth is 101.*18, 34, 50"):
        ResNet(101)
    with pytest.raises(AutoReIDError, match=r"width \(channels\) is 0"):
        ResNet(18, width=0)
