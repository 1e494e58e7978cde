"""Writing the set: drawn by every core, complete or not there at all."""

import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
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

    ``root/synthetic.json`` (config, count, a SHA-256 over all files) says that the set is complete: with the
    same config there is nothing to do, with another the set is replaced. What a killed run left is drawn
    again. The pixels depend on the config (and the builds of NumPy and Pillow) alone,
    not on the number of workers.

    Args:
        progress: called with (images done, images in all) as the work goes on.
        workers: processes to draw with; default one for each core this process may use.

    Raises:
        AutoReIDError: ``root`` holds something that is not a synthetic set.
    """
    root = Path(root).resolve()
    root.parent.mkdir(parents=True, exist_ok=True)
    partial, old = _beside(root, "partial"), _beside(root, "old")
    with _alone(root):
        for left_behind in (partial, old):
            shutil.rmtree(left_behind, ignore_errors=True)
        if _is_complete(root, config):
            return
        if root.exists() and not (root / MANIFEST).exists() and (not root.is_dir() or any(root.iterdir())):
            raise AutoReIDError(
                f"{root}: holds something other than a synthetic set; name a new or empty folder for it"
            )
        for folder in (TRAIN, QUERY, GALLERY):
            (partial / folder).mkdir(parents=True)
        shots = plan_shots(config)
        digest = hashlib.sha256()
        for number, part in enumerate(_draw_all(_Studio(config, shots, partial), workers)):
            digest.update(part)
            if progress is not None:
                progress(min((number + 1) * CHUNK, len(shots)), len(shots))
        manifest = {"version": VERSION, "config": config.model_dump(), "images": len(shots)}
        write_json(partial / MANIFEST, {**manifest, "fingerprint": digest.hexdigest()})
        if root.exists():
            root.rename(old)
        partial.rename(root)
        shutil.rmtree(old, ignore_errors=True)


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
        try:
            yield
        finally:
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
        self.chunks = -(-len(shots) // CHUNK)
        self.identities = sample_identities(person_count(config), config.seed)
        self.cameras = make_cameras(config.cameras, config.seed)
        unit = config.height * SUPERSAMPLING
        self.plates = [draw_plate(config.seed, camera + 1, unit) for camera in range(config.cameras)]

    def draw(self, chunk: int) -> bytes:
        digest = hashlib.sha256()
        size = self.config.height, self.config.width
        for index in range(chunk * CHUNK, min((chunk + 1) * CHUNK, len(self.shots))):
            shot = self.shots[index]
            rng = np.random.default_rng([self.config.seed, 9001, index])
            place = shot.camera - 1
            image = take(shot, rng, self.identities, self.cameras[place], self.plates[place], *size)
            (self.folder / shot.path).write_bytes(image)
            digest.update(shot.path.encode() + image)
        return digest.digest()


def _draw_all(studio: _Studio, workers: int | None) -> Iterator[bytes]:
    """The digest of each chunk, in order; worker w of n draws the chunks w, w + n, w + 2n, ..."""
    workers = min(workers or len(os.sched_getaffinity(0)), studio.chunks)
    if workers == 1:
        yield from map(studio.draw, range(studio.chunks))
        return
    # Forked, not spawned: the workers need NumPy and Pillow alone, which are loaded, and none of torch, whose
    # import takes longer than the drawing.
    context = multiprocessing.get_context("fork")
    crew: list[tuple[Connection, BaseProcess]] = []
    try:
        for worker in range(workers):
            reader, writer = context.Pipe(duplex=False)
            share = range(worker, studio.chunks, workers)
            process: BaseProcess = context.Process(
                target=_work, args=(studio, share, reader, writer), daemon=True
            )
            process.start()
            writer.close()
            crew.append((reader, process))
        for chunk in range(studio.chunks):
            try:
                part = crew[chunk % workers][0].recv()
            except EOFError:
                raise RuntimeError(
                    "a process that draws the synthetic set was killed (out of memory?)"
                ) from None
            if isinstance(part, Exception):
                raise part
            yield part
    finally:
        for reader, process in crew:
            process.terminate()
            process.join()
            reader.close()


def _work(studio: _Studio, share: range, reader: Connection, writer: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers,
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # whose own handler they would have otherwise
    reader.close()  # so that the death of the parent breaks the pipe, and ends this process too
    try:
        for chunk in share:
            writer.send(studio.draw(chunk))
    except BrokenPipeError:
        pass
    except Exception as error:
        writer.send(error)
