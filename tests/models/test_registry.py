"""Backbones by name: built-in ones, genotypes and plain modules; what `create_model` refuses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import autoreid_fast
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.models.backbones.plain import PlainBackbone
from autoreid_fast.models.costs import costs
from autoreid_fast.models.registry import (
    BACKBONES,
    build_backbone,
    create_model,
    list_models,
    register_backbone,
)
from autoreid_fast.models.reid import ReIDNetwork, Tail
from autoreid_fast.models.weights import load_weights, save_weights
from autoreid_fast.nas.backbone import Backbone
from autoreid_fast.nas.derived_network import DerivedNetwork
from autoreid_fast.nas.published import GENOTYPES


@pytest.fixture(autouse=True)
def _registry_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    BACKBONES.names()  # registers the built-in ones
    monkeypatch.setattr(BACKBONES, "_entries", dict(BACKBONES._entries))


class FeatureMap(nn.Module):
    """A user's module: images -> feature map (N, 2 C, H / 8, W / 8)."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, stride=4, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.last = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.norm(self.stem(images)).relu())


class Features(FeatureMap):
    """A user's module: images -> features (N, 2 C)."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).amax(dim=(2, 3))


def test_every_built_in_name_builds() -> None:
    assert BACKBONES.names()[:9] == ("resnet18", "resnet34", "resnet50", *GENOTYPES)
    for name in BACKBONES.names()[:9]:
        assert BACKBONES[name].summary
        backbone = build_backbone(name, channels=4, cells_per_block=(1, 1, 1, 1)).eval()
        assert backbone(torch.randn(1, 3, 64, 32)).shape == (1, backbone.feature_dim)


def test_list_models_by_pattern() -> None:
    assert list_models() == list(BACKBONES.names())
    assert autoreid_fast.list_models("autoreid_*") == [name for name in GENOTYPES if "autoreid" in name]
    assert autoreid_fast.list_models("vit*") == []


def test_create_model_passes_options() -> None:
    resnet = autoreid_fast.create_model("resnet18", channels=4, last_stride=1)
    assert resnet.feature_map(torch.randn(1, 3, 64, 32)).shape == (1, 32, 4, 2)
    cells = autoreid_fast.create_model("darts_v2", channels=4, cells_per_block=(1, 2, 1, 1))
    assert isinstance(cells, DerivedNetwork) and cells.cells_per_block == (1, 2, 1, 1)


def test_create_model_refuses_unknown_names_and_options() -> None:
    with pytest.raises(AutoReIDError, match=r"unknown backbone 'resnet81': did you mean resnet18\?"):
        create_model("resnet81")
    with pytest.raises(AutoReIDError, match="unknown option width=4; expected channels, last_stride"):
        create_model("resnet18", width=4)


def test_a_builder_may_accept_any_option() -> None:
    BACKBONES.register("any")(lambda **options: FeatureMap(**options))
    assert create_model("any", channels=3).feature_dim == 6
    assert build_backbone("any", channels=3).feature_dim == 16  # only options that it names


def test_only_resnets_have_a_last_stride() -> None:
    images = torch.randn(1, 3, 64, 32)
    for name in ("resnet18", "resnet50"):
        for last_stride, rows in ((2, 2), (1, 4)):
            backbone = build_backbone(name, 4, last_stride=last_stride)
            assert backbone.feature_map(images).shape == (1, backbone.feature_dim, rows, rows // 2)
    with pytest.raises(AutoReIDError, match="last_stride 1: darts_v2 does not support it"):
        build_backbone("darts_v2", last_stride=1)


def test_builds_from_a_genotype_and_its_file(tmp_path) -> None:
    genotype = GENOTYPES["autoreid_retrieval"]
    path = tmp_path / "genotype.json"
    genotype.save(path)
    for network in (genotype, path, str(path)):
        backbone = build_backbone(network, 4, (1, 1, 1, 1))
        assert isinstance(backbone, DerivedNetwork)
        assert backbone.genotype == genotype


def test_unknown_networks(tmp_path) -> None:
    with pytest.raises(AutoReIDError, match=r"unknown backbone 'resnet20': did you mean resnet50\?"):
        build_backbone("resnet20")
    with pytest.raises(AutoReIDError, match="cannot read genotype"):
        build_backbone(tmp_path / "absent.json")


@pytest.mark.parametrize("kind", [FeatureMap, Features])
def test_a_plain_module_is_a_backbone(kind: type[nn.Module]) -> None:
    BACKBONES.register("plain")(kind)
    backbone = build_backbone("plain", channels=4)  # and the options that it does not have are left out
    assert isinstance(backbone, PlainBackbone) and backbone.feature_dim == 8
    images = torch.randn(2, 3, 64, 32)
    expected = backbone.module(images)
    expected = expected if kind is Features else expected.mean(dim=(2, 3))
    torch.testing.assert_close(backbone.eval()(images), backbone(images))
    torch.testing.assert_close(backbone.train()(images), expected)
    assert backbone.feature_map(images).shape == ((2, 8, 8, 4) if kind is FeatureMap else (2, 8, 1, 1))


@pytest.mark.parametrize("tail", ["embedding", "pcb", "hpm"])
def test_every_tail_trains_on_a_plain_module(tail: Tail) -> None:
    BACKBONES.register("plain")(FeatureMap)
    network = ReIDNetwork(create_model("plain"), num_classes=5, tail=tail)
    network(torch.randn(4, 3, 64, 32)).logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_costs_of_a_plain_module() -> None:
    BACKBONES.register("plain")(FeatureMap)
    counted = costs(create_model("plain", channels=4), height=16, width=8, num_classes=5)
    assert [stage.name for stage in counted.stages] == ["backbone", "classifier"]
    assert round(1e6 * counted.params_M) == 4 * 27 + 4 + 8 + 8 * 36 + 8 + 8 * 5 + 5
    assert round(1e9 * counted.flops_G) == 4 * 2 * 4 * 27 + 2 * 1 * 8 * 36 + 8 * 5


def test_weights_of_a_plain_module_have_its_own_keys(tmp_path) -> None:
    torch.save(FeatureMap(4).state_dict(), tmp_path / "weights.pth")
    one, two = (PlainBackbone(FeatureMap(4), "plain") for _ in range(2))
    load_weights(one, tmp_path / "weights.pth")
    save_weights(one, tmp_path / "weights.safetensors")
    load_weights(two, tmp_path / "weights.safetensors")
    assert all(torch.equal(value, two.state_dict()[key]) for key, value in one.state_dict().items())
    assert torch.equal(two.module.stem.weight, torch.load(tmp_path / "weights.pth")["stem.weight"])


def test_a_stated_feature_dim_needs_no_probe() -> None:
    class Stated(Features):
        feature_dim = 16

        def forward(self, images: Tensor) -> Tensor:
            assert not images.is_meta
            return super().forward(images)

    assert PlainBackbone(Stated(), "stated").feature_dim == 16


def test_num_features_where_the_module_rejects_the_probe() -> None:
    """As in timm: num_features need not be what forward returns, unless the size cannot be tried."""

    class Hidden(Features):
        num_features = 8

    class Rejecting(Hidden):
        def forward(self, images: Tensor) -> Tensor:
            assert images.shape[2:] == (64, 32), "image size"
            return super().forward(images)

    assert PlainBackbone(Hidden(), "hidden").feature_dim == 16
    assert PlainBackbone(Rejecting(4), "rejecting").feature_dim == 8


def test_the_features_must_have_the_stated_dimension() -> None:
    class WithClassifier(Features):
        feature_dim = 512

    class OfOneSize(WithClassifier):
        def forward(self, images: Tensor) -> Tensor:
            assert images.shape[2:] == (64, 32)
            return super().forward(images)

    words = r"returned 16 channels.*512.*num_classes=0"
    with pytest.raises(AutoReIDError, match=f"classifier: {words}"):
        PlainBackbone(WithClassifier(), "classifier")
    backbone = PlainBackbone(OfOneSize(), "one-size")  # cannot be probed
    with pytest.raises(AutoReIDError, match=f"one-size: {words}"):
        backbone(torch.randn(1, 3, 64, 32))


class Tokens(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(2)


class FixedSize(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 8 * 4, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(images.flatten(1))


@pytest.mark.parametrize(
    ("builder", "message"),
    [
        (Tokens, r"mine: returned shape \(2, 3, 32768\).*expected a feature map"),
        (FixedSize, r"mine: its feature dimension could not be found.*256 x 128.*feature_dim"),
        (lambda: "no module", r"mine: expected an nn\.Module, got str"),
    ],
)
def test_refuses_what_is_no_backbone(builder: object, message: str) -> None:
    BACKBONES.register("mine")(builder)  # type: ignore[arg-type]
    with pytest.raises(AutoReIDError, match=message):
        create_model("mine")


def test_a_backbone_class_is_used_as_it_is() -> None:
    class Mine(Backbone):
        feature_dim = 3

        def __init__(self, scale: float = 1.0) -> None:
            super().__init__()
            self.scale = scale

        def feature_map(self, images: Tensor) -> Tensor:
            return self.scale * images

    BACKBONES.register("mine")(Mine)
    backbone = create_model("mine", scale=2.0)
    assert type(backbone) is Mine and backbone(torch.ones(1, 3, 2, 2)).tolist() == [[2.0, 2.0, 2.0]]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("resnet18", {"last_stride": 7}, "last_stride is 7; expected 1 or 2"),
        ("resnet34", {"last_stride": "2"}, "last_stride is '2'"),
        ("resnet50", {"channels": "x"}, r"channels\) is 'x'; expected a whole number"),
        ("resnet18", {"channels": 4.5}, r"channels\) is 4\.5"),
        ("darts_v1", {"channels": 4.5}, r"channels 4\.5: expected a whole number of at least 2"),
        ("gdas_v1", {"channels": None}, "channels None"),
        ("darts_v2", {"cells_per_block": 0}, "cells_per_block 0: expected 4 positive integers"),
        ("darts_v2", {"cells_per_block": (2, 2, "2", 2)}, "expected 4 positive integers"),
        ("darts_v2", {"cells_per_block": (2, 2, 1.5, 2)}, "expected 4 positive integers"),
        (3, {}, "unknown backbone 3"),
        (["resnet18"], {}, "unknown backbone"),
        ("ResNet50", {}, r"unknown backbone 'ResNet50': did you mean resnet50\?"),
    ],
)
def test_wrong_values_of_options_are_named(name: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(AutoReIDError, match=words):
        create_model(name, **options)


def test_patterns_are_strings() -> None:
    with pytest.raises(AutoReIDError, match="pattern is 3; expected a string"):
        list_models(3)  # type: ignore[arg-type]


def test_a_builder_that_needs_more_than_it_gets() -> None:
    @register_backbone("needy")
    def needy(width: int) -> nn.Module:
        return nn.Conv2d(3, width, 3)

    with pytest.raises(
        AutoReIDError, match=r"needy \(.*\): cannot be called without arguments: missing .* 'width'"
    ):
        create_model("needy")
    assert create_model("needy", width=4).feature_dim == 4
    with pytest.raises(AutoReIDError, match=r"backbone needy raises .* in .*test_registry\.py, line"):
        create_model("needy", width="x")


class Returns(nn.Module):
    """A module with a feature dimension of 4 that returns something else."""

    feature_dim: Any = 4

    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.change = change

    def forward(self, images: Tensor) -> Any:
        return self.change(self.convolution(images))


class ReturnsMap(Backbone):
    """`Returns` as a `Backbone`."""

    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.module = Returns(change)
        self.feature_dim = 4

    def feature_map(self, images: Tensor) -> Any:
        return self.module(images)


@pytest.mark.parametrize("kind", [Returns, ReturnsMap])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda map_: 3, "returned int for images"),
        (lambda map_: map_[:1], r"returned shape \(1, 4, .* with N = 2"),
        (lambda map_: map_.mean((0, 2, 3)), r"returned shape \(4,\)"),
        (lambda map_: map_[:, :3], "returned 3 channels, but its feature_dim is 4"),
    ],
)
def test_backbones_that_return_something_else(kind: Any, change: Callable[[Tensor], Any], words: str) -> None:
    register_backbone("odd")(lambda: kind(change))
    with pytest.raises(AutoReIDError, match=f"backbone odd: {words}"):
        create_model("odd")


def test_a_feature_dim_that_is_no_number() -> None:
    odd = Returns(lambda map_: map_)
    odd.feature_dim = "4"
    register_backbone("odd-dim")(lambda: odd)
    with pytest.raises(AutoReIDError, match="feature_dim is '4'; expected the channels"):
        create_model("odd-dim")
