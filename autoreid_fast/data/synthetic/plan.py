"""Plan of the images: identities, cameras and file names, distributed like those of Market-1501."""

import numpy as np
from pydantic import Field

from autoreid_fast.data.synthetic.photo import ORIENTATIONS, Shot
from autoreid_fast.schema import Config

TRAIN, QUERY, GALLERY = "bounding_box_train", "query", "bounding_box_test"


class SyntheticConfig(Config):
    """Size and seed of a synthetic data set."""

    train_identities: int = Field(64, ge=2, le=9000, description="People to train on (Market-1501: 751).")
    test_identities: int = Field(64, ge=2, le=9000, description="People to query (Market-1501: 750).")
    cameras: int = Field(6, ge=2, le=99, description="Cameras (Market-1501: 6).")
    images_per_camera: float = Field(
        3.0,
        ge=2,
        le=50,
        description="Mean number of images per person and camera that sees the person (Market-1501: 3.9); "
        "at least two cameras see each person, and the counts vary.",
    )
    camera_share: float = Field(
        0.74, gt=0, le=1, description="Fraction of the cameras that see a person (Market-1501: 0.74)."
    )
    junk: int = Field(
        100, ge=0, le=10_000_000, description="Gallery images with pid -1: badly cut boxes of test people."
    )
    distractors: int = Field(
        100, ge=0, le=10_000_000, description="Gallery images with pid 0: background and parts of strangers."
    )
    height: int = Field(128, ge=32, le=1024, description="Height of the images in pixels (Market-1501: 128).")
    width: int = Field(64, ge=16, le=512, description="Width of the images in pixels (Market-1501: 64).")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Seed; the same seed gives the same pixels.")


def person_count(config: SyntheticConfig) -> int:
    """Count the identities to sample: to train on and to query, each rounded up to pairs, and strangers.

    The strangers, a tenth of the others, appear in distractors only.
    """
    return (
        _even(config.train_identities)
        + _even(config.test_identities)
        + max(2, (config.train_identities + config.test_identities) // 10)
    )


def plan_shots(config: SyntheticConfig) -> list[Shot]:
    """List every image of the data set in a fixed order; nothing is drawn yet."""
    rng = np.random.default_rng([config.seed, 3001])
    train, test = config.train_identities, config.test_identities
    pids = rng.permutation(train + test) + 1  # pids reveal neither pairs nor splits
    weights = rng.uniform(0.5, 1.5, config.cameras)
    shots: list[Shot] = []
    for index in range(train):
        shots += _follow(rng, config, weights, index, int(pids[index]), training=True)
    first_test = _even(train)  # index of the first identity to test on
    for index in range(test):
        shots += _follow(rng, config, weights, first_test + index, int(pids[train + index]), training=False)
    strangers = np.arange(first_test + _even(test), person_count(config))
    for number in range(config.junk):
        person = first_test + int(rng.integers(test))
        shots.append(_background(rng, config, "-1", number, person))
    for number in range(config.distractors):
        stranger = int(rng.choice(strangers)) if rng.random() < 0.5 else None
        shots.append(_background(rng, config, "0000", number, stranger))
    return shots


def _even(count: int) -> int:
    return count + count % 2


def _yaw(rng: np.random.Generator) -> float:
    return float(rng.integers(ORIENTATIONS) * 2 * np.pi / ORIENTATIONS + rng.normal(0, 0.13))


def _follow(
    rng: np.random.Generator,
    config: SyntheticConfig,
    weights: np.ndarray,
    person: int,
    pid: int,
    training: bool,
) -> list[Shot]:
    """Plan the images of one person: a few per camera; for a test person, each camera's first is a query."""
    seen = max(2, int(rng.binomial(config.cameras, config.camera_share)))
    cameras = np.sort(rng.choice(config.cameras, seen, replace=False, p=weights / weights.sum()))
    sequence = int(rng.integers(1, 7))
    frame = int(rng.integers(0, 90000))
    shots = []
    for camera in cameras:
        least = 1 if training else 2  # a query needs a match in the gallery
        count = least + int(rng.poisson(max(config.images_per_camera - least, 0)))
        heading, spot = _yaw(rng), float(rng.random())
        for number in range(count):
            if rng.random() < 0.35:  # the person turns
                heading = _yaw(rng)
            folder = TRAIN if training else (QUERY if number == 0 else GALLERY)
            box = 0 if folder == QUERY else 1 + int(rng.integers(5))
            name = f"{pid:04d}_c{camera + 1}s{sequence}_{frame:06d}_{box:02d}.jpg"
            shots.append(Shot(f"{folder}/{name}", person, int(camera) + 1, heading, spot, badly_cut=False))
            frame += 25 * int(rng.integers(1, 4))
            spot = float(np.clip(spot + rng.normal(0, 0.06), 0, 1))
    return shots


def _background(
    rng: np.random.Generator, config: SyntheticConfig, pid: str, number: int, person: int | None
) -> Shot:
    camera = int(rng.integers(config.cameras)) + 1
    name = (
        f"{pid}_c{camera}s{int(rng.integers(1, 7))}_{100 + 25 * number:06d}_{int(rng.integers(1, 9)):02d}.jpg"
    )
    return Shot(f"{GALLERY}/{name}", person, camera, _yaw(rng), float(rng.random()), badly_cut=True)
