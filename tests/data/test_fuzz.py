"""Fuzzing: for any file or file name a reader returns, or raises an error of one line.

`make fuzz` runs the same properties for longer, guided by coverage (tests/tools/fuzz.py).
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from autoreid_fast.configs.load import load_config
from autoreid_fast.data.dataset import Dataset
from autoreid_fast.data.readers.cuhk03 import CONFIG, FIELDS, IMAGES, Cuhk03Config, read_cuhk03
from autoreid_fast.data.readers.folder import FolderConfig, read_folder
from autoreid_fast.data.readers.market1501 import Market1501Config, read_market1501
from autoreid_fast.data.readers.msmt17 import Msmt17Config, read_msmt17
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.search.config import SearchConfig

QUICK = settings(deadline=None, max_examples=100, derandomize=True, database=None)


def reads(read: Callable[[], Any]) -> None:
    """Check that `read` returns numbers that fit their arrays, or raises an error of one line."""
    try:
        result = read()
    except AutoReIDError as error:
        assert len(str(error).splitlines()) == 1
        assert len(str(error)) < 5000
        str(error).encode()  # can be printed
        return
    if isinstance(result, Dataset):
        records = [*result.train, *result.query, *result.gallery]
        assert all(-1 <= record.pid < 2**31 and 0 <= abs(record.camera) < 2**31 for record in records)


def joined(*parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*parts).map("".join)


DIGITS = st.one_of(
    st.integers(-2, 99).map(str),
    st.text("0123456789-", max_size=12),
    st.sampled_from(["9" * 30, "٣", "²", "007"]),
)
JUNK = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), max_size=8)
MARKET_NAMES = st.one_of(
    joined(
        DIGITS,
        st.just("_c"),
        DIGITS,
        st.just("s1_000151_01.jpg"),
        st.sampled_from(["", ".jpg", "\n", "\x1b[2J"]),
    ),
    JUNK.map(lambda name: name + ".jpg"),
)


def file_names(names: list[str]) -> list[str]:
    return [
        name for name in names if name not in (".", "..") and len(name.encode()) < 250 and "\0" not in name
    ]


@QUICK
@given(st.lists(MARKET_NAMES, max_size=4))
def test_market1501(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for split in ("bounding_box_train", "query", "bounding_box_test"):
            (Path(folder) / split).mkdir()
            for name in file_names(names):
                (Path(folder) / split / name).touch()
        reads(lambda: read_market1501(Market1501Config(root=Path(folder))))


MSMT_LINES = st.one_of(
    joined(DIGITS, st.just("/0000_000_"), DIGITS, st.just("_0303morning_0015_0.jpg "), DIGITS),
    st.text(max_size=20),
)


@QUICK
@given(
    st.one_of(
        st.lists(MSMT_LINES, max_size=4).map(lambda lines: "\n".join(lines).encode()), st.binary(max_size=60)
    )
)
def test_msmt17(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for split in ("train", "test"):
            (Path(folder) / split).mkdir()
        for split in ("train", "val", "query", "gallery"):
            (Path(folder) / f"list_{split}.txt").write_bytes(content)
        reads(lambda: read_msmt17(Msmt17Config(root=Path(folder))))


def test_msmt17_reads_a_long_line_in_linear_time() -> None:
    """Long lines once took quadratic time."""
    for line in (" " * 200_000 + "x", "a_b_1_" + "c " * 100_000 + "/"):
        with tempfile.TemporaryDirectory() as folder:
            for split in ("train", "test"):
                (Path(folder) / split).mkdir()
            for split in ("train", "val", "query", "gallery"):
                (Path(folder) / f"list_{split}.txt").write_text(line)
            reads(lambda root=folder: read_msmt17(Msmt17Config(root=Path(root))))


PATTERNS = st.one_of(
    st.sampled_from([
        r"(?P<pid>\d+)_(?P<camera>\w)", r"(?P<pid>.)", r"(?P<pid>\w+)/(?P<camera>.+)/",
        "(?P<pid>a{99999999999})",
        "(" * 3000, "(?P<pid>", r"(?P<split>\w+)/(?P<pid>\d+)",
    ]),
    st.text("(?P<pid>camera\\dw+*.[]{}|9)", max_size=30),
)  # fmt: skip
TREE_NAMES = st.one_of(
    joined(
        st.sampled_from(["", "train/", "query/", "gallery/"]), DIGITS, st.just("_"), DIGITS, st.just(".png")
    ),
    JUNK.map(lambda name: name + ".png"),
)


@QUICK
@given(st.lists(TREE_NAMES, max_size=5), PATTERNS)
def test_folder(names: list[str], pattern: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in file_names(names):
            path = Path(folder) / name
            path.parent.mkdir(exist_ok=True)
            path.touch()
        reads(lambda: read_folder(FolderConfig(root=Path(folder), pattern=pattern)))


CELLS = st.one_of(
    st.lists(st.integers(-1, 4), max_size=4).map(np.array),
    st.lists(st.floats(width=32), max_size=4).map(np.array),
    st.sampled_from(["1_001_1_01.png", "x", ""]),
    st.lists(st.sampled_from(["1_001_1_01.png", "9_001_1_01.png", "", "\n"]), max_size=4).map(
        lambda names: np.array([*names, None], dtype=object)[:-1]
    ),
    st.just({"a": 1}),
)


@settings(QUICK, max_examples=40)
@given(
    st.fixed_dictionaries(dict.fromkeys(FIELDS, CELLS)),
    st.booleans(),
    st.integers(0, 600),
    st.binary(max_size=4),
)
def test_cuhk03(fields: dict[str, Any], valid_names: bool, offset: int, patch: bytes) -> None:
    if valid_names:
        fields = {**fields, "filelist": np.array([["1_001_1_01.png"], ["1_001_2_06.png"]], dtype=object)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / CONFIG.format(boxes="labeled")
        (Path(folder) / IMAGES).touch()
        scipy.io.savemat(path, fields)
        content = bytearray(path.read_bytes())
        content[offset : offset + len(patch)] = patch
        path.write_bytes(content)
        reads(lambda: read_cuhk03(Cuhk03Config(root=Path(folder))))


@pytest.mark.parametrize(("offset", "byte"), [(144, 6), (228, 17), (304, 0)])
def test_a_flipped_byte_that_crashes_scipy(offset: int, byte: int, tmp_path: Path) -> None:
    fields = {name: np.array([1.0]) for name in FIELDS}
    fields["filelist"] = np.array([["1_001_1_01.png"], ["1_001_2_06.png"]], dtype=object)
    fields["labels"] = fields["camId"] = np.array([1.0, 2.0])
    path = tmp_path / CONFIG.format(boxes="labeled")
    (tmp_path / IMAGES).touch()
    scipy.io.savemat(path, fields)
    assert len(read_cuhk03(Cuhk03Config(root=tmp_path)).train) == 1
    content = bytearray(path.read_bytes())
    content[offset] = byte
    path.write_bytes(content)
    with pytest.raises(AutoReIDError, match="not a readable MATLAB file") as error:
        read_cuhk03(Cuhk03Config(root=tmp_path))
    assert len(str(error.value).splitlines()) == 1


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
YAML = st.one_of(
    st.sampled_from([
        "epochs: 2020-13-45", "[" * 3000, "epochs: !!int ''", "epochs: !!bool maybe", "seed: !!timestamp x",
        BOMB + "epochs: *i", "epochs: 0x" + "f" * 5000, "epochs: " + "9" * 5000, "command: [a]",
        "1: 2", "? [a]\n: b",
        'command: "a\\nb"', '"a\\nb": 1', "epochs: .nan", "epochs: 1e999", "!!python/object:os.system x: 1",
        "a: &a [*a]", "epochs: &e {epochs: *e}", "data: {root: \"\\0\"}", "seed: 99999999999999999999",
    ]),
    st.lists(
        joined(
            st.sampled_from([*SearchConfig.model_fields, "x", "<<"]),
            st.just(": "),
            st.one_of(st.integers(), st.floats(), st.text(max_size=6), st.just("[1, {a: 2}]")).map(str),
        ),
        max_size=3,
    ).map("\n".join),
    st.text("abc:-[]{}&*!|>'\"#%@,? \n\t0123.~", max_size=30),
)  # fmt: skip


@QUICK
@given(st.one_of(YAML.map(lambda text: text.encode("utf-8", "surrogatepass")), st.binary(max_size=40)))
def test_config(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_bytes(content)
        reads(lambda: load_config(SearchConfig, str(path), "search"))
