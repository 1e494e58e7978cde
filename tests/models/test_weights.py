"""Weights: names of torchvision, a round trip, and files that do not fit."""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
import torch
from torch import nn

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.models.backbones.resnet import ResNet
from autoreid_fast.models.registry import build_backbone
from autoreid_fast.models.weights import load_weights, save_weights


def torchvision_shapes(blocks: tuple[int, ...], bottleneck: bool, width: int) -> Iterator[tuple[str, tuple]]:
    """Names and shapes of torchvision's ResNet state dicts, written down from its documentation."""

    def norm(name: str, channels: int) -> Iterator[tuple[str, tuple]]:
        for part in ("weight", "bias", "running_mean", "running_var"):
            yield f"{name}.{part}", (channels,)
        yield f"{name}.num_batches_tracked", ()

    yield "conv1.weight", (width, 3, 7, 7)
    yield from norm("bn1", width)
    before = width
    for layer, count in enumerate(blocks):
        planes = width * 2**layer
        after = 4 * planes if bottleneck else planes
        for block in range(count):
            prefix = f"layer{layer + 1}.{block}"
            if bottleneck:
                convolutions = [(planes, before, 1), (planes, planes, 3), (after, planes, 1)]
            else:
                convolutions = [(planes, before, 3), (planes, planes, 3)]
            for number, (outer, inner, size) in enumerate(convolutions, start=1):
                yield f"{prefix}.conv{number}.weight", (outer, inner, size, size)
                yield from norm(f"{prefix}.bn{number}", outer)
            if block == 0 and (layer > 0 or bottleneck):
                yield f"{prefix}.downsample.0.weight", (after, before, 1, 1)
                yield from norm(f"{prefix}.downsample.1", after)
            before = after
    yield "fc.weight", (1000, before)
    yield "fc.bias", (1000,)


@pytest.mark.parametrize(("depth", "blocks"), [(18, (2, 2, 2, 2)), (34, (3, 4, 6, 3)), (50, (3, 4, 6, 3))])
def test_a_state_dict_with_torchvisions_names_loads(tmp_path, depth: int, blocks: tuple[int, ...]) -> None:
    shapes = torchvision_shapes(blocks, depth == 50, width=4)
    weights = {name: torch.randn(shape) if shape else torch.tensor(7) for name, shape in shapes}
    torch.save(weights, tmp_path / "resnet.pth")
    network = ResNet(depth, width=4)
    load_weights(network, tmp_path / "resnet.pth")
    own = network.state_dict()
    assert set(own) == {name for name in weights if not name.startswith("fc.")}
    assert all(torch.equal(own[name], weights[name]) for name in own)


@pytest.mark.parametrize("name", ["resnet18", "autoreid_retrieval"])
def test_what_is_saved_loads_bit_for_bit(tmp_path, name: str) -> None:
    one, two = (build_backbone(name, 4, (1, 1, 1, 1)) for _ in range(2))
    one(torch.randn(4, 3, 128, 32))  # moves the running statistics
    save_weights(one, tmp_path / "weights.safetensors")
    load_weights(two, tmp_path / "weights.safetensors")
    states = one.state_dict(), two.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    with pytest.raises(AutoReIDError, match="not the weights of this network: missing"):
        load_weights(build_backbone("darts_v2", 4, (1, 1, 1, 1)), tmp_path / "weights.safetensors")


def save(tmp_path, changes: dict[Any, object]):
    weights = {
        key: torch.randn_like(value.float()) for key, value in ResNet(18, width=4).state_dict().items()
    }
    weights |= {"fc.weight": torch.zeros(1000, 32), "fc.bias": torch.zeros(1000)}
    for key, value in changes.items():
        key = key.replace("__", ".") if isinstance(key, str) else key
        if value is None:
            del weights[key]
        else:
            weights[key] = value
    path = tmp_path / "resnet.pth"
    torch.save(weights, path)
    return path, weights


def test_loads_weights_and_ignores_fc(tmp_path) -> None:
    path, weights = save(tmp_path, {"bn1__num_batches_tracked": None})
    network = ResNet(18, width=4)
    load_weights(network, path)
    own = network.state_dict()
    assert torch.equal(own["layer3.1.conv2.weight"], weights["layer3.1.conv2.weight"])
    assert torch.equal(own["bn1.running_mean"], weights["bn1.running_mean"])


def renamed(prefix: str, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in weights.items()}


