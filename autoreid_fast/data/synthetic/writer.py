"""Writing the data set: drawn on all cores, and either complete or absent."""

import fcntl
import hashlib
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
from pydantic import JsonValue

from autoreid_fast.data.synthetic.camera import make_cameras
from autoreid_fast.data.synthetic.identity import sample_identities
from autoreid_fast.data.synthetic.photo import SUPERSAMPLING, Shot, take
from autoreid_fast.data.synthetic.plan import GALLERY, QUERY, TRAIN, SyntheticConfig, person_count, plan_shots
from autoreid_fast.data.synthetic.scene import draw_plate
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import cannot_write, write_json
from autoreid_fast.schema import read_json
from autoreid_fast.stopping import SIGNALS

MANIFEST = "synthetic.json"
VERSION = 1  # increase it when the same seed gives other pixels
CHUNK = 32


def generate(
    root: str | os.PathLike[str],
    config: SyntheticConfig,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> None:
    """Write a synthetic data set as JPEG files in the layout of Market-1501 under ``root``.

    ``root/synthetic.json`` (config, number of images, SHA-256 over all files) marks a complete data set. With
    the same config there is nothing to do; with another one the data set is replaced. The files of a killed
    run are drawn again. The pixels depend only on the config and the builds of NumPy and Pillow, not on the
    number of workers.

    Args:
        root: Folder to write.
        config: What to draw.
        progress: Called with the number of images done and the total.
        workers: Processes that draw; default: one per core that this process may use.

    Raises:
        AutoReIDError: ``root`` holds something other than a synthetic data set.

    Examples:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from autoreid_fast.data.synthetic import SyntheticConfig, generate
        >>> config = SyntheticConfig(train_identities=2, test_identities=2, cameras=2, junk=1, distractors=1)
        >>> with TemporaryDirectory() as folder:
        ...     generate(Path(folder) / "people", config)
        ...     sorted(path.name for path in (Path(folder) / "people").iterdir())
        ['bounding_box_test', 'bounding_box_train', 'query', 'synthetic.json']
    """
    root = Path(root).resolve()
    root.parent.mkdir(parents=True, exist_ok=True)
    partial, old = _beside(root, "partial"), _beside(root, "old")
    with _locked(root):
        for leftover in (partial, old):
            shutil.rmtree(leftover, ignore_errors=True)
        if _is_complete(root, config):
            return
        if root.exists() and not (root / MANIFEST).exists() and (not root.is_dir() or any(root.iterdir())):
            raise AutoReIDError(
                f"{root}: holds something other than a synthetic data set; choose a new or empty folder"
            )
        for folder in (TRAIN, QUERY, GALLERY):
            (partial / folder).mkdir(parents=True)
        shots = plan_shots(config)
        digest = hashlib.sha256()
        for number, chunk_digest in enumerate(_draw_all(_Studio(config, shots, partial), workers)):
            digest.update(chunk_digest)
            if progress is not None:
                progress(min((number + 1) * CHUNK, len(shots)), len(shots))
        manifest = {"version": VERSION, "config": config.model_dump(), "images": len(shots)}
        write_json(partial / MANIFEST, {**manifest, "fingerprint": digest.hexdigest()})
        if root.exists():
            root.rename(old)
        partial.rename(root)
        shutil.rmtree(old, ignore_errors=True)


def _beside(root: Path, suffix: str) -> Path:
    return root.with_name(f".{root.name}.{suffix}")


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Keep out other writers of ``root``, also the workers that a killed writer left behind."""
    lock = _beside(root, "lock")
    with lock.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # forked workers share it: released when the last one ends
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _is_complete(root: Path, config: SyntheticConfig) -> bool:
    try:
        manifest = read_json(root / MANIFEST, dict[str, JsonValue])
    except AutoReIDError:
        return False
    return bool(manifest.get("version") == VERSION and manifest.get("config") == config.model_dump())


class _Studio:
    """Everything that the images of a data set have in common: identities, cameras and their places."""

    def __init__(self, config: SyntheticConfig, shots: list[Shot], folder: Path) -> None:
        self.config, self.shots, self.folder = config, shots, folder
        self.chunks = -(-len(shots) // CHUNK)
        self.identities = sample_identities(person_count(config), config.seed)
        self.cameras = make_cameras(config.cameras, config.seed)
        unit = config.height * SUPERSAMPLING
        self.plates = [draw_plate(config.seed, camera + 1, unit) for camera in range(config.cameras)]

    def draw(self, chunk: int) -> bytes:
        """Write the images of one chunk and return their digest."""
        digest = hashlib.sha256()
        size = self.config.height, self.config.width
        for index in range(chunk * CHUNK, min((chunk + 1) * CHUNK, len(self.shots))):
            shot = self.shots[index]
            rng = np.random.default_rng([self.config.seed, 9001, index])
            number = shot.camera - 1
            image = take(shot, rng, self.identities, self.cameras[number], self.plates[number], *size)
            path = self.folder / shot.path
            try:
                path.write_bytes(image)
            except OSError as error:  # on a full disk it names no file
                raise cannot_write(path, error) from None
            digest.update(shot.path.encode() + image)
        return digest.digest()


def _draw_all(studio: _Studio, workers: int | None) -> Iterator[bytes]:
    """Yield the digest of each chunk in order; worker w of n draws the chunks w, w + n, w + 2n, ..."""
    workers = min(workers or len(os.sched_getaffinity(0)), studio.chunks)
    if workers == 1:
        yield from map(studio.draw, range(studio.chunks))
        return
    # Forked, not spawned: the workers need only NumPy and Pillow, which are loaded; importing torch again
    # would take longer than the drawing.
    context = multiprocessing.get_context("fork")
    processes: list[tuple[Connection, BaseProcess]] = []
    try:
        for worker in range(workers):
            reader, writer = context.Pipe(duplex=False)
            chunks = range(worker, studio.chunks, workers)
            process: BaseProcess = context.Process(
                target=_work, args=(studio, chunks, reader, writer), daemon=True
            )
            # A signal waits until the worker has its own handlers, or it would run those of the parent.
            unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            process.start()
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
            writer.close()
            processes.append((reader, process))
        for chunk in range(studio.chunks):
            try:
                digest = processes[chunk % workers][0].recv()
            except EOFError:
                raise RuntimeError(
                    "a process that draws the synthetic data set was killed, perhaps for lack of memory"
                ) from None
            if isinstance(digest, Exception):
                raise digest
            yield digest
    finally:
        for reader, process in processes:
            process.terminate()
            process.join()
            reader.close()


def _work(studio: _Studio, chunks: range, reader: Connection, writer: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # in place of the parent's handler
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    reader.close()  # so that the parent's death breaks the pipe and ends this process too
    try:
        for chunk in chunks:
            writer.send(studio.draw(chunk))
    except BrokenPipeError:
        pass
    except Exception as error:
        writer.send(error)
