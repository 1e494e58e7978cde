"""Checkpoints and caches that are torn, corrupt, of an old format, or written to a full disk."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch

from autoreid_fast.cli import main
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import atomic_path, write_text
from autoreid_fast.runs.checkpoint import DamagedCheckpointError, load_checkpoint, save_checkpoint
from autoreid_fast.runs.folder import RunFolder

Alike = Callable[[Path, Path], bool]
Inject = Callable[..., None]


def flipped(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


def test_every_flipped_bit_and_missing_end_is_noticed(tmp_path: Path, long: bool, inject: Inject) -> None:
    """In the weights, too, which torch.load does not check."""
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"epoch": 1, "model": {"weight": torch.arange(50.0)}})
    whole = path.read_bytes()
    assert torch.equal(torch.load(path, weights_only=True)["model"]["weight"], torch.arange(50.0))
    step = 1 if long else 53
    damages = [flipped(whole, position) for position in range(0, len(whole), step)]
    damages += [whole[:length] for length in range(0, len(whole), step)]
    inject("flipped bit in, or missing end of, a checkpoint", len(damages))
    for damage in damages:
        path.write_bytes(damage)
        with pytest.raises(AutoReIDError, match="not a readable checkpoint"):
            load_checkpoint(path)


@pytest.mark.parametrize("damage", ["torn", "corrupt"])
def test_the_previous_checkpoint_is_used(
    damage: str,
    undisturbed: dict[str, Path],
    same_end: Alike,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    inject: Inject,
) -> None:
    run = Path(copytree(undisturbed["train"], tmp_path / "run"))
    inject("torn or corrupt last checkpoint of a run")
    last = run / "checkpoints" / "last.pt"
    whole = last.read_bytes()
    last.write_bytes(whole[:-1000] if damage == "torn" else flipped(whole, len(whole) // 2))
    assert main(["train", "--resume", "--run", str(run)]) == 0
    error = capsys.readouterr().err
    message = f"{last}: not a readable checkpoint ("
    assert sum(
        message in line and "using the previous checkpoint, after epoch 2" in line
        for line in error.split("\n")
    )
    assert "resuming after epoch 2; the run has 3 epochs" in error
    assert same_end(run, undisturbed["train"])
    assert load_checkpoint(run / "checkpoints" / "previous.pt")["epoch"] == 2  # not the damaged one


def test_all_damaged_is_one_line(undisturbed: dict[str, Path], tmp_path: Path) -> None:
    run = RunFolder(copytree(undisturbed["train"], tmp_path / "run"))
    for path in {path.resolve() for path in (run.checkpoint, run.previous, run.best)}:
        path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DamagedCheckpointError, match=r"last\.pt: not a readable checkpoint") as error:
        run.load()
    assert "\n" not in str(error.value)


def test_the_best_is_kept(undisturbed: dict[str, Path]) -> None:
    checkpoints = undisturbed["train"] / "checkpoints"
    best, last = (load_checkpoint(checkpoints / f"{name}.pt") for name in ("best", "last"))
    values = [record["mAP"] for record in last["history"]]
    assert best["epoch"] == int(np.argmax(values)) + 1
    assert best["history"] == last["history"][: best["epoch"]]
    assert not (undisturbed["search"] / "checkpoints" / "best.pt").exists()  # a search does not validate


def test_a_run_of_format_1_is_resumed(undisturbed: dict[str, Path], same_end: Alike, tmp_path: Path) -> None:
    """It had neither a checksum nor a position inside an epoch."""
    run = Path(copytree(undisturbed["search"], tmp_path / "run"))
    checkpoints = run / "checkpoints"
    state = torch.load(checkpoints / "previous.pt", weights_only=True)
    torch.save(state | {"format": 1}, checkpoints / "last.pt")
    (checkpoints / "previous.pt").unlink()
    assert main(["search", "--resume", "--run", str(run)]) == 0
    assert same_end(run, undisturbed["search"])
    torch.save(state, checkpoints / "last.pt")
    with pytest.raises(DamagedCheckpointError, match="its checksum is missing"):
        load_checkpoint(checkpoints / "last.pt")


@contextmanager
def restored_room() -> Iterator[Callable[[int], None]]:
    """Yield a function that limits the size of files, as if the disk filled up while one is written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("share", [0.25, 0.75])
def test_no_room_for_a_checkpoint(
    share: float,
    search_line: list[str],
    undisturbed: dict[str, Path],
    same_end: Alike,
    at_each_step: Callable[[Callable[[int], None]], None],
    tmp_path: Path,
    inject: Inject,
) -> None:
    """Wherever the disk ends, the previous checkpoint stays, and the run resumes when there is room."""
    run = tmp_path / "run"
    size = int(share * (undisturbed["search"] / "checkpoints" / "last.pt").stat().st_size)
    with restored_room() as only_room_for:
        at_each_step(lambda step: only_room_for(size) if step == 4 else None)
        assert main([*search_line, "--run", str(run)]) == 2
    inject("disk full while a checkpoint is written")
    assert load_checkpoint(run / "checkpoints" / "last.pt")["epoch"] == 1
    assert not list(run.rglob("*.tmp"))
    assert main(["search", "--resume", "--run", str(run)]) == 0
    assert same_end(run, undisturbed["search"])


def test_no_room_for_a_cache(people: Path, data: list[str], tmp_path: Path, inject: Inject) -> None:
    options = [part.replace("--data.", "--") for part in data if part not in ("--device", "cpu")]
    options[options.index("--cache-dir") + 1] = str(tmp_path)
    images = 24 * 64 * 32 * 3
    sizes = [100, images // 2, images + 3]  # in the first image, in the middle, in the footer
    for size in sizes:
        with restored_room() as only_room_for:
            only_room_for(size)
            assert main(["data", "cache", *options]) == 2
        inject("disk full while a cache is written")
        assert list(tmp_path.iterdir()) == []
    assert main(["data", "cache", *options]) == 0


def test_a_truncated_cache_is_built_again(data: list[str], tmp_path: Path, inject: Inject) -> None:
    options = [part.replace("--data.", "--") for part in data if part not in ("--device", "cpu")]
    options[options.index("--cache-dir") + 1] = str(tmp_path)
    assert main(["data", "cache", *options]) == 0
    caches = {path: path.read_bytes() for path in tmp_path.glob("*.u8")}
    for path, whole in caches.items():
        for length in (0, 10, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:length])
            inject("truncated cache")
            assert main(["data", "cache", *options]) == 0
            assert path.read_bytes() == whole


def test_only_files_of_killed_writers_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    (tmp_path / ".file.killed.tmp").write_text("half")
    (tmp_path / ".files.other.tmp").write_text("of another file")
    with atomic_path(path) as temporary:
        temporary.write_text("slow")
        write_text(path, "quick")
        assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(
            [".files.other.tmp", "file", temporary.name]
        )
    assert path.read_text() == "slow"
