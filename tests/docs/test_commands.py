"""Every command of README.md and docs/: run as it stands, run at a small size, or parsed to its end.

`PAGES` says which, command by command; a command that it does not know fails.
"""

import functools
import inspect
import re
import shlex
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro
from torch.distributed.run import get_args_parser

from autoreid_fast.benchmarks.harness.case import find
from autoreid_fast.cli import COMMANDS, main
from autoreid_fast.commands.demo import DEMO_SET
from autoreid_fast.data.config import DATASETS
from autoreid_fast.data.synthetic.plan import plan_shots
from autoreid_fast.inference.export import SUFFIX
from autoreid_fast.runs.folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]
FILES = {path.name: path for path in [ROOT / "README.md", *(ROOT / "docs").glob("*/*.md")]}

# run: as it stands. small: with options behind it that make it small. parse: by the command's own parser, the
# names of presets, networks and benchmark cases included; too large to run, or needs a data set that is not
# ours to make. text: not a command of ours (make, pip, a message).
PAGES = {
    "README.md": "text text small small run",
    "ablation.md": "parse",
    "api.md": "",
    "architecture.md": "",
    "benchmarks.md": "parse parse",
    "data.md": "run",
    "decisions.md": "",
    "distributed.md": "parse parse parse text",
    "extending.md": "small run run small run small small",
    "index.md": "",
    "install.md": "text text text",
    "kernels.md": "",
    "models.md": "parse parse parse parse parse parse parse parse",
    "mutation.md": "text",
    "new-op.md": "",
    "new-operation.md": "page page",  # test_new_operation.py
    "own-data.md": "run run run small small run run",
    "paper.md": "run parse parse run parse run",
    "pku-reid.md": "run parse parse parse",
    "python.md": "",
    "quick-start.md": "parse small run small run small run small run run run",
    "re-ranking.md": "run",
    "reliability.md": "text",
    "reports.md": "run run run",
    "sanitizers.md": "",
    "search.md": "parse",
    "start-up.md": "",
    "tables-small.md": "",
    "tables.md": "parse parse parse",
    "tuning.md": "text text text",
    "use.md": "run run run run",
}
SYNTH = [
    "--train-identities",
    "4",
    "--test-identities",
    "4",
    "--cameras",
    "3",
    "--junk",
    "2",
    "--distractors",
    "2",
]


class ParsedWhole(Exception):
    """A command line was parsed to its end."""


def text_of(page: str) -> str:
    return FILES[page].read_text()


def blocks(page: str, language: str) -> list[str]:
    found = re.findall(r"^```([^\n`]*)\n(.*?)^```$", text_of(page), re.M | re.S)
    return [text for of, text in found if of == language]


def commands(page: str) -> list[list[str]]:
    """The words of each command in the page's blocks, without variables that are set before it."""
    lines = "".join(blocks(page, "")).replace("\\\n", " ").splitlines()
    found = [shlex.split(line, comments=True) for line in lines if line.strip()]
    return [words[1:] if "=" in words[0] else words for words in found]


def parse_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the commands' parser do all its work, and nothing come after it."""
    cli = tyro.cli

    def parsed(form: Any, **options: Any) -> None:
        if inspect.isfunction(form):
            inner = form
            form = functools.wraps(inner)(lambda *arguments, **named: None)
        cli(form, **options)
        raise ParsedWhole

    monkeypatch.setattr(tyro, "cli", parsed)


