"""The synthetic data set on disk: layout, names, counts, reproducible pixels, complete or absent."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from PIL import Image

from autoreid_fast.data.synthetic import SyntheticConfig, generate, writer
from autoreid_fast.data.synthetic.plan import plan_shots
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.stopping import signals_interrupt

NAME = re.compile(r"^(-1|\d{4})_c([1-9])s([1-6])_(\d{6})_(\d\d)\.jpg$")
FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
CONFIG = SyntheticConfig(
    train_identities=6,
    test_identities=5,
    cameras=4,
    images_per_camera=3,
    junk=7,
    distractors=9,
    height=64,
    width=32,
)


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
    }


def labels(root: Path, folder: str) -> list[tuple[int, int]]:
    found = [NAME.match(path.name) for path in sorted((root / folder).iterdir())]
    assert all(found), f"a name in {folder} does not parse"
    return [(int(match[1]), int(match[2])) for match in found if match]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "market"
    generate(root, CONFIG)
    return root


def test_layout_names_and_images(root: Path) -> None:
    assert {path.name for path in root.iterdir()} == {*FOLDERS, "synthetic.json"}
    assert [path.name for path in root.parent.iterdir()] == ["market"]  # no leftovers
    for folder in FOLDERS:
        labels(root, folder)
        for path in (root / folder).iterdir():
            with Image.open(path) as image:
                image.load()
                assert (image.format, image.mode, image.size) == (
                    "JPEG",
                    "RGB",
                    (CONFIG.width, CONFIG.height),
                ), path


def test_counts_follow_the_config(root: Path) -> None:
    train, query, gallery = (labels(root, folder) for folder in FOLDERS)
    assert len({pid for pid, _ in train}) == CONFIG.train_identities
    assert len({pid for pid, _ in query}) == CONFIG.test_identities
    assert {pid for pid, _ in gallery} == {pid for pid, _ in query} | {-1, 0}
    assert not {pid for pid, _ in train} & {pid for pid, _ in gallery}
    counts = Counter(pid for pid, _ in gallery)
    assert (counts[-1], counts[0]) == (CONFIG.junk, CONFIG.distractors)
    assert {camera for _, camera in train + query + gallery} <= set(range(1, CONFIG.cameras + 1))


def test_every_query_is_the_only_one_of_its_camera_and_has_a_match(root: Path) -> None:
    assert_matched(labels(root, "query"), labels(root, "bounding_box_test"))
    # also in the sparsest plan
    sparse = SyntheticConfig(train_identities=2, test_identities=400, cameras=2, images_per_camera=2)
    by_folder = defaultdict(list)
    for shot in plan_shots(sparse):
        folder, name = shot.path.split("/")
        match = NAME.match(name)
        assert match
        by_folder[folder].append((int(match[1]), int(match[2])))
    assert_matched(by_folder["query"], by_folder["bounding_box_test"])


def assert_matched(query: list[tuple[int, int]], gallery: list[tuple[int, int]]) -> None:
    assert query
    assert len(set(query)) == len(query)
    seen = defaultdict(set)
    for pid, camera in gallery:
        seen[pid].add(camera)
    for pid, camera in query:
        assert seen[pid] - {camera}


def test_the_number_of_images_varies_around_the_configs_mean() -> None:
    config = SyntheticConfig(train_identities=300, test_identities=300, images_per_camera=4)
    shots = plan_shots(config)
    assert len({shot.path for shot in shots}) == len(shots)
    groups: Counter[tuple[str, str]] = Counter()
    for shot in shots:
        match = NAME.match(shot.path.split("/")[1])
        assert match
        if match[1] not in ("-1", "0000"):
            groups[match[1], match[2]] += 1
    sizes = list(groups.values())
    assert sum(sizes) / len(sizes) == pytest.approx(4, abs=0.15)
    assert len(set(sizes)) > 4
    assert len(groups) / 600 == pytest.approx(6 * config.camera_share, abs=0.2)


def test_files_do_not_depend_on_workers_or_process(root: Path, tmp_path: Path) -> None:
    generate(tmp_path / "alone", CONFIG, workers=1)
    generate(tmp_path / "three", CONFIG, workers=3)
    assert contents(tmp_path / "alone") == contents(tmp_path / "three") == contents(root)
    other = CONFIG.model_copy(update={"seed": 1})
    generate(tmp_path / "other", other, workers=1)
    fingerprints = [
        json.loads((r / "synthetic.json").read_text())["fingerprint"] for r in (root, tmp_path / "other")
    ]
    assert fingerprints[0] != fingerprints[1]


def test_a_complete_set_is_kept_and_another_config_replaces_it(tmp_path: Path) -> None:
    small = SyntheticConfig(
        train_identities=2, test_identities=2, cameras=2, images_per_camera=2, junk=1, distractors=1
    )
    calls: list[tuple[int, int]] = []
    generate(tmp_path / "set", small, progress=lambda done, total: calls.append((done, total)), workers=1)
    assert calls[-1][0] == calls[-1][1] == sum(len(labels(tmp_path / "set", folder)) for folder in FOLDERS)
    before = (tmp_path / "set" / "synthetic.json").stat().st_mtime_ns
    generate(tmp_path / "set", small, progress=lambda done, total: pytest.fail("drawn again"))
    assert (tmp_path / "set" / "synthetic.json").stat().st_mtime_ns == before
    generate(tmp_path / "set", small.model_copy(update={"junk": 3}), workers=1)
    assert Counter(pid for pid, _ in labels(tmp_path / "set", "bounding_box_test"))[-1] == 3


def test_another_folder_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(AutoReIDError, match="something other than a synthetic data set"):
        generate(tmp_path, CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


KILLED = """
import os, signal, sys
from autoreid_fast.data.synthetic import SyntheticConfig, generate, writer
from autoreid_fast.data.synthetic.plan import plan_shots
def progress(done, total):
    assert done < total
    os.kill(os.getpid(), signal.SIGKILL)
