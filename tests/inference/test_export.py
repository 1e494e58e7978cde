"""ONNX and torch.export files compute what PyTorch computes: all operations, strides and residual blocks."""

import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from autoreid_fast import ops
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.inference import formats
from autoreid_fast.models.backbones.resnet import ResNet
from autoreid_fast.models.reid import ReIDNetwork, Tail
from autoreid_fast.models.retrieval import RetrievalNetwork
from autoreid_fast.nas.backbone import Backbone
from autoreid_fast.nas.derived_network import DerivedNetwork
from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.nas.operations.registry import OPERATIONS

SIZE = (77, 37)  # odd, and odd again when halved: strips and shifted convolutions are uneven

# Each of the eight operations once per cell, on the inputs of the cell: of stride 2 in the reduction cell.
NAMES = OPERATIONS.names()
EVERY = tuple(((NAMES[i], i % 4 // 2), (NAMES[i + 1], 1)) for i in range(0, len(NAMES), 2))


class TwoCells(DerivedNetwork):
    """The head, a normal cell and a reduction cell; the other cells repeat these and take long to trace."""

    def __init__(self) -> None:
        super().__init__(Genotype(EVERY, EVERY), channels=3, cells_per_block=(1, 1, 1, 1))  # type: ignore[arg-type]
        self.feature_dim = 24

    def cells(self):  # type: ignore[no-untyped-def]
        return [cell for _, cell in zip(range(2), super().cells(), strict=False)]


def short_resnet(depth: int) -> ResNet:
    """The first residual block of each layer."""
    network = ResNet(depth, width=4)
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        del layer[1:]
    return network


class OneConvolution(Backbone):
    """The smallest backbone; its feature map has an odd number of rows, which strips split unevenly."""

    feature_dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, stride=4)

    def feature_map(self, images: Tensor) -> Tensor:
        return self.convolution(images)


KINDS: dict[str, tuple[Callable[[], Backbone], Tail]] = {
    "cells": (TwoCells, "embedding"),
    "resnet18": (lambda: short_resnet(18), "embedding"),
    "resnet50": (lambda: short_resnet(50), "embedding"),
    "pcb": (OneConvolution, "pcb"),
    "hpm": (OneConvolution, "hpm"),
}


def network_of(kind: str) -> RetrievalNetwork:
    make_backbone, tail = KINDS[kind]
    network = RetrievalNetwork(ReIDNetwork(make_backbone(), 2, embedding_dim=4, tail=tail)).eval()
    for module in network.modules():  # so that no batch norm is the identity
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
    return network


def run_onnx(path: Path, images: Tensor) -> Tensor:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def require_no_folders(content: bytes, tmp_path: Path) -> None:
    """Check that a file names no folder of this machine and no source file."""
    for file in (formats.__file__, torch.__file__, __file__, sys.executable, tmp_path):
        assert str(Path(file).parent).encode() not in content
    assert b".py" not in content


@pytest.mark.parametrize("kind", ["cells", "resnet50", "pcb", "hpm"])
def test_onnx(kind: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    network = network_of(kind)
    path = tmp_path / "model.onnx"
    assert formats.export_onnx(network, *SIZE, path, {"network": kind}) < 1e-5
    assert list(tmp_path.iterdir()) == [path]  # the weights are in the file
    require_no_folders(path.read_bytes(), tmp_path)
    images = torch.rand(5, 3, *SIZE) * 4 - 2
    with torch.no_grad():
        torch.testing.assert_close(run_onnx(path, images), network(images), rtol=0, atol=1e-5)
    written = onnx.load(path)
    assert not [
        tensor.name
        for tensor in written.graph.initializer
        if tensor.name.startswith("network.head.classifier")
    ]
    assert {node.domain for node in written.graph.node} <= {"", "ai.onnx"}
    assert [d.dim_param or d.dim_value for d in written.graph.input[0].type.tensor_type.shape.dim] == [
        "batch",
        3,
        *SIZE,
    ]
    assert [value.name for value in written.graph.output] == ["features"]
    assert {
        entry.key: json.loads(entry.value) for entry in written.metadata_props if entry.key == "autoreid_fast"
    } == {"autoreid_fast": {"network": kind}}


def test_the_default_dtype_does_not_matter(tmp_path: Path) -> None:
    network = RetrievalNetwork(ReIDNetwork(OneConvolution(), 2, embedding_dim=4))
    torch.set_default_dtype(torch.float64)
    try:
        assert formats.export_torch(network, 12, 9, tmp_path / "model.pt2") < 1e-5
    finally:
        torch.set_default_dtype(torch.float32)


def test_torch(tmp_path: Path) -> None:
    """One kind is enough: ONNX is made from the same graph."""
    network = network_of("resnet18")
    path = tmp_path / "model.pt2"
    assert formats.export_torch(network, *SIZE, path, {"network": "resnet18"}) < 1e-5
    with zipfile.ZipFile(path) as archive:
        require_no_folders(b"".join(map(archive.read, archive.namelist())), tmp_path)
    extra = {"autoreid_fast.json": ""}
    program = torch.export.load(path, extra_files=extra)
    images = torch.rand(5, 3, *SIZE) * 4 - 2
    with torch.no_grad():
        torch.testing.assert_close(program.module()(images), network(images), rtol=0, atol=1e-5)
    assert json.loads(extra["autoreid_fast.json"]) == {"network": "resnet18"}


class WithOurOp(OneConvolution):
    """A backbone with one of our ops in it."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Parameter(torch.randn(1, 4, 3, 3))

    def feature_map(self, images: Tensor) -> Tensor:
        return ops.stencil3x3(self.convolution(images), self.filters, [1]).filtered[0]


def with_our_op() -> RetrievalNetwork:
    return RetrievalNetwork(ReIDNetwork(WithOurOp(), 2, embedding_dim=4))


def test_our_ops_are_traced_as_their_references(tmp_path: Path) -> None:
    network = with_our_op()
    formats.export_torch(network, 12, 9, tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2")
    assert not [node for node in program.graph.nodes if "autoreid_fast" in str(node.target)]


def test_a_file_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch.export,
        "load",
        lambda _: type("Program", (), {"module": lambda _: lambda x: x[:, 0, 0, :4] * 0})(),
    )
    with pytest.raises(AutoReIDError, match=r"model.pt2: differs from PyTorch by .*: not written"):
        formats.export_torch(with_our_op(), 12, 9, tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(formats, "import_module", absent)
    with pytest.raises(AutoReIDError, match=r"needs onnx .*: pip install 'autoreid_fast\[export\]'"):
        formats.export_onnx(network_of("resnet18"), *SIZE, tmp_path / "model.onnx")