def parse(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if words[0] == "torchrun":
        options = get_args_parser().parse_args(words[1:])
        assert options.module
        rest = [word for word in (options.training_script, *options.training_script_args) if word != "--"]
        assert rest.pop(0) == "autoreid_fast"
        given = [word for k, word in enumerate(rest) if word != "..." or rest[k - 1].startswith("--")]
        words = ["autoreid-fast", *given]
    assert words[0] == "autoreid-fast"
    if words[1] == "bench":
        find([word for before, word in pairwise(words[1:]) if "--" not in (before[:2], word[:2])])
    with monkeypatch.context() as patched, pytest.raises(ParsedWhole):
        parse_only(patched)
        main(words[1:])


def perform(
    page: str,
    small: dict[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    after: Callable[[list[str]], None] = lambda words: None,
) -> None:
    """Do with each command of the page what `PAGES` says; ``after`` is called with each one that was run."""
    ways, found = PAGES[page].split(), commands(page)
    assert len(ways) == len(found), f"{page}: say in PAGES what to do with each of {len(found)} commands"
    for way, words in zip(ways, found, strict=True):
        if way == "text":
            assert words[0] != "autoreid-fast"
        elif way == "parse":
            parse(words, monkeypatch)
        elif way != "page":
            assert words[0] == "autoreid-fast", words
            more = small[words[1]] if way == "small" else []
            assert main([*words[1:], *more]) == 0, shlex.join(words)
            after(words)


def write_photos(people: Path, root: Path, suffix: str) -> None:
    """Images as <person>/<camera>_<number>."""
    for number, image in enumerate(sorted(people.glob("*/0[0-9]*_c*.jpg"))):
        pid, camera = image.name.split("_")[:2]
        if pid != "0000":
            path = root / pid / f"{camera[1]}_{number}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(image, path)


def settle(people: Path, folder: Path) -> Path:
    """Files that the pages expect to exist, except for runs."""
    (folder / "Market-1501-v15.09.15").symlink_to(people)
    (folder / "people").symlink_to(people)
    write_photos(people, folder / "photos", ".jpg")
    write_photos(people, folder / "PKU" / "images", ".png")
    shots = iter(sorted((people / "query").glob("*.jpg")))
    for name in ["query/anna", "query/ben", "gallery/a", "gallery/b", "gallery/c", "anna"]:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(next(shots), folder / f"{name}.jpg")
    return folder


@pytest.fixture(scope="session")
def small(small_search: list[str], small_train: list[str]) -> dict[str, list[str]]:
    """Options that make each command small."""
    return {"search": small_search, "train": small_train, "data": SYNTH}


@pytest.fixture(scope="session")
def from_readme(people: Path, small: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the README's commands were run."""
    folder = settle(people, tmp_path_factory.mktemp("readme"))
    with pytest.MonkeyPatch.context() as patched:
        prepare(patched, folder)
        perform("README.md", small, patched)
    return folder


def prepare(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Work in the folder; reports take longer than these tiny runs and have tests of their own."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    for command in ("evaluate", "search", "train"):
        monkeypatch.setattr(f"autoreid_fast.commands.{command}.draw_report", lambda path: None)
    monkeypatch.setattr("autoreid_fast.report.plots.theme.Drawing.save", lambda drawing, path, name: None)


@pytest.fixture
def here(people: Path, from_readme: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the data, and the runs that the pages speak of."""
    folder = settle(people, tmp_path)
    for name in ("search", "train", "resnet18", "a", "b", "c"):
        made = "search" if name == "search" else "train"
        shutil.copytree(from_readme / "runs" / made, folder / "runs" / name)
    prepare(monkeypatch, folder)
    return folder


def test_every_page_is_known() -> None:
    assert PAGES.keys() == FILES.keys()


def test_readme(from_readme: Path) -> None:
    assert RunFolder(from_readme / "runs" / "train").metrics.is_file()


SIMPLE = sorted(PAGES.keys() - {"README.md", "extending.md", "own-data.md", "quick-start.md", "use.md"})


@pytest.mark.parametrize("page", SIMPLE)
def test_page(page: str, small: dict[str, list[str]], here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    perform(page, small, monkeypatch)


def test_quick_start(
    small: dict[str, list[str]], people: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an empty folder; the query that the page names is one of the set that it draws."""
    (name,) = set(re.findall(r"people/(query/\w+\.jpg)", text_of("quick-start.md")))
    assert name in {shot.path for shot in plan_shots(DEMO_SET)}
    empty = here / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)

    def rename(words: list[str]) -> None:
        """The small set has people of its own: give a query of theirs the name of the large set's."""
        if words[1:3] == ["data", "synth"]:
            shutil.copy(next((empty / "people" / "query").glob("*.jpg")), empty / "people" / name)

    perform("quick-start.md", small, monkeypatch, rename)
    assert (empty / "comparison.html").is_file() and (empty / "search-gallery.html").is_file()


def test_own_data(small: dict[str, list[str]], here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (preset,) = blocks("own-data.md", "yaml")
    (here / "mine-search.yaml").write_text(preset)
    perform("own-data.md", small, monkeypatch)


def write_listing(photos: Path, listing: Path) -> None:
    """A CSV with half of the people to train on, and one query for each other person."""
    lines = ["split,pid,camera,path"]
    people = sorted(folder for folder in photos.iterdir() if folder.is_dir())
    for number, person in enumerate(people):
        for index, image in enumerate(sorted(person.iterdir())):
            split = "train" if number % 2 else "gallery" if index else "query"
            lines.append(f"{split},{person.name},{index},{person.name}/{image.name}")
    listing.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_extending(small: dict[str, list[str]], here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are written and imported by its commands; its other Python runs."""
    write_listing(here / "photos", here / "photos.csv")
    names: dict[str, object] = {}
    for block in blocks("extending.md", "python"):
        if name := re.match(r"# (my_\w+\.py)\n", block):
            compile(block, name[1], "exec")
            (here / name[1]).write_text(block, encoding="utf-8")
        else:
            exec(block, names)
    perform("extending.md", small, monkeypatch)


def test_use(small: dict[str, list[str]], here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With tracing, which tests/commands/test_export.py does, left out."""
    asked: list[str] = []

    def export(embedder: object, format: str, path: Path) -> None:
        asked.append(format)
        path.parent.mkdir(exist_ok=True)
        path.touch()

    monkeypatch.setattr("autoreid_fast.commands.export.export", export)
    perform("use.md", small, monkeypatch)
    assert (here / "search-gallery.html").is_file()
    assert asked == ["safetensors", "onnx", "torch"]


PLACEHOLDERS = {"COMMAND": "search", "KIND": "folder", "N": "1", "NAME": "resnet18"}


def in_running_text(page: str) -> list[list[str]]:
    """The words of what stands in backticks outside blocks; what may be left out is left out."""
    text = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.M | re.S)
    spans = (re.sub(r"\[.*?\]|\.\.\.", "", span) for span in re.findall(r"`([^`]+)`", text))
    return [words for span in spans if (words := span.replace("'", "").split())]


@pytest.mark.usefixtures("here")
def test_commands_in_running_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsed to their ends; a command's bare name is its name and no more."""
    for words in (words for page in PAGES for words in in_running_text(page)):
        words = [PLACEHOLDERS.get(word, word) for word in words]
        print(shlex.join(words))  # the last line, where one fails
        if words[0] == "autoreid-fast" and len(words) == 2:
            assert words[1] in COMMANDS, words
        elif words[0] in ("autoreid-fast", "torchrun") and len(words) > 2 and "--help" not in words:
            parse(words, monkeypatch)


@pytest.fixture(scope="module")
def options() -> dict[str, set[str]]:
    """The options in the help of each command, those of every data set and algorithm included."""
    with redirect_stdout(StringIO()) as out:
        main(["--help"])
    common = set(re.findall(r"--[\w.-]+", out.getvalue()))  # --import
    found: dict[str, set[str]] = {}
    kinds = [f"{command} --data.kind {kind}" for command in ("train", "eval") for kind in DATASETS.names()]
    kinds += [f"data check --kind {kind}" for kind in DATASETS.names()]
    kinds += ["search --algorithm gdas"]
    for command in (*COMMANDS, "data synth", "data check", "data cache", *kinds):
        with redirect_stdout(StringIO()) as out, suppress(SystemExit):
            main([*command.split(), "--help"])
        name = command.split()[0]
        found[name] = found.get(name, common) | set(re.findall(r"--[\w.-]+", out.getvalue()))
    return found


def test_options_in_running_text_exist(options: dict[str, set[str]]) -> None:
    """Of the command that they stand behind; alone, of any, `torchrun` among them."""
    every = set().union(*options.values(), re.findall(r"--[\w-]+", get_args_parser().format_help()))
    for page in PAGES:
        for words in in_running_text(page):
            if words[0].startswith("--") or words[0] in COMMANDS:
                named = {word for word in words if word.startswith("--")}
                assert named <= options.get(words[0], every), f"{page}: {' '.join(words)}"


def test_python(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With a session of onnxruntime's interface in place of the tracing, which test_export does."""
    onnxruntime = pytest.importorskip("onnxruntime")

    class Session:
        def __init__(self, path: str) -> None:
            assert path == f"runs/train/export/model{SUFFIX['onnx']}"

        def run(self, outputs: None, feeds: dict[str, Any]) -> list[Any]:
            return [feeds["images"]]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    names: dict[str, object] = {}
    code = blocks("python.md", "python")
    assert len(code) == 5
    for block in code:
        exec(block, names)
    assert "gallery/" in capsys.readouterr().out


def test_python_of_the_readme(here: Path) -> None:
    (block,) = blocks("README.md", "python")
    names: dict[str, Any] = {}
    exec(block, names)
    torch.testing.assert_close(names["features"].norm(dim=1), torch.ones(2))


def test_links_and_figures_are_there() -> None:
    figures = set()
    for page in PAGES:
        for target in re.findall(
            r"\]\((?!https?:)([^)#]+)\)", re.sub(r"```.*?```", "", text_of(page), flags=re.S)
        ):
            assert (FILES[page].parent / target).exists(), f"{page}: {target}"
            figures.add(Path(target).name)
    assert {path.name for path in (ROOT / "docs" / "figures").glob("*.svg")} <= figures
