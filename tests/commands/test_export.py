"""`export` and `autoreid_fast.load`: files, features, model card, errors."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import autoreid_fast
from autoreid_fast.cli import main
from autoreid_fast.data.batches import normalized
from autoreid_fast.data.config import DataConfig
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.inference.embedder import Embedder
from autoreid_fast.inference.model_card import card_of
from autoreid_fast.models.registry import build_backbone
from autoreid_fast.models.reid import ReIDNetwork
from autoreid_fast.runs.checkpoint import load_checkpoint, save_checkpoint
from autoreid_fast.runs.folder import RunFolder
from autoreid_fast.training.config import TrainConfig


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained run, exported as safetensors."""
    path = tmp_path_factory.mktemp("exported") / "model.safetensors"
    line = ["export", str(trained), "--format", "safetensors", "--license", "CC-BY-4.0", "--out", str(path)]
    assert main(line) == 0
    return path


@pytest.fixture(scope="module")
def pictures(people: Path) -> list[Path]:
    return sorted((people / "query").glob("*.jpg"))


def test_embed_equals_the_features_of_the_evaluation(trained: Path, people: Path) -> None:
    rows = (trained / "features" / "query.csv").read_text().splitlines()[1:]
    expected = torch.from_numpy(np.load(trained / "features" / "query.npy"))
    features = autoreid_fast.load(trained).embed([people / row.split(",")[0] for row in rows])
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-6)


def test_a_file_has_the_features_of_its_run(trained: Path, exported: Path, pictures: list[Path]) -> None:
    run, file = autoreid_fast.load(str(trained)), autoreid_fast.load(exported, "cpu")
    torch.testing.assert_close(file.embed(pictures), run.embed(pictures), rtol=0, atol=0)
    assert file.checksum == run.checksum
    assert file.card.license == "CC-BY-4.0"
    assert file.card.model_copy(update={"license": run.card.license}) == run.card


