"""docs/python.md and docs/use.md: every block runs."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from autoreid_fast import load
from autoreid_fast.cli import main
from autoreid_fast.engine.export import SUFFIX
from autoreid_fast.models.retrieval import RetrievalNetwork

DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.M | re.S)


@pytest.fixture
def here(trained: Path, people: Path, tmp_path: Path) -> Path:
    """The folder that the pages speak of."""
    shutil.copytree(trained, tmp_path / "runs" / "train")
    shots = iter(sorted((people / "query").glob("*.jpg")))
    for name in (
        "query/anna.jpg",
        "query/ben.jpg",
        "photos/1.jpg",
        "gallery/a.jpg",
        "gallery/b.jpg",
        "gallery/c.jpg",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(next(shots), tmp_path / name)
    shutil.copy(tmp_path / "query" / "anna.jpg", tmp_path / "anna.jpg")
    return tmp_path


def test_python(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With a session of onnxruntime's interface in place of the tracing, which test_export does."""
    onnxruntime = pytest.importorskip("onnxruntime")

    class Session:
        def __init__(self, path: str) -> None:
            assert path == f"runs/train/export/model{SUFFIX['onnx']}"
            self.network: RetrievalNetwork = load("runs/train").network

        def run(self, outputs: None, feeds: dict) -> list:  # type: ignore[type-arg]
            return [feeds["images"]]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    names: dict[str, object] = {}
    code = blocks("python.md", "python")
    assert len(code) == 5
    for block in code:
        exec(block, names)
    assert "gallery/" in capsys.readouterr().out


def test_use(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        "autoreid_fast.commands.export.export",
        lambda embedder, format, path: (
            asked.append(format) or path.parent.mkdir(exist_ok=True) or path.touch()
        ),
    )
    for line in "".join(blocks("use.md", "")).splitlines():
        program, *arguments = shlex.split(line)
        assert program == "autoreid-fast"
        assert main(arguments) == 0, line
    assert (here / "search-gallery.html").is_file()
    assert asked == ["safetensors", "onnx", "torch"]
