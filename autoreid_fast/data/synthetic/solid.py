"""Drawing solids into a depth buffer of materials and light, in parallel projection.

Lengths are relative to a person's height: x to the person's left, y up from the ground, z to the front. The
view turns the person by ``yaw`` (0 faces the camera) and looks down by ``tilt``, both in radians.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
Point = tuple[float, float, float]
Texture = int | Callable[[Array, Array], Array]
"""A material, or a function (angle from the front, height 0..1) -> materials."""


@dataclass(frozen=True)
class View:
    """Position of a person in the picture: pixels per unit, pixel of the ground point, yaw and tilt."""

    scale: float
    column: float
    row: float
    yaw: float
    tilt: float
    aspect: float = 1.0  # widens a box that was cut too narrow or too wide

    def project(self, point: Point) -> tuple[float, float, float]:
        """Return (column, row, depth) of a point; depth in units, larger is nearer."""
        x, y, z = point
        across = x * np.cos(self.yaw) + z * np.sin(self.yaw)
        depth = z * np.cos(self.yaw) - x * np.sin(self.yaw)
        up = y * np.cos(self.tilt) - depth * np.sin(self.tilt)
        return self.column + self.scale * self.aspect * across, self.row - self.scale * up, depth


class Canvas:
    """Material, light and depth of each pixel; material 0 means empty."""

    def __init__(self, height: int, width: int, light: float) -> None:
        self.material = np.zeros((height, width), np.uint8)
        self.shade = np.zeros((height, width), np.float32)
        self.depth = np.full((height, width), -np.inf, np.float32)
        self.light = light  # direction: -1 from the left .. 1 from the right

    def _paint(
        self, top: int, left: int, inside: Array, depth: Array, shade: Array, material: Array | int
    ) -> None:
        rows, columns = slice(top, top + inside.shape[0]), slice(left, left + inside.shape[1])
        hit = inside & (depth > self.depth[rows, columns])
        np.copyto(self.depth[rows, columns], depth, where=hit)
        np.copyto(self.shade[rows, columns], shade, where=hit)
        np.copyto(self.material[rows, columns], material, where=hit, casting="unsafe")

    def _window(
        self, left: float, right: float, top: float, bottom: float
    ) -> tuple[int, int, int, int] | None:
        height, width = self.material.shape
        x0, x1 = max(int(left), 0), min(int(right) + 2, width)
        y0, y1 = max(int(top), 0), min(int(bottom) + 2, height)
        return (x0, x1, y0, y1) if x0 < x1 and y0 < y1 else None

    def capsule(
        self,
        view: View,
        start: Point,
        end: Point,
        radii: tuple[float, float],
        texture: Texture,
        nearer: float = 0.0,
    ) -> None:
        """Draw a limb, a rounded cone; its texture gets (side -1..1, fraction of its length)."""
        x0, y0, d0 = view.project(start)
        x1, y1, d1 = view.project(end)
        r0, r1 = radii[0] * view.scale, radii[1] * view.scale
        reach = max(r0, r1)
        window = self._window(
            min(x0, x1) - reach, max(x0, x1) + reach, min(y0, y1) - reach, max(y0, y1) + reach
        )
        if window is None:
            return
        left, right, top, bottom = window
        across, down = x1 - x0, y1 - y0
        square = across * across + down * down + 1e-6
        u = np.arange(left, right, dtype=np.float32)[None, :] + np.float32(0.5 - x0)
        v = np.arange(top, bottom, dtype=np.float32)[:, None] + np.float32(0.5 - y0)
        along = np.clip(u * np.float32(across / square) + v * np.float32(down / square), 0, 1)
        radius = np.float32(r0) + along * np.float32(r1 - r0)
        off_x, off_y = u - along * np.float32(across), v - along * np.float32(down)
        bulge = radius * radius - off_x * off_x - off_y * off_y
        inside = bulge > 0
        bulge = np.sqrt(np.maximum(bulge, 0))
        depth = bulge * np.float32(1 / view.scale) + along * np.float32(d1 - d0) + np.float32(d0 + nearer)
        radius += np.float32(1e-3)
        shade = (
            np.float32(0.62)
            + np.float32(0.36) * bulge / radius
            + np.float32(0.2 * self.light) * off_x / radius
        )
        material = texture if isinstance(texture, int) else texture(off_x / radius, along)
        self._paint(top, left, inside, depth, shade, material)

    def lathe(
        self,
        view: View,
        bottom_centre: Point,
        top_centre: Point,
        profile: Sequence[tuple[float, float, float]],
        texture: Texture,
        turn: float = 0.0,
        nearer: float = 0.0,
    ) -> None:
        """Draw an upright body, ellipses stacked between two centres.

        ``profile`` lists (height 0..1, half width, half depth) upwards; ``turn`` adds to the view's yaw. The
        texture gets (angle from the front in -pi..pi, height 0..1).
        """
        bx, by, bd = view.project(bottom_centre)
        tx, ty, td = view.project(top_centre)
        reach = max(max(p[1], p[2]) for p in profile) * view.scale * view.aspect
        window = self._window(min(bx, tx) - reach, max(bx, tx) + reach, ty, by)
        if window is None:
            return
        left, right, top, bottom = window
        rows = np.arange(top, bottom, dtype=np.float32) + np.float32(0.5)
        height = (by - rows) / max(by - ty, 1e-3)
        knots = np.array(profile, np.float32)
        a = np.interp(height, knots[:, 0], knots[:, 1], 0, 0).astype(np.float32) + np.float32(1e-6)
        b = np.interp(height, knots[:, 0], knots[:, 2], 0, 0).astype(np.float32) + np.float32(1e-6)
        cos, sin = np.float32(np.cos(view.yaw + turn)), np.float32(np.sin(view.yaw + turn))
        half = np.hypot(a * cos, b * sin)  # the visible half width
        start = np.arctan2(b * sin, a * cos)
        centre = bx + height * (tx - bx)
        columns = np.arange(left, right, dtype=np.float32) + np.float32(0.5)
        across = (columns[None, :] - centre[:, None]) / (half * np.float32(view.scale * view.aspect))[:, None]
        inside = np.abs(across) < 1
        across = np.clip(across, -1, 1)
        facing = np.sqrt(1 - across * across)
        # x = a cos t, z = b sin t: the visible t is start + arccos(across)
        near = (a * b / half)[:, None] * facing  # half depth along the line of sight
        slope = ((b * b - a * a) * sin * cos / half)[:, None] * across
        depth = near + slope + (np.float32(bd + nearer) + height * np.float32(td - bd))[:, None]
        shade = np.float32(0.62) + np.float32(0.36) * facing + np.float32(0.2 * self.light) * across
        if isinstance(texture, int):
            self._paint(top, left, inside, depth, shade, texture)
            return
        angle = np.arccos(across) + (start - np.float32(np.pi / 2))[:, None]
        angle -= np.float32(2 * np.pi) * np.round(angle * np.float32(0.5 / np.pi))
        self._paint(
            top, left, inside, depth, shade, texture(angle, np.broadcast_to(height[:, None], angle.shape))
        )


def ellipsoid(half_width: float, half_depth: float, flat: float = 0.0) -> list[tuple[float, float, float]]:
    """Return the profile of an ellipsoid; ``flat`` > 0 makes it boxier."""
    knots = []
    for height in (0.0, 0.02, 0.07, 0.16, 0.3, 0.5, 0.7, 0.84, 0.93, 0.98, 1.0):
        width = max(1 - (2 * height - 1) ** 2, 0.0) ** (0.5 / (1 + flat))
        knots.append((height, half_width * width, half_depth * width))
    return knots
