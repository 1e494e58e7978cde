"""MSMT17 (Wei et al., CVPR 2018), V1 and V2 (the same images with blurred faces), as released."""

import re
from pathlib import Path

from autoreid_fast.data.config import DataConfig, register_dataset
from autoreid_fast.data.dataset import Dataset, ImageRecord, require_parsed
from autoreid_fast.data.images import files_below, require_layout
from autoreid_fast.errors import AutoReIDError

LAYOUT = (
    "train/ and test/ (V1) or mask_train_v2/ and mask_test_v2/ (V2), "
    "list_train.txt, list_val.txt, list_query.txt and list_gallery.txt"
)
LINE = re.compile(r"(?P<path>/?(?:[^/]+/)*[^_/]+_[^_/]+_(?P<camera>\d{1,9})_[^/]*[^/\s])\s+(?P<pid>\d{1,9})")
FOLDERS = {"v1": ("train", "test"), "v2": ("mask_train_v2", "mask_test_v2")}
BELOW_FOLDERS = tuple(f"{folder}/" for folders in FOLDERS.values() for folder in folders)


class Msmt17Config(DataConfig):
    """MSMT17 on disk, V1 or V2."""


@register_dataset("msmt17")
def read_msmt17(config: Msmt17Config) -> Dataset:
    """MSMT17 (V1 or V2): 32,621 images to train, 11,659 queries, a gallery of 82,161.

    ``train`` is list_train and list_val together, as is usual. The lists number people from 0, in training
    and test alike, and pid 0 means a distractor here: the pid is the list's number plus 1. The same pid in
    training and test means two different people.

    Raises:
        AutoReIDError: ``root`` is not set, a folder or a list is missing, a path leaves the data set, or no
            line can be parsed.
    """
    root = config.root_folder
    version = "v2" if (root / FOLDERS["v2"][0]).is_dir() else "v1"
    train_folder, test_folder = FOLDERS[version]
    sources = {
        "list_train.txt": train_folder,
        "list_val.txt": train_folder,
        "list_query.txt": test_folder,
        "list_gallery.txt": test_folder,
    }
    require_layout(root, (train_folder, test_folder, *sources), LAYOUT)
    unparsed: list[str] = []
    train, val, query, gallery = (_read_list(root / name, sources[name], unparsed) for name in sources)
    parsed = len(train) + len(val) + len(query) + len(gallery)
    require_parsed(root, unparsed, parsed, "0000/0000_000_01_0303morning_0015_0.jpg 0")
    return Dataset(
        name=f"msmt17-{version}",
        root=root,
        train=tuple(train + val),
        query=tuple(query),
        gallery=tuple(gallery),
        read_image=files_below(root),
        unparsed=tuple(unparsed),
        one_numbering=False,
    )


def _read_list(path: Path, folder: str, unparsed: list[str]) -> list[ImageRecord]:
    records = []
    for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines():
        entry = line.strip().replace("\\", "/").removeprefix(f"{folder}/")
        match = None if entry.startswith(BELOW_FOLDERS) else LINE.fullmatch(entry)  # of the other half
        if match:
            if match["path"].startswith("/") or ".." in match["path"].split("/"):
                raise AutoReIDError(
                    f"{path}: {match['path']} lies outside of the data set: expected a path below {folder}/; "
                    "use the list of the release"
                )
            record = ImageRecord(f"{folder}/{match['path']}", int(match["pid"]) + 1, int(match["camera"]))
            records.append(record)
        elif line.strip():
            unparsed.append(f"{path.name}: {line.strip()}")
    return records
