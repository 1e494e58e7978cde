"""The candidate operation of docs/develop/new-operation.md, in a file of its own, searches and trains."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from autoreid_fast.cli import main
from autoreid_fast.nas import DerivedNetwork, Genotype, SourceSupernet, Supernet, derive
from autoreid_fast.nas import space as search_spaces
from autoreid_fast.nas.operations.registry import OPERATIONS
from autoreid_fast.registry import plugins

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "develop" / "new-operation.md").read_text()


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's file in the current directory; what it registers is forgotten afterwards."""
    ((name, text),) = re.findall(r"^```python\n# (\S+)\n(.*?)^```$", PAGE, re.M | re.S)
    (tmp_path / name).write_text(text)
    OPERATIONS.names()  # registers the built-in ones
    monkeypatch.setattr(OPERATIONS, "_entries", dict(OPERATIONS._entries))
    monkeypatch.setattr(search_spaces, "_SPACES", dict(search_spaces._SPACES))
    monkeypatch.setattr(plugins, "_imported", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    for command in ("search", "train"):
        monkeypatch.setattr(f"autoreid_fast.commands.{command}.draw_report", lambda folder: None)
    yield tmp_path / name
    forget()


def forget() -> None:
    """Make the next command start as in a new process: the file not imported, nothing registered."""
    sys.modules.pop("rows", None)
    plugins._imported.clear()
    OPERATIONS._entries.pop("row_mean", None)
    search_spaces._SPACES.pop("rows", None)


def test_both_supernets_and_the_derived_network_run_it(rows: Path) -> None:
    plugins.import_plugin(str(rows))
    source = SourceSupernet(3, (1, 1, 1, 1), "rows").eval()
    reference = Supernet(3, (1, 1, 1, 1), "rows").eval()
    reference.load_state_dict(source.reference_state_dict())
    images = torch.randn(2, 3, 97, 24)
    torch.testing.assert_close(source(images), reference(images), rtol=1e-4, atol=1e-5)

    alpha = torch.zeros(14, 8)
    alpha[:, 7] = 1
    genotype = derive(alpha, alpha, "rows")
    assert {edge.op for node in genotype.normal for edge in node} == {"row_mean"}
    assert DerivedNetwork(genotype, 4, (1, 1, 1, 1)).eval()(images).shape == (2, 128)


def test_the_commands_of_the_page(
    rows: Path, people: Path, small_search: list[str], small_train: list[str]
) -> None:
    Path("people").symlink_to(people)
    search, train = re.findall(r"^autoreid-fast (.*)$", PAGE, re.M)
    assert main([*search.split(), *small_search]) == 0
    assert isinstance(Genotype.load("runs/rows/genotype.json"), Genotype)
    assert main([*train.split(), *small_train]) == 0
    assert Path("runs/rows-train/metrics.json").is_file()

    forget()
    assert main(["report", "runs/rows"]) == 0  # the run knows where its operation is
    assert Path("runs/rows/report/index.html").is_file()
