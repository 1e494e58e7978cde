"""Taking one image: a person in the camera's place, with companions and obstacles."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from autoreid_fast.data.synthetic.camera import Camera, develop, encode
from autoreid_fast.data.synthetic.clothing import MATERIALS, palette
from autoreid_fast.data.synthetic.identity import Identity
from autoreid_fast.data.synthetic.person import draw_person, random_pose
from autoreid_fast.data.synthetic.scene import draw_bicycle, draw_pole, smooth_noise
from autoreid_fast.data.synthetic.solid import Canvas, View

Array = np.ndarray

SUPERSAMPLING = 2
ORIENTATIONS = 8
# Fractions of the images with another person, a bicycle or a pole in the box.
COMPANION_FRACTION, BICYCLE_FRACTION, POLE_FRACTION = 0.10, 0.09, 0.05


@dataclass(frozen=True)
class Shot:
    """Content of one image."""

    path: str  # relative to the root: folder/name.jpg
    person: int | None  # index of the identity; None for nobody
    camera: int  # from 1
    yaw: float  # radians, 0 faces the camera
    spot: float  # position across the camera's place, 0..1
    badly_cut: bool  # a false detection: half a person


def take(
    shot: Shot,
    rng: np.random.Generator,
    identities: list[Identity],
    camera: Camera,
    plate: Array,
    height: int,
    width: int,
) -> bytes:
    """Return the JPEG of one shot; ``plate`` is the camera's place, drawn by `scene.draw_plate`."""
    rows, columns = height * SUPERSAMPLING, width * SUPERSAMPLING
    view = _view(shot, rng, camera, rows, columns)
    scene = _cut(plate, rng, shot.spot, rows, columns)
    canvas = Canvas(rows, columns, camera.light)
    colours = np.zeros((2 * MATERIALS, 3), np.float32)
    if shot.person is not None:
        person = identities[shot.person]
        _cast_shadow(scene, view, camera)
        draw_person(canvas, view, person, random_pose(rng, person.stride))
        colours[:MATERIALS] = palette(person)
    if rng.random() < COMPANION_FRACTION * (3 if shot.badly_cut else 1):
        companion = identities[int(rng.integers(len(identities)))]
        beside = _beside(view, rng)
        _cast_shadow(scene, beside, camera)
        nearer = 1.0 if rng.random() < 0.4 else -1.0
        draw_person(canvas, beside, companion, random_pose(rng, companion.stride), MATERIALS, nearer)
        colours[MATERIALS:] = palette(companion)
    obstacle, in_front = rng.random(), rng.random() < 0.5
    bicycle = obstacle < BICYCLE_FRACTION * (1 if shot.person is not None else 4)
    if not in_front and bicycle:
        scene = draw_bicycle(scene, rng, view)
    _paint(scene, canvas, colours, rng)
    if in_front and bicycle:
        scene = draw_bicycle(scene, rng, view)
    elif obstacle > 1 - POLE_FRACTION:
        draw_pole(scene, rng)
    picture = Image.fromarray(scene).reduce(SUPERSAMPLING)
    return encode(develop(picture, camera, rng), camera, rng)


def _view(shot: Shot, rng: np.random.Generator, camera: Camera, rows: int, columns: int) -> View:
    """Draw the view of a person in a box that is not quite aligned."""
    zoom, across, down = rng.normal(0, 0.05), rng.normal(0, 0.06), rng.normal(0, 0.025)
    if shot.badly_cut:
        zoom = rng.uniform(0.1, 0.7)
        across, down = rng.choice([-1, 1]) * rng.uniform(0.2, 0.45), rng.normal(0, 0.3)
    unit = 0.90 * rows
    return View(
        scale=unit * float(np.exp(zoom)),
        column=columns * (0.5 + float(across)),
        row=rows * (0.965 + float(down)) + unit * float(np.exp(zoom) - 1) * 0.5,
        yaw=shot.yaw,
        tilt=camera.tilt,
        aspect=float(np.exp(rng.normal(0, 0.06))),
    )


def _beside(view: View, rng: np.random.Generator) -> View:
    """Draw the view of somebody next to the person in ``view``, in any orientation."""
    return View(
        scale=view.scale * float(rng.uniform(0.92, 1.05)),
        column=view.column + float(rng.choice([-1, 1]) * rng.uniform(0.22, 0.42)) * view.scale,
        row=view.row + float(rng.normal(0, 0.03)) * view.scale,
        yaw=float(rng.uniform(0, 2 * np.pi)),
        tilt=view.tilt,
        aspect=view.aspect,
    )


def _cut(plate: Array, rng: np.random.Generator, spot: float, rows: int, columns: int) -> Array:
    top = int(rng.uniform(0, 1) * (plate.shape[0] - rows))
    left = int(np.clip(spot + rng.normal(0, 0.05), 0, 1) * (plate.shape[1] - columns))
    return plate[top : top + rows, left : left + columns].copy()


def _cast_shadow(scene: Array, view: View, camera: Camera) -> None:
    """Darken the ground at the person's feet, away from the light."""
    reach = 0.07 * view.scale
    y0, y1 = max(int(view.row - reach), 0), min(int(view.row + reach), scene.shape[0])
    if y0 >= y1:
        return
    y = (np.arange(y0, y1, dtype=np.float32)[:, None] - np.float32(view.row)) / np.float32(reach)
    centre = view.column - camera.light * 0.18 * view.scale
    x = (np.arange(scene.shape[1], dtype=np.float32)[None, :] - np.float32(centre)) / np.float32(
        0.34 * view.scale
    )
    dark = 1 - np.float32(camera.shadow) * np.clip(1.3 * (1 - x * x - y * y), 0, 1)
    scene[y0:y1] = (scene[y0:y1] * dark[..., None]).astype(np.uint8)


@cache
def _folds(rows: int, columns: int) -> Array:
    """Return the shading of creased cloth, factors around 1, twice the picture's size."""
    rng = np.random.default_rng(11)
    shape = (2 * rows, 2 * columns)
    creases = smooth_noise(rng, shape, rows / 24) + 0.6 * smooth_noise(rng, shape, rows / 60)
    return (1 + 0.07 * np.clip(creases, -2.5, 2.5)).astype(np.float32).ravel()


def _paint(scene: Array, canvas: Canvas, colours: Array, rng: np.random.Generator) -> None:
    """Paint the canvas over the scene, (rows, columns, 3) uint8."""
    rows, columns = canvas.material.shape
    drawn = np.flatnonzero(canvas.material)
    start = int(rng.integers(rows * 2)) * columns
    light = canvas.shade.ravel()[drawn] * _folds(rows, columns)[drawn + start]
    cloth = colours[canvas.material.ravel()[drawn]] * (light * np.float32(255))[:, None]
    scene.reshape(-1, 3)[drawn] = np.minimum(cloth, 255).astype(np.uint8)
