"""Tiny data sets with the layouts and file names of the releases."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image

WritePicture = Callable[..., Path]


def picture(seed: int, height: int = 128, width: int = 64) -> np.ndarray:
    """Draw smooth colour noise, (height, width, 3) uint8, different for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="session")
def write_picture() -> WritePicture:
    """Write ``picture(seed)`` to a path, in the given format or that of its extension."""

    def write(path: Path, seed: int = 0, **options: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(seed)).save(path, **options)
        return path

    return write


@pytest.fixture
def market_root(tmp_path: Path, write_picture: WritePicture) -> Path:
    """Market-1501: 3 people to train; 2 to test, each queried from cameras 1 and 2; junk and distractors."""
    root = tmp_path / "Market-1501-v15.09.15"
    names = {
        "bounding_box_train": [f"{p:04d}_c{c}s1_00{p}05{c}_0{c}.jpg" for p in (2, 7, 10) for c in (1, 2, 6)],
        "query": [f"{p:04d}_c{c}s1_00{p}15{c}_00.jpg" for p in (1, 3) for c in (1, 2)],
        "bounding_box_test": [f"{p:04d}_c{c}s2_00{p}25{c}_0{c}.jpg" for p in (1, 3) for c in (1, 2, 3)]
        + ["-1_c1s1_000401_03.jpg", "-1_c3s2_000401_03.jpg"]
        + ["0000_c1s1_000151_01.jpg", "0000_c2s1_000151_02.jpg.jpg", "0000_c6s3_000151_01.jpg"],
    }
    for folder, files in names.items():
        for number, name in enumerate(files):
            write_picture(root / folder / name, number + 100 * len(folder), format="JPEG")
        (root / folder / "Thumbs.db").write_bytes(b"the release has these")
    (root / "readme.txt").write_text("Market-1501\n")
    return root


@pytest.fixture
def cuhk03_root(tmp_path: Path) -> Path:
    """CUHK03: 2 people in each of the camera pairs 1 and 2, person 2 of pair 1 without images of view 2.

    ``cuhk-03.mat`` is HDF5 as MATLAB v7.3 writes it: nested cells of object references, arrays transposed,
    empty cells as uint64 sizes with the attribute MATLAB_empty. Image (pair, person, number) of box type b
    has the constant colour (10 pair + person, number, 100 b), height 60 + number and width 30 + person.
    """
    root = tmp_path / "cuhk03"
    root.mkdir()
    with h5py.File(root / "cuhk-03.mat", "w") as file:
        for boxes_index, boxes in enumerate(("labeled", "detected")):
            pairs = file.create_dataset(boxes, (1, 5), h5py.ref_dtype)
            pairs.attrs["MATLAB_class"] = np.bytes_("cell")
            for pair in range(1, 6):
                people = 2 if pair <= 2 else 1
                cells = file.create_dataset(f"#refs#/{boxes}{pair}", (10, people), h5py.ref_dtype)
                for person in range(1, people + 1):
                    for number in range(1, 11):
                        name = f"#refs#/{boxes}{pair}_{person}_{number}"
                        if pair > 2 or (number > 5 and (pair, person) == (1, 2)) or number in (5, 10):
                            image = file.create_dataset(name, data=np.zeros(2, np.uint64))
                            image.attrs["MATLAB_empty"] = np.uint8(1)
                        else:
                            pixels = np.empty((60 + number, 30 + person, 3), np.uint8)
                            pixels[:] = 10 * pair + person, number, 100 * boxes_index
                            image = file.create_dataset(name, data=pixels.T)
                        cells[number - 1, person - 1] = image.ref
                pairs[0, pair - 1] = cells.ref
    for boxes in ("labeled", "detected"):
        write_cuhk03_config(root / f"cuhk03_new_protocol_config_{boxes}.mat")
    return root


CUHK03_NAMES = [
    *["1_001_1_01.png", "1_001_1_02.png", "1_001_2_06.png"],  # identity 1: indices 1, 2, 3
    *["1_002_1_01.png", "1_002_1_03.png"],  # identity 2, one view only: 4, 5
    *["2_001_1_01.png", "2_001_2_06.png", "2_001_2_07.png"],  # identity 3: 6, 7, 8
    *["2_002_1_04.png", "2_002_2_09.png"],  # identity 4: 9, 10
]


def write_cuhk03_config(path: Path, **changes: object) -> None:
    """Write a file of the new protocol: a column cell of names, column vectors, indices from 1."""
    filelist = np.empty((len(CUHK03_NAMES), 1), dtype=object)
    filelist[:, 0] = CUHK03_NAMES
    content: dict[str, object] = {
        "filelist": filelist,
        "labels": np.array([[1, 1, 1, 2, 2, 3, 3, 3, 4, 4]], np.float64).T,
        "camId": np.array([[1, 1, 2, 1, 1, 1, 2, 2, 1, 2]], np.float64).T,
        "train_idx": np.array([[1, 2, 3, 4, 5]], np.uint16).T,
        "query_idx": np.array([[6, 9]], np.uint16).T,
        "gallery_idx": np.array([[7, 8, 10]], np.uint16).T,
    }
    scipy.io.savemat(path, {name: value for name, value in (content | changes).items() if value is not None})


@pytest.fixture(scope="session")
def cuhk03_config() -> Callable[..., None]:
    """``write_cuhk03_config``, for tests that damage the file."""
    return write_cuhk03_config


@pytest.fixture(params=["v1", "v2"])
def msmt17_root(request: pytest.FixtureRequest, tmp_path: Path, write_picture: WritePicture) -> Path:
    """MSMT17, both versions: people 0-2 to train, 0-1 to test; list_val has one image of each."""
    root = tmp_path / f"MSMT17_{request.param}"
    train, test = {"v1": ("train", "test"), "v2": ("mask_train_v2", "mask_test_v2")}[request.param]

    def write(folder: str, listing: str, images: list[tuple[int, int, int]]) -> None:
        lines = []
        for pid, number, camera in images:
            name = f"{pid:04d}/{pid:04d}_{number:03d}_{camera:02d}_0303morning_00{camera:02d}_{number}.jpg"
            write_picture(root / folder / name, 1000 * pid + number)
            lines.append(f"{name} {pid}\n")
        (root / listing).write_text("".join(lines))

    write(train, "list_train.txt", [(pid, n, c) for pid in range(3) for n, c in enumerate((1, 4, 14))])
    write(train, "list_val.txt", [(pid, 9, 15) for pid in range(3)])
    write(test, "list_query.txt", [(0, 0, 1), (1, 0, 12)])
    write(test, "list_gallery.txt", [(0, 1, 2), (0, 2, 1), (1, 1, 13)])
    return root
