"""Scenes: a wide picture of each camera's place, and obstacles."""

import numpy as np
from PIL import Image, ImageDraw

from autoreid_fast.data.synthetic.solid import View

Array = np.ndarray

GROUNDS = ("paving", "grass", "asphalt", "tiles", "path", "concrete")
BACKDROPS = ("none", "hedge", "brick", "none", "windows", "trees")


def _rgb(colour: list[float]) -> Array:
    return np.array(colour, np.float32)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], grain: float) -> Array:
    """Draw smooth noise around 0 with a standard deviation near 1, (rows, columns) float32.

    ``grain`` is its scale in pixels.
    """
    rows, columns = (max(int(size / grain) + 2, 2) for size in shape)
    grid = rng.standard_normal((rows, columns)).astype(np.float32)
    image = Image.fromarray(grid).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(image) * np.float32(1.4)


def _grid(u: Array, v: Array, line: float) -> tuple[Array, Array]:
    """Return (brightness of the slab, whether on a joint) for a floor of unit slabs."""
    slab = np.sin(np.floor(u) * 127.1 + np.floor(v) * 311.7) * 43758.547
    return (slab - np.floor(slab)).astype(np.float32) - 0.5, (u % 1 < line) | (v % 1 < line)


def _ground(rng: np.random.Generator, kind: str, shape: tuple[int, int], unit: float) -> Array:
    """Draw a floor at a slant, (rows, columns, 3) float32 in 0..1; ``unit`` is a person in pixels."""
    rows, columns = shape
    fine, middle, coarse = (smooth_noise(rng, shape, unit * size) for size in (0.008, 0.05, 0.4))
    row = np.arange(rows, dtype=np.float32)[:, None]
    column = np.arange(columns, dtype=np.float32)[None, :] - columns * float(rng.uniform(0.2, 0.8))
    distance = rows * 1.5 / (row + rows * 0.6)  # the horizon lies above the picture
    turn = float(rng.uniform(-0.6, 0.6))
    x, z = column / unit * distance, 4.0 * distance
    cos, sin = float(np.cos(turn)), float(np.sin(turn))
    u, v = x * cos + z * sin, z * cos - x * sin
    tint = (1 + 0.05 * rng.standard_normal(3)).astype(np.float32)
    if kind == "grass":
        base = _rgb([0.33, 0.42, 0.20]) * tint
        light = 1 + 0.09 * fine + 0.09 * middle + 0.12 * coarse
        picture = base * light[..., None]
        leaves = (middle + 0.7 * fine) > 1.9
        picture[leaves] = _rgb([0.55, 0.45, 0.25])
        return picture
    if kind == "path":
        base = _rgb([0.62, 0.55, 0.44]) * tint
        picture = base * (1 + 0.10 * fine + 0.06 * middle + 0.08 * coarse)[..., None]
        verge = u + 0.1 * coarse > 1.0
        picture[verge] = (_rgb([0.30, 0.40, 0.19]) * (1 + 0.1 * fine + 0.1 * middle)[..., None])[verge]
        return picture
    if kind in ("paving", "tiles"):
        size = 3.0 if kind == "paving" else 1.6
        slab, joint = _grid(u * size, v * size * 0.8, 0.05)
        base = _rgb([0.58, 0.57, 0.55] if kind == "paving" else [0.70, 0.64, 0.56]) * tint
        spread, texture = (0.16, 0.05) if kind == "paving" else (0.08, 0.02)
        light = 1 + spread * slab + texture * fine + 0.05 * coarse
        light = np.where(joint, light * (0.72 if kind == "paving" else 0.85), light)
        if kind == "tiles":
            light = np.where(_grid(u * size, v * size * 0.8, 0.05)[0] > 0.4, light * 0.7, light)
        return base * light[..., None]
    base = _rgb([0.36, 0.37, 0.39] if kind == "asphalt" else [0.66, 0.66, 0.63]) * tint
    picture = base * (1 + 0.07 * fine + 0.04 * middle + 0.08 * coarse)[..., None]
    if kind == "asphalt":
        picture[(u % 3.0 < 0.14)] = _rgb([0.78, 0.77, 0.70])
    else:
        picture[(v % 2.5 < 0.05)] *= 0.7
    return picture


