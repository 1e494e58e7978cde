"""Writing the set: drawn by every core, complete or not there at all."""

import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from autoreid_fast.data.synthetic.camera import make_cameras
from autoreid_fast.data.synthetic.identity import sample_identities
from autoreid_fast.data.synthetic.photo import SUPERSAMPLING, Shot, take
from autoreid_fast.data.synthetic.plan import GALLERY, QUERY, TRAIN, SyntheticConfig, person_count, plan_shots
from autoreid_fast.data.synthetic.scene import draw_plate
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import write_json

MANIFEST = "synthetic.json"
VERSION = 1  # of the drawing: raise it when the same seed gives other pixels
CHUNK = 32


def generate(
    root: str | os.PathLike[str],
    config: SyntheticConfig,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> None:
    """Write the synthetic set as JPEG files in the Market-1501 layout under ``root``.

    ``root/synthetic.json`` (config, counts, a SHA-256 over all files) says that the set is complete: with the same
    config there is nothing to do, with another the set is replaced. What a killed run left is drawn again. The pixels
    depend on the config alone, not on the number of workers.

    Args:
        progress: called with (images done, images in all) as the work goes on.
        workers: processes to draw with; default one for each core this process may use.

    Raises:
        AutoReIDError: ``root`` holds something that is not a synthetic set.
    """
    root = Path(root).absolute()
    root.parent.mkdir(parents=True, exist_ok=True)
    with _alone(root):
        if _is_complete(root, config):
            return
        if root.exists() and not (root / MANIFEST).exists() and (not root.is_dir() or any(root.iterdir())):
            raise AutoReIDError(
                f"{root}: holds something other than a synthetic set; name an empty or new folder for it"
            )
        partial = _beside(root, "partial")
        shutil.rmtree(partial, ignore_errors=True)
        for folder in (TRAIN, QUERY, GALLERY):
            (partial / folder).mkdir(parents=True)
        shots = plan_shots(config)
        digest = hashlib.sha256()
        for done, part in enumerate(
            _draw_all(config, shots, partial, workers or len(os.sched_getaffinity(0)))
        ):
            digest.update(part)
            if progress is not None:
                progress(min((done + 1) * CHUNK, len(shots)), len(shots))
        manifest = {"version": VERSION, "config": config.model_dump(), "images": len(shots),
                    "fingerprint": digest.hexdigest()}  # fmt: skip
        write_json(partial / MANIFEST, manifest)
        if root.exists():
            old = _beside(root, "old")
            shutil.rmtree(old, ignore_errors=True)
            root.rename(old)
            partial.rename(root)
            shutil.rmtree(old)
        else:
            partial.rename(root)


def _beside(root: Path, what: str) -> Path:
    return root.with_name(f".{root.name}.{what}")


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Hold off other writers of the same root, and what is left of the workers of a killed one."""
    lock = _beside(root, "lock")
    with lock.open("a") as stream:
        fcntl.flock(
            stream, fcntl.LOCK_EX
        )  # shared with the forked workers: freed when the last of them is gone
        yield
        lock.unlink(missing_ok=True)


def _is_complete(root: Path, config: SyntheticConfig) -> bool:
    try:
        manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(manifest.get("version") == VERSION and manifest.get("config") == config.model_dump())


class _Studio:
    """What every image of a set shares; a chunk of shots goes in, files and their digest come out."""

    def __init__(self, config: SyntheticConfig, shots: list[Shot], folder: Path) -> None:
        self.config, self.shots, self.folder = config, shots, folder
        self.identities = sample_identities(person_count(config), config.seed)
        self.cameras = make_cameras(config.cameras, config.seed)
        unit = config.height * SUPERSAMPLING
        self.plates = [draw_plate(config.seed, camera + 1, unit) for camera in range(config.cameras)]

    def draw(self, first: int) -> bytes:
        digest = hashlib.sha256()
        config = self.config
        for index in range(first, min(first + CHUNK, len(self.shots))):
            shot = self.shots[index]
            rng = np.random.default_rng([config.seed, 9001, index])
            place = shot.camera - 1
            image = take(
                shot,
                rng,
                self.identities,
                self.cameras[place],
                self.plates[place],
                config.height,
                config.width,
            )
            (self.folder / shot.path).write_bytes(image)
            digest.update(shot.path.encode() + image)
        return digest.digest()


def _draw_all(config: SyntheticConfig, shots: list[Shot], folder: Path, workers: int) -> Iterator[bytes]:
    """The digest of each chunk of shots, in order."""
    studio = _Studio(config, shots, folder)
    chunks = range(0, len(shots), CHUNK)
    if workers == 1:
        yield from map(studio.draw, chunks)
        return
    # Forked, not spawned: the workers need NumPy and Pillow alone, which are loaded, and none of torch, whose import
    # takes longer than the drawing.
    with multiprocessing.get_context("fork").Pool(min(workers, len(chunks))) as pool:
        yield from pool.imap(studio.draw, chunks)
