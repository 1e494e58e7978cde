"""The network to train: heads on any backbone."""

import pytest
import torch

from autoreid_fast.models.backbones.resnet import ResNet
from autoreid_fast.models.registry import build_backbone
from autoreid_fast.models.reid import ReIDNetwork, Tail


def test_feature_embedding_logits() -> None:
    network = ReIDNetwork(ResNet(18, width=4), num_classes=7, embedding_dim=12)
    network(torch.randn(4, 3, 64, 32))
    network.eval()
    images = torch.randn(4, 3, 64, 32)
    out = network(images)
    assert (out.feature.shape, out.embedding.shape, out.logits.shape) == ((4, 32), (4, 12), (4, 7))
    torch.testing.assert_close(out.feature, network.backbone(images))
    linear, bn = network.head.embedding
    g = (out.feature @ linear.weight.T - bn.running_mean) / (bn.running_var + bn.eps).sqrt()
    torch.testing.assert_close(out.embedding, g * bn.weight + bn.bias)
    h = out.embedding @ network.head.classifier.weight.T + network.head.classifier.bias
    torch.testing.assert_close(out.logits, h)


def test_both_dropouts_act_in_training_only() -> None:
    """With a dropout rate of 1, f is unchanged, g is the batch norm's bias and h the classifier's."""
    network = ReIDNetwork(ResNet(18, width=4), num_classes=7, embedding_dim=12, dropout=1.0)
    torch.nn.init.normal_(network.head.embedding[1].bias)
    out = network(torch.randn(4, 3, 64, 32))
    assert (out.feature != 0).any()
    torch.testing.assert_close(out.embedding, network.head.embedding[1].bias.expand(4, 12))
    torch.testing.assert_close(out.logits, network.head.classifier.bias.expand(4, 7))


def test_gradients_reach_every_parameter() -> None:
    network = ReIDNetwork(build_backbone("autoreid_retrieval", 4, (1, 1, 1, 1)), num_classes=5)
    network(torch.randn(4, 3, 64, 32)).logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(("tail", "counts"), [("pcb", (6,)), ("hpm", (1, 2, 4, 8))])
def test_strips_one_by_one(tail: Tail, counts: tuple[int, ...]) -> None:
    """Rows cut by slices; PCB's 1x1 convolution on the whole strip, before the mean."""
    network = ReIDNetwork(ResNet(18, width=2, last_stride=1), num_classes=7, tail=tail)
    network(torch.randn(4, 3, 384, 32))  # moves the running statistics
    network.eval()
    images = torch.randn(2, 3, 384, 32)
    out = network(images)
    feature_map = network.backbone.feature_map(images)
    assert feature_map.shape == (2, 16, 24, 2)
    strips = [feature_map[:, :, i * 24 // n : (i + 1) * 24 // n] for n in counts for i in range(n)]
    assert out.logits.shape == (2, 7, len(strips))
    assert out.embedding.shape == (2, 256 * len(strips))
    for i, strip in enumerate(strips):
        linear, bn, _ = network.head.reductions[i]
        if tail == "pcb":
            reduced = torch.nn.functional.conv2d(strip, linear.weight[:, :, None, None]).mean(dim=(2, 3))
        else:
            reduced = (strip.mean(dim=(2, 3)) + strip.flatten(2).max(dim=2).values) @ linear.weight.T
        reduced = (reduced - bn.running_mean) / (bn.running_var + bn.eps).sqrt() * bn.weight + bn.bias
        reduced = reduced.clamp(min=0)
        torch.testing.assert_close(out.embedding[:, 256 * i : 256 * (i + 1)], reduced)
        classifier = network.head.classifiers[i]
        torch.testing.assert_close(out.logits[:, :, i], reduced @ classifier.weight.T + classifier.bias)
    torch.testing.assert_close(out.feature, feature_map.mean(dim=(2, 3)))
    assert torch.equal(network.descriptor(images), out.embedding)


@pytest.mark.parametrize("tail", ["pcb", "hpm"])
@pytest.mark.parametrize("name", ["darts_v2", "gdas_v1", "autoreid_baseline", "resnet50"])
def test_strips_on_any_backbone_even_with_fewer_rows(tail: Tail, name: str) -> None:
    network = ReIDNetwork(build_backbone(name, 2, (1, 1, 1, 1)), num_classes=5, tail=tail)
    out = network(torch.randn(4, 3, 128, 32))
    out.logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_embedding_tail_ranks_by_f() -> None:
    network = ReIDNetwork(ResNet(18, width=4), num_classes=7).eval()
    images = torch.randn(2, 3, 64, 32)
    assert torch.equal(network.descriptor(images), network(images).feature)