generate(sys.argv[1], SyntheticConfig.model_validate_json(sys.argv[2]), progress, workers=2)
"""


def test_files_of_a_killed_run_are_drawn_again(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "market"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(target), CONFIG.model_dump_json()], check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert not target.exists()
    assert any(path.suffix == ".jpg" for path in tmp_path.rglob("*"))
    generate(target, CONFIG)
    assert contents(target) == contents(root)
    assert [path.name for path in tmp_path.iterdir()] == ["market"]


def test_a_failing_worker_is_an_error_and_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "take", full)
    with pytest.raises(OSError, match="No space left"):
        generate(tmp_path / "set", CONFIG, workers=2)
    assert not (tmp_path / "set").exists()
    monkeypatch.setattr(writer, "take", lambda *_: os._exit(9))
    with pytest.raises(RuntimeError, match="was killed"):
        generate(tmp_path / "set", CONFIG, workers=2)
    assert not (tmp_path / "set").exists()


def test_terminated_workers_print_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """They are forked from a command, but must not run its SIGTERM handler, not even before their own."""
    work = writer._work

    def late(studio: writer._Studio, chunks: range, *ends: Connection) -> None:
        while chunks.start and signal.SIGTERM not in signal.sigpending():  # the second worker
            pass
        work(studio, chunks, *ends)

    def enough(done: int, total: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "_work", late)
    monkeypatch.setattr(writer, "CHUNK", 1)
    with signals_interrupt(), pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "set", CONFIG, progress=enough, workers=2)
    assert capfd.readouterr().err == ""


def test_a_full_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write itself names no file."""

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(AutoReIDError, match=r"_\d\d\.jpg: cannot be written \(No space left on device\)"):
        generate(tmp_path / "set", CONFIG, workers=1)


@pytest.mark.parametrize("manifest", ["[]", "{", "[" * 100_000, "3", '{"version": 1}'])
def test_a_garbled_manifest_is_not_that_of_a_complete_set(manifest: str, tmp_path: Path) -> None:
    (tmp_path / writer.MANIFEST).write_text(manifest)
    assert not writer._is_complete(tmp_path, CONFIG)
