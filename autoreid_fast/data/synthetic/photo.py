"""One image from its shot: the person in the camera's place, with what stands in the way, as the camera sees it."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from autoreid_fast.data.synthetic.camera import Camera, develop, encode
from autoreid_fast.data.synthetic.clothing import MATERIALS, palette
from autoreid_fast.data.synthetic.identity import Identity
from autoreid_fast.data.synthetic.person import draw_person, random_pose
from autoreid_fast.data.synthetic.scene import draw_bicycle
from autoreid_fast.data.synthetic.solid import Canvas, View

Array = np.ndarray

SUPERSAMPLING = 2
BESIDE_SHARE, BICYCLE_SHARE, POLE_SHARE = (
    0.10,
    0.09,
    0.05,
)  # of images with somebody or something else in the box
ORIENTATIONS = 8


@dataclass(frozen=True)
class Shot:
    """What one image shows. ``person`` indexes the identities; None is an empty place; ``camera`` counts from 1."""

    path: str  # below the root, folder/name.jpg
    person: int | None
    camera: int
    yaw: float  # radians, 0 faces the camera
    spot: float  # 0..1 across the camera's place
    spoilt: bool  # a box that a detector got wrong: half a person


def take(
    shot: Shot, rng: np.random.Generator, identities: list[Identity], camera: Camera, plate: Array,
    height: int, width: int,
) -> bytes:  # fmt: skip
    """The JPEG of one shot; ``plate`` is the camera's place (`scene.draw_plate`)."""
    rows, columns = height * SUPERSAMPLING, width * SUPERSAMPLING
    unit = 0.90 * rows
    top = int(rng.uniform(0, 1) * (plate.shape[0] - rows))
    left = int(np.clip(shot.spot + rng.normal(0, 0.05), 0, 1) * (plate.shape[1] - columns))
    background = Image.fromarray(plate[top : top + rows, left : left + columns])
    canvas = Canvas(rows, columns, camera.light)
    zoom, across, down = rng.normal(0, 0.05), rng.normal(0, 0.05), rng.normal(0, 0.025)
    if shot.spoilt:
        zoom, across, down = (
            rng.uniform(0.1, 0.7),
            rng.choice([-1, 1]) * rng.uniform(0.2, 0.45),
            rng.normal(0, 0.3),
        )
    view = View(
        scale=unit * float(np.exp(zoom)),
        column=columns * (0.5 + float(across)),
        row=rows * (0.965 + float(down)) + unit * float(np.exp(zoom) - 1) * 0.5,
        yaw=shot.yaw,
        tilt=camera.tilt,
        aspect=float(np.exp(rng.normal(0, 0.06))),
    )
    colours = np.zeros((2 * MATERIALS, 3), np.float32)
    ground = np.ones((rows, columns, 1), np.float32)
    if shot.person is not None:
        person = identities[shot.person]
        draw_person(canvas, view, person, random_pose(rng, person.stride))
        colours[:MATERIALS] = palette(person)
        _cast_shadow(ground, view, camera)
    if rng.random() < BESIDE_SHARE * (3 if shot.spoilt else 1):
        other = identities[int(rng.integers(len(identities)))]
        step = float(rng.choice([-1, 1]) * rng.uniform(0.22, 0.42)) * view.scale
        beside = View(view.scale * float(rng.uniform(0.92, 1.05)), view.column + step, view.row + float(rng.normal(0, 6)),
                      float(rng.uniform(0, 2 * np.pi)), camera.tilt, view.aspect)  # fmt: skip
        draw_person(
            canvas, beside, other, random_pose(rng, other.stride), MATERIALS, float(rng.choice([-1.0, 1.0]))
        )
        colours[MATERIALS:] = palette(other)
        _cast_shadow(ground, beside, camera)
    occluder = rng.random()
    wheel = (
        view.column - view.scale * float(rng.uniform(0.1, 0.75)),
        view.row + view.scale * float(rng.uniform(-0.05, 0.08)),
    )
    paint = tuple(int(v) for v in rng.uniform(20, 190, 3))
    bicycle = occluder < BICYCLE_SHARE * (1 if shot.person is not None else 4)
    if bicycle and rng.random() < 0.5:
        draw_bicycle(background, *wheel, view.scale, paint)
        bicycle = False
    cloth = colours[canvas.material] * canvas.shade[..., None]
    scene = np.asarray(background, np.float32) * (ground * np.float32(1 / 255))
    scene = np.where((canvas.material > 0)[..., None], cloth, scene)
    if bicycle:
        front = Image.fromarray((np.clip(scene, 0, 1) * 255).astype(np.uint8))
        draw_bicycle(front, *wheel, view.scale, paint)
        scene = np.asarray(front, np.float32) * np.float32(1 / 255)
    elif occluder > 1 - POLE_SHARE:
        _draw_pole(scene, rng, columns)
    picture = scene.reshape(height, SUPERSAMPLING, width, SUPERSAMPLING, 3).mean((1, 3))
    return encode(develop(picture, camera, rng), camera, rng)


def _cast_shadow(ground: Array, view: View, camera: Camera) -> None:
    """Darken the ground (rows, columns, 1) at the person's feet, away from the light."""
    rows, columns = ground.shape[:2]
    reach = 0.07 * view.scale
    y0, y1 = max(int(view.row - reach), 0), min(int(view.row + reach), rows)
    if y0 >= y1:
        return
    y = (np.arange(y0, y1, dtype=np.float32)[:, None] - np.float32(view.row)) / np.float32(reach)
    centre = view.column - camera.light * 0.18 * view.scale
    x = (np.arange(columns, dtype=np.float32)[None, :] - np.float32(centre)) / np.float32(0.34 * view.scale)
    ground[y0:y1, :, 0] *= 1 - np.float32(camera.shadow) * np.clip(1.3 * (1 - x * x - y * y), 0, 1)


def _draw_pole(scene: Array, rng: np.random.Generator, columns: int) -> None:
    """A lamp post before everything."""
    x, wide = int(rng.uniform(0.1, 0.85) * columns), int(rng.uniform(0.06, 0.16) * columns)
    x1 = min(x + wide, columns)
    across = np.linspace(-1, 1, wide, dtype=np.float32)[: x1 - x, None]
    scene[:, x:x1] = np.float32(rng.uniform(0.2, 0.6)) * (0.6 + 0.4 * np.sqrt(1 - across * across))
