"""A folder of images as a gallery to search in, with nothing known about them."""

from pathlib import Path

from autoreid_fast.data.dataset import DISTRACTOR, Dataset, ImageRecord
from autoreid_fast.data.images import files_below, require_folder
from autoreid_fast.data.walk import images_below
from autoreid_fast.errors import AutoReIDError


def read_gallery(root: Path) -> Dataset:
    """Read every image below ``root`` as gallery; identities and cameras are unknown.

    Raises:
        AutoReIDError: no such folder, or no image below it.
    """
    require_folder(root, "the gallery, a folder of images")
    paths = images_below(root)
    if not paths:
        raise AutoReIDError(f"{root}: no image below it; the gallery is a folder of images")
    gallery = tuple(ImageRecord(path, DISTRACTOR, 0) for path in paths)
    return Dataset(root.resolve().name, root, (), (), gallery, files_below(root, upright=True))