def test_pipes_and_open_files_receive_the_file_only(
    trained: Path, exported: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The model card is in it, and nothing is printed, because that could be the same file."""
    line = ["export", str(trained), "--format", "safetensors", "--license", "CC-BY-4.0", "--out"]
    with (tmp_path / "output").open("wb") as stream:
        assert main([*line, f"/dev/fd/{stream.fileno()}"]) == 0
    os.mkfifo(pipe := tmp_path / "pipe")
    with ThreadPoolExecutor(1) as threads:
        received = threads.submit(pipe.read_bytes)
        assert main([*line, str(pipe)]) == 0
    assert received.result() == (tmp_path / "output").read_bytes() == exported.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["output", "pipe"]
    captured = capfd.readouterr()
    assert captured.out == "" and "Traceback" not in captured.err


def test_kinds_of_images(exported: Path, pictures: list[Path]) -> None:
    model = autoreid_fast.load(exported)
    expected = model.embed(pictures[:3])
    assert expected.shape == (3, model.card.output.dimensions)
    torch.testing.assert_close(expected.norm(dim=1), torch.ones(3))
    images = [Image.open(path) for path in pictures[:3]]
    arrays = [np.asarray(image) for image in images]
    forms: list[Any] = [[str(path) for path in pictures[:3]], images, arrays, tuple(arrays), np.stack(arrays)]
    forms += [model.preprocess(images), model.preprocess(images).double().contiguous()]
    for form in forms:
        torch.testing.assert_close(model.embed(form), expected, rtol=0, atol=1e-6)
    for one in (pictures[0], images[0], arrays[0]):
        torch.testing.assert_close(model.embed(one), expected[:1], rtol=0, atol=1e-6)
    torch.testing.assert_close(model.embed(pictures[:3], batch_size=2), expected, rtol=0, atol=1e-6)
    assert model.embed([]).shape == (0, model.card.output.dimensions)


def test_preprocess_resizes_with_pillow_and_normalises_as_in_the_card(
    exported: Path, pictures: list[Path]
) -> None:
    model = autoreid_fast.load(exported)
    card = model.card.input
    with Image.open(pictures[0]) as image:
        pixels = np.asarray(image.resize((card.width, card.height), Image.Resampling.BILINEAR)) / 255
    expected = ((pixels - card.mean) / card.std).transpose(2, 0, 1)
    np.testing.assert_allclose(model.preprocess(pictures[0])[0].numpy(), expected, atol=1e-5)
    assert normalized(torch.zeros(1, 2, 2, 3, dtype=torch.uint8)).shape == (1, 3, 2, 2)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("nowhere.jpg", "nowhere.jpg: no such file"),
        (".", "is a folder: give its images"),
        ([3], "int is not an image"),
        (np.zeros((4, 4)), "expected RGB pixels"),
        (np.zeros((8, 8, 3)), "expected RGB pixels"),
        (np.zeros((8, 8, 4), np.uint8), "expected RGB pixels"),
        (torch.zeros(2, 3, 8, 8), r"expected normalised images \(N, 3, 128, 32\)"),
        (torch.zeros(2, 3, 128, 32, dtype=torch.uint8), "Pixels go in as uint8 arrays"),
        (Image.new("RGB", (1, 1)), "1x1 pixels: expected at least 4"),
    ],
)
def test_invalid_images(images: Any, message: str, exported: Path) -> None:
    with pytest.raises(AutoReIDError, match=message):
        autoreid_fast.load(exported).embed(images)


def test_the_model_card(exported: Path, trained: Path, people: Path) -> None:
    text = exported.with_suffix(".json").read_text()
    card = json.loads(text)
    assert card["genotype"] == json.loads((trained / "genotype.json").read_text())
    assert card["metrics"]["mAP"] == json.loads((trained / "metrics.json").read_text())["mAP"]
    assert (card["data"], card["license"]) == ({"kind": "synthetic", "identities": 6}, "CC-BY-4.0")
    assert (card["input"]["height"], card["input"]["width"]) == (128, 32)
    assert card["autoreid_fast"] == autoreid_fast.__version__
    assert card["trained_with"]["packages"]["torch"] == version("torch")
    assert len(card["commit"] or "0" * 40) == 40
    assert str(people.parent) not in text  # no local paths
    assert str(trained.parent) not in text


def test_onnx_by_the_command_line(pictures: list[Path], tmp_path: Path) -> None:
    """A ResNet without metrics, which is quick to trace."""
    runtime = pytest.importorskip("onnxruntime")
    config = TrainConfig(network="resnet18", channels=2, data=DataConfig(height=64, width=32))
    network = ReIDNetwork(build_backbone("resnet18", 2), num_classes=3)
    card = card_of(network, config, RunFolder(tmp_path / "none"))
    Embedder(network, card, torch.device("cpu")).save(tmp_path / "model.safetensors")
    path = tmp_path / "model.onnx"
    assert main(["export", str(tmp_path / "model.safetensors"), "--out", str(path)]) == 0
    model = autoreid_fast.load(tmp_path / "model.safetensors")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    features = session.run(None, {"images": model.preprocess(pictures).numpy()})[0]
    np.testing.assert_allclose(features, model.embed(pictures).numpy(), atol=1e-4)
    assert json.loads(session.get_modelmeta().custom_metadata_map["autoreid_fast"]) == json.loads(
        path.with_suffix(".json").read_text()
    )


def test_the_default_folder_is_in_the_run(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(trained, tmp_path / "run")  # other tests list the files of the original
    assert main(["export", str(run), "--format", "safetensors"]) == 0
    folder = run / "export"
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "model.json"}
    assert str(folder / "model.safetensors") in capsys.readouterr().out


def test_invalid_files(
    exported: Path, searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.onnx").write_bytes(b"")
    (tmp_path / "bad.safetensors").write_bytes(b"not safetensors")
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "bare.safetensors")
    for source, message in [
        ("nowhere", "nowhere: no such file or folder"),
        (str(tmp_path / "x.onnx"), "onnxruntime runs an .onnx"),
        (str(tmp_path / "bad.safetensors"), "not a readable .safetensors file"),
        (str(tmp_path / "bare.safetensors"), "has no card"),
        (str(searched), "holds a run of `search`, not of `train`"),
    ]:
        assert main(["export", source, "--format", "safetensors", "--out", "y.safetensors"]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert main(["export", str(exported), "--format", "onnx", "--out", "model.bin"]) == 2
    assert "a file of format onnx must end in .onnx" in capsys.readouterr().err


def test_weights_with_nan_are_named_before_any_work(
    trained: Path, exported: Path, tmp_path: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """By each command that loads a network, from a run's checkpoint and from a file, before it writes."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    run = Path(shutil.copytree(trained, tmp_path / "run"))
    state = load_checkpoint(run / "checkpoints" / "last.pt")
    name = next(key for key in state["model"] if key.endswith("running_var"))
    state["model"][name][1] = float("nan")
    save_checkpoint(run / "checkpoints" / "last.pt", state)
    file, weights = tmp_path / "model.safetensors", load_file(exported)
    weights[name][0] = float("-inf")
    with safe_open(exported, framework="pt") as stream:
        save_file(weights, file, stream.metadata())
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    search = ["search-gallery", "--query", str(pictures[0]), "--gallery", str(pictures[0].parent), "--model"]
    lines = [["eval", str(run)], ["extract", str(run)], [*search, str(run)], [*search, str(file)]]
    lines += [["export", str(run), "--format", "onnx"], ["export", str(file), "--format", "onnx"]]
    for line in lines:
        holder = file if str(file) in line else run / "checkpoints" / "last.pt"
        assert main(line) == 2
        error = capsys.readouterr().err
        assert f"{holder}: {name} has NaN or infinite values" in error
        assert "use an earlier checkpoint" in error and error.count("\n") == 1
    with pytest.raises(AutoReIDError, match=f"{name} has NaN"):
        autoreid_fast.load(file)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before


def test_weights_of_another_network_are_an_error(exported: Path, tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(exported, framework="pt") as stream:
        card = json.loads(stream.metadata()["autoreid_fast"])
    weights = load_file(exported)
    for change, message in [
        ({"format": 2}, "the card: format"),
        ({"config": card["config"] | {"channels": 5}}, "not of the network in its card"),
    ]:
        path = tmp_path / "other.safetensors"
        save_file(weights, path, {"autoreid_fast": json.dumps(card | change)})
        with pytest.raises(AutoReIDError, match=message):
            autoreid_fast.load(path)