LAYOUTS: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "a classifier": lambda weights: weights | {"classifier.weight": torch.zeros(751, 32)},
    "DataParallel": lambda weights: renamed("module.", weights),
    "a network with a head": lambda weights: renamed("backbone.", weights) | {"head.fc.bias": torch.zeros(2)},
    "both": lambda weights: renamed("module.backbone.", weights) | {"module.heads.weight": torch.zeros(2)},
    "a checkpoint": lambda weights: {"state_dict": weights, "optimizer": {"lr": 0.1}, "rank1": 0.9},
    "a moving average": lambda weights: {
        "model": {name: torch.zeros_like(weights[name]) for name in weights},
        "average": renamed("module.backbone.", weights) | {"n_averaged": torch.tensor(3)},
    },
    "a checkpoint of it": lambda weights: {"epoch": 4, "model": renamed("module.", weights)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_other_tools(tmp_path, layout: str, caplog: pytest.LogCaptureFixture) -> None:
    path, weights = save(tmp_path, {})
    torch.save(LAYOUTS[layout](weights), path)
    network = ResNet(18, width=4)
    with caplog.at_level("INFO"):
        load_weights(network, path)
    own = network.state_dict()
    assert all(torch.equal(own[name], weights[name].type_as(own[name])) for name in own)
    assert f"{len(own)} tensors loaded" in caplog.text


def test_prefixes_that_are_the_networks_own(tmp_path) -> None:
    """A backbone that has a part called `backbone` or `fc` keeps both."""

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.fc = nn.Linear(2, 3), nn.Linear(3, 3)

    one, two = Named(), Named()
    torch.save(one.state_dict(), tmp_path / "named.pth")
    load_weights(two, tmp_path / "named.pth")
    assert all(map(torch.equal, one.state_dict().values(), two.state_dict().values()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer1__0__conv1__weight": None}, "missing layer1.0.conv1.weight"),
        ({"layer1__0__conv9__weight": torch.zeros(1)}, "unexpected layer1.0.conv9.weight"),
        (
            {"conv1__weight": torch.zeros(8, 3, 7, 7)},
            r"conv1.weight has shape \(8, 3, 7, 7\).*\(4, 3, 7, 7\)",
        ),
        ({"epoch": 3}, "expected a state dict"),
        ({3: torch.ones(1)}, "expected a state dict"),
        (
            {"layer1__0__bn1__running_var": torch.tensor([1, 1, torch.inf, 1])},
            "running_var has NaN or infinite",
        ),
        ({"conv1__weight": torch.ones(4, 3, 7, 7, dtype=torch.complex64)}, "conv1.weight is torch.complex64"),
        ({"bn1__weight": torch.ones(4).to_sparse()}, "bn1.weight is torch.sparse_coo"),
    ],
)
def test_weights_that_do_not_fit(tmp_path, changes: dict[Any, object], message: str) -> None:
    path, _ = save(tmp_path, changes)
    network = ResNet(18, width=4)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(AutoReIDError, match=rf"resnet\.pth.*{message}"):
        load_weights(network, path)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_files_that_are_no_weights(tmp_path) -> None:
    with pytest.raises(AutoReIDError, match="no weights at"):
        load_weights(ResNet(18, width=4), tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("not weights\n")
    with pytest.raises(AutoReIDError, match=r"cannot read weights .*text\.pth"):
        load_weights(ResNet(18, width=4), tmp_path / "text.pth")
    (tmp_path / "text.safetensors").write_text("not weights\n")
    with pytest.raises(AutoReIDError, match=r"cannot read weights .*text\.safetensors"):
        load_weights(ResNet(18, width=4), tmp_path / "text.safetensors")
    (tmp_path / "empty.pth").write_bytes(b"")
    with pytest.raises(AutoReIDError, match=r"cannot read weights .*empty\.pth"):
        load_weights(ResNet(18, width=4), tmp_path / "empty.pth")


def test_garbled_weights_are_one_line(tmp_path) -> None:
    path, _ = save(tmp_path, {})
    content, random = path.read_bytes(), Random(19)
    for number in range(30):
        garbled = bytearray(content)
        start = random.choice((0, len(content) - 2000, random.randrange(len(content))))
        for _ in range(20):
            garbled[min(start + random.randrange(2000), len(content) - 1)] = random.randrange(256)
        path.write_bytes(garbled[: random.randrange(len(content))] if number % 5 == 0 else garbled)
        try:
            load_weights(ResNet(18, width=4), path)  # a changed weight is a number like another
        except AutoReIDError as error:
            assert "resnet.pth" in str(error)