def _backdrop(rng: np.random.Generator, kind: str, shape: tuple[int, int], unit: float) -> Array:
    """Draw a wall or plants behind the ground, (rows, columns, 3) float32 in 0..1."""
    fine, middle = smooth_noise(rng, shape, unit * 0.02), smooth_noise(rng, shape, unit * 0.09)
    row = np.arange(shape[0], dtype=np.float32)[:, None] / unit
    column = np.arange(shape[1], dtype=np.float32)[None, :] / unit
    if kind in ("hedge", "trees"):
        base = _rgb([0.16, 0.27, 0.12] if kind == "hedge" else [0.30, 0.34, 0.24])
        picture = base * (1 + 0.18 * fine + 0.25 * middle)[..., None]
        if kind == "trees":
            trunk = np.broadcast_to((column + 0.02 * np.sin(7 * row)) % 0.9 < 0.12, shape)
            picture[trunk] = _rgb([0.24, 0.18, 0.13])
        return picture
    if kind == "brick":
        slab, joint = _grid(column * 7 + 0.5 * (np.floor(row * 16) % 2), row * 16, 0.12)
        light = np.where(joint, 1.25, 1 + 0.25 * slab) + 0.04 * fine
        return _rgb([0.52, 0.34, 0.28]) * light[..., None]
    pane = (column * 1.6 % 1 > 0.12) & (row * 1.1 % 1 > 0.15)
    light = np.where(pane, 0.42 + 0.10 * middle, 0.80 + 0.03 * fine)
    return _rgb([0.86, 0.92, 1.0]) * light[..., None]


def draw_plate(seed: int, camera: int, unit: float) -> Array:
    """Draw the place that one camera (from 1) sees, (rows, columns, 3) uint8, several people wide.

    ``unit`` is the height of a standing person in pixels.
    """
    rng = np.random.default_rng([seed, 7001, camera])
    rows, columns = int(1.8 * unit), int(4.5 * unit)
    order = np.random.default_rng([seed, 7002]).permutation(len(GROUNDS))
    kind = int(order[(camera - 1) % len(GROUNDS)])
    picture = _ground(rng, GROUNDS[kind], (rows, columns), unit)
    backdrop = BACKDROPS[kind]
    if backdrop != "none":
        edge = int(rows * rng.uniform(0.38, 0.58))
        picture[:edge] = _backdrop(rng, backdrop, (edge, columns), unit)
        picture[edge : edge + max(int(0.02 * unit), 1)] *= 0.6
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 4))):  # posts, bins and other fixed things
        x, foot = int(rng.uniform(0, columns)), int(rng.uniform(0.5, 1.0) * rows)
        wide, tall = unit * float(rng.uniform(0.03, 0.2)), unit * float(rng.uniform(0.3, 1.2))
        shade = tuple(int(v) for v in rng.uniform(40, 170, 3) * 0.5 + float(rng.uniform(30, 90)))
        pen.rectangle((x, int(foot - tall), int(x + wide), foot), fill=shade)
        pen.rectangle((int(x + 0.7 * wide), int(foot - tall), int(x + wide), foot),
                      fill=tuple(int(v * 0.7) for v in shade))  # fmt: skip
    return np.asarray(image)


def draw_bicycle(scene: Array, rng: np.random.Generator, view: View) -> Array:
    """Return the scene with a parked bicycle near the person's feet."""
    image = Image.fromarray(scene)
    pen = ImageDraw.Draw(image)
    unit = view.scale
    radius, line = 0.19 * unit, max(int(0.018 * unit), 1)
    x, ground = (
        view.column - unit * float(rng.uniform(0.1, 0.75)),
        view.row + unit * float(rng.uniform(-0.05, 0.08)),
    )
    rear, front = (x + radius, ground - radius), (x + 0.62 * unit, ground - radius)
    for cx, cy in (rear, front):
        pen.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), outline=(35, 35, 38), width=line)
    saddle = (rear[0] + 0.13 * unit, ground - 0.50 * unit)
    bars = (front[0] - 0.07 * unit, ground - 0.54 * unit)
    pedal = ((rear[0] + front[0]) / 2, ground - 0.8 * radius)
    paint = tuple(int(v) for v in rng.uniform(20, 60) + rng.uniform(0, 1) * rng.uniform(0, 130, 3))
    frame = ((rear, saddle), (rear, pedal), (saddle, pedal), (pedal, bars), (saddle, bars), (bars, front))
    for start, end in frame:
        pen.line((*start, *end), fill=paint, width=line + 1)
    sx, sy = saddle
    pen.line((sx - 0.06 * unit, sy, sx + 0.05 * unit, sy), fill=(30, 30, 30), width=2 * line)
    bx, by = bars
    pen.line((bx - 0.03 * unit, by, bx + 0.05 * unit, by - 0.02 * unit), fill=(40, 40, 40), width=line)
    return np.array(image)


def draw_pole(scene: Array, rng: np.random.Generator) -> None:
    """Draw a lamp post in front of everything, in place."""
    columns = scene.shape[1]
    left, wide = int(rng.uniform(0.1, 0.85) * columns), max(int(rng.uniform(0.06, 0.16) * columns), 1)
    across = np.linspace(-1, 1, wide, dtype=np.float32)[: columns - left]
    light = 255 * float(rng.uniform(0.2, 0.6)) * (0.6 + 0.4 * np.sqrt(1 - across * across))
    scene[:, left : left + len(across)] = light.astype(np.uint8)[:, None]
