"""Walking folders of images: which files are read, and a log of what is left out."""

import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from autoreid_fast.data.dataset import some

log = logging.getLogger(__name__)

EXTENSIONS = frozenset({".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"})
"""Extensions of images that are read."""
OTHER_EXTENSIONS = frozenset(
    {".jp2", ".jxl", ".heic", ".heif", ".avif", ".gif", ".tga", ".pgm", ".dng", ".nef"}
)
"""Extensions of images that are not read."""
SYSTEM_FOLDERS = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN"})
"""Folders of copies, previews and deleted files, besides those whose name starts with a dot."""


def list_images(folder: Path) -> list[str]:
    """Return the sorted names of the images directly in ``folder``; log what is left out."""
    walk = _Walk(folder)
    names = list(walk.images_in(folder))
    walk.report()
    return names


def images_below(root: Path) -> list[str]:
    """Return the sorted posix paths, relative to ``root``, of all images below it.

    Links are followed, but each folder is read once, by its own path if it lies below ``root``. Left out and
    logged are hidden folders and images, links to folders that are read already, pipes and devices, and
    images with an extension that is not read.
    """
    walk = _Walk(root)
    start = len(str(root)) + 1
    paths = sorted(path[start:] for path in walk.images_below())
    walk.report()
    return paths


def visible_folders(folder: Path) -> list[str]:
    """Return the sorted names of the folders in ``folder``, without hidden ones."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if _is_folder(entry) and not _is_hidden(entry.name))


class _Walk:
    """One walk: what it leaves out, by reason."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._links: list[str] = []
        self._left_out: dict[str, list[str]] = {}

    def images_below(self) -> Iterator[str]:
        """Yield the paths of all images: first those of real folders, as links give them other paths."""
        visited: set[tuple[int, int]] = set()
        self._links = [str(self._root)]
        while self._links:
            folders = [self._links.pop(0)]
            if _identity(folders[0]) in visited:
                self._leave_out("links to folders that are read already", folders[0])
                continue
            while folders:
                folder = folders.pop()
                visited.add(_identity(folder))
                try:
                    yield from (f"{folder}/{name}" for name in self.images_in(folder, folders))
                except PermissionError:
                    self._leave_out("folders that cannot be read", folder)

    def images_in(self, folder: str | Path, folders: list[str] | None = None) -> Iterator[str]:
        """Yield the names of the images in ``folder``; add its subfolders to ``folders``, or to the links."""
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if not _is_folder(entry):
                    if self._is_image(entry):
                        yield entry.name
                elif _is_hidden(entry.name):
                    self._leave_out("hidden folders", entry.path)
                elif folders is not None:
                    (self._links if entry.is_symlink() else folders).append(entry.path)

    def _is_image(self, entry: os.DirEntry[str]) -> bool:
        """Return whether to read a file; links to nothing are read, so that they count as unreadable."""
        extension = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - called for 500,000 names
        if extension not in EXTENSIONS | OTHER_EXTENSIONS:
            return False
        if _is_hidden(entry.name):
            self._leave_out("hidden images", entry.path)
        elif extension in OTHER_EXTENSIONS:
            self._leave_out(f"{extension} images, which are not read (convert them to .jpg)", entry.path)
        elif _is_special(entry):
            self._leave_out("pipes, sockets and devices", entry.path)
        else:
            return True
        return False

    def _leave_out(self, reason: str, path: str) -> None:
        self._left_out.setdefault(reason, []).append(os.path.relpath(path, self._root))

    def report(self) -> None:
        """Log what was left out, one line per reason."""
        for reason, paths in sorted(self._left_out.items()):
            log.warning("%s: left out %d %s: %s", self._root, len(paths), reason, some(sorted(paths)))


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)  # noqa: PTH116 - called for each folder of a large tree
    return status.st_dev, status.st_ino


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in SYSTEM_FOLDERS


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):  # a link to itself
        return entry.is_dir()
    return False


def _is_special(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry exists and is no regular file."""
    with suppress(OSError):
        return not entry.is_file() and os.path.exists(entry.path)  # noqa: PTH110
    return False
