"""Costs: the published numbers, those of an independent sketch, and counts done here."""

import json

import pytest
import torch
from torch import Tensor, nn

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.models.costs import costs
from autoreid_fast.models.registry import build_backbone
from autoreid_fast.nas.backbone import Backbone

# Table 1's params in M and FLOPs in G, and the relative tolerance of FLOPs.
PUBLISHED = {
    "resnet18": (11.6, 1.7, 0.08),
    "resnet34": (21.7, 3.4, 0.08),
    "resnet50": (25.1, 3.8, 0.08),
    "darts_v2": (9.1, 1.75, 0.08),
    "gdas_v1": (13.5, 2.3, 0.08),
    "autoreid_baseline": (11.9, 2.03, 0.03),
    "autoreid_base_reid": (10.9, 1.7, 0.03),
    "autoreid_retrieval": (11.4, 1.8, 0.03),
}

# Results of an independent sketch of the same networks; all digits must agree.
SKETCH = {
    "resnet18": ("11.56", None),
    "resnet34": ("21.67", None),
    "resnet50": ("25.05", None),
    "darts_v2": ("9.02", "1.69"),
    "gdas_v1": ("13.46", "2.14"),
    "autoreid_baseline": ("11.84", "2.029"),
    "autoreid_base_reid": ("10.97", "1.704"),
    "autoreid_retrieval": ("11.41", "1.840"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_costs(name: str) -> None:
    params, flops, tolerance = PUBLISHED[name]
    with torch.device("meta"):
        counted = costs(build_backbone(name))
    assert counted.params_M == pytest.approx(params, rel=0.01)
    assert counted.flops_G == pytest.approx(flops, rel=tolerance)
    for value, digits in zip((counted.params_M, counted.flops_G), SKETCH[name], strict=True):
        if digits is not None:
            assert f"{value:.{len(digits.split('.')[1])}f}" == digits


class Tiny(Backbone):
    feature_dim = 8

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Conv2d(4, 8, 1, stride=2, bias=False)

    def feature_map(self, images: Tensor) -> Tensor:
        return self.layer1(self.relu(self.conv1(images)))


def test_counts_of_a_tiny_network() -> None:
    counted = costs(Tiny(), height=6, width=4, num_classes=5)
    head, layer, classifier = counted.stages
    assert [stage.name for stage in counted.stages] == ["head", "layer1", "classifier"]
    assert [round(1e6 * stage.params_M) for stage in counted.stages] == [4 * 27 + 4, 32, 8 * 5 + 5]
    assert [round(1e9 * stage.flops_G) for stage in counted.stages] == [24 * 4 * 27, 6 * 8 * 4, 8 * 5]
    assert round(1e6 * head.activation_MB) == 4 * 24 * 4  # the ReLU works in place
    assert round(1e6 * layer.activation_MB) == 4 * (6 * 8 + 8)
    assert round(1e6 * classifier.activation_MB) == 4 * 5
    for field in ("params_M", "flops_G", "activation_MB"):
        assert sum(getattr(stage, field) for stage in counted.stages) == pytest.approx(
            getattr(counted, field)
        )


def test_parameters_of_the_network_itself_count() -> None:
    backbone = Tiny()
    backbone.token = nn.Parameter(torch.zeros(7))
    head = costs(backbone, height=6, width=4, num_classes=5).stages[0]
    assert round(1e6 * head.params_M) == 4 * 27 + 4 + 7


def test_stages_json_and_table() -> None:
    backbone = build_backbone("autoreid_retrieval", 4, (1, 1, 1, 1))
    counted = costs(backbone, 128, 64, 10)
    value = json.loads(json.dumps(counted.to_dict()))
    assert (value["height"], value["width"], value["num_classes"]) == (128, 64, 10)
    assert value["params_M"] == counted.params_M
    names = [stage["name"] for stage in value["stages"]]
    assert names == ["head", "block1", "block2", "block3", "block4", "classifier"]
    assert all(stage["flops_G"] > 0 and stage["activation_MB"] > 0 for stage in value["stages"])
    lines = counted.table().splitlines()
    assert [line.split()[0] for line in lines] == ["stage", *names, "total"]
    assert len({len(line) for line in lines}) == 1


def test_the_network_does_not_change() -> None:
    backbone = build_backbone("resnet18", channels=4)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    costs(backbone, 64, 32)
    assert backbone.training
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    assert not any(module._forward_pre_hooks for module in backbone.modules())


def test_too_small_an_image() -> None:
    with pytest.raises(AutoReIDError, match="part_aware"):
        costs(build_backbone("autoreid_retrieval", 4), height=48, width=16)
