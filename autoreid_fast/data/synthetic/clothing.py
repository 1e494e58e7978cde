"""Clothing: the materials of a person, and the textures that place them on the body.

A texture maps (angle from the front in -pi..pi, height 0..1) to materials, so that what is on the chest is
not visible from behind.
"""

from collections.abc import Callable
from enum import IntEnum

import numpy as np

from autoreid_fast.data.synthetic.identity import Colour, Identity

Array = np.ndarray


class Material(IntEnum):
    """Rows of a person's palette; 0 means empty."""

    SKIN = 1
    HAIR = 2
    UPPER = 3
    ACCENT = 4
    INNER = 5
    LOWER = 6
    LOWER_ACCENT = 7
    SHOES = 8
    SOCKS = 9
    BAG = 10
    STRAP = 11
    HAT = 12
    FACE_SHADOW = 13
    LIPS = 14
    BELT = 15


MATERIALS = 16


def palette(person: Identity) -> Array:
    """Return the colours of a person's materials, (MATERIALS, 3) float32."""

    def darker(colour: Colour, factor: float) -> Array:
        return np.asarray(colour) * factor

    lower_accent = (0.85, 0.85, 0.85) if sum(person.lower_colour) < 1.2 else (0.15, 0.15, 0.17)
    socks = (0.85, 0.85, 0.85) if sum(person.shoes) > 1.0 else (0.15, 0.15, 0.15)
    rows = np.zeros((MATERIALS, 3), np.float32)
    rows[Material.SKIN] = person.skin
    rows[Material.HAIR] = person.hair_colour
    rows[Material.UPPER] = person.upper_colour
    rows[Material.ACCENT] = person.accent
    rows[Material.INNER] = person.inner
    rows[Material.LOWER] = person.lower_colour
    rows[Material.LOWER_ACCENT] = lower_accent
    rows[Material.SHOES] = person.shoes
    rows[Material.SOCKS] = socks
    rows[Material.BAG] = person.bag_colour
    rows[Material.STRAP] = darker(person.bag_colour, 0.75)
    rows[Material.HAT] = person.hat_colour
    rows[Material.FACE_SHADOW] = darker(person.skin, 0.5)
    rows[Material.LIPS] = np.asarray(person.skin) * (0.85, 0.6, 0.6)
    rows[Material.BELT] = (0.12, 0.10, 0.09)
    return rows


def _blotches(angle: Array, height: Array) -> Array:
    return np.sin(9 * angle + 5 * np.sin(21 * height)) + np.sin(31 * height + 4 * np.sin(6 * angle)) > 0.55


def upper_cloth(person: Identity) -> Callable[[Array, Array], Array]:
    """Return the texture of the upper clothing: only its pattern."""
    pattern = person.pattern

    def texture(angle: Array, height: Array) -> Array:
        if pattern == "stripes":
            second = (height * 6.5) % 1 < 0.4
        elif pattern == "checks":
            second = ((height * 6) % 1 < 0.34) | ((angle * 2.2) % 1 < 0.34)
        elif pattern == "logo":
            second = (np.abs(angle) < 0.62) & (np.abs(height - 0.60) < 0.10)
        elif pattern == "two_tone":
            second = height > 0.66
        elif pattern == "print":
            second = _blotches(angle, height)
        else:
            return np.full(angle.shape, Material.UPPER, np.uint8)
        return np.where(second, np.uint8(Material.ACCENT), np.uint8(Material.UPPER))

    return texture


def torso_texture(person: Identity) -> Callable[[Array, Array], Array]:
    """Return the texture of the torso: clothing, neckline, open front, and the straps of a bag."""
    cloth = upper_cloth(person)
    neckline = 0.93 if person.sleeves == "long" else 0.90

    def texture(angle: Array, height: Array) -> Array:
        material = cloth(angle, height)
        front = np.abs(angle)
        if person.open_front:
            material = np.where(front < 0.22 + 0.30 * height, np.uint8(Material.INNER), material)
        material = np.where(
            (height > neckline + 0.08 * front) & (front < 1.0), np.uint8(Material.SKIN), material
        )
        if person.bag == "backpack":
            strap = (np.abs(front - 0.80) < 0.17) & (height > 0.42)
            material = np.where(strap, np.uint8(Material.STRAP), material)
        elif person.bag == "shoulder_bag":
            # from one shoulder to the other hip: rises with the angle in front, falls at the back
            around = person.side * np.where(front < np.pi / 2, angle, np.sign(angle) * np.pi - angle)
            strap = np.abs(height - (0.52 - 0.30 * around)) < 0.045
            material = np.where(strap, np.uint8(Material.STRAP), material)
        return material

    return texture


def lower_texture(person: Identity) -> Callable[[Array, Array], Array] | int:
    """Return the texture of skirt and seat, by the angle from the front."""
    if person.lower_pattern == "checks":

        def checks(angle: Array, height: Array) -> Array:
            second = ((height * 4) % 1 < 0.3) | ((angle * 2.2) % 1 < 0.3)
            return np.where(second, np.uint8(Material.LOWER_ACCENT), np.uint8(Material.LOWER))

        return checks
    return int(Material.LOWER)


def leg_texture(person: Identity, outside: float) -> Callable[[Array, Array], Array] | int:
    """Return the texture of trouser legs, by (side -1..1, fraction of the length).

    ``outside`` is the side of a stripe.
    """
    if person.lower_pattern == "side_stripe":

        def stripe(side: Array, along: Array) -> Array:
            second = np.abs(side - 0.62 * outside) < 0.22
            return np.where(second, np.uint8(Material.LOWER_ACCENT), np.uint8(Material.LOWER))

        return stripe
    if person.lower_pattern == "checks":

        def checks(side: Array, along: Array) -> Array:
            second = ((along * 4) % 1 < 0.3) | ((side * 1.6) % 1 < 0.3)
            return np.where(second, np.uint8(Material.LOWER_ACCENT), np.uint8(Material.LOWER))

        return checks
    return int(Material.LOWER)


def sleeve_texture(person: Identity, shoulder: float, elbow: float) -> Callable[[Array, Array], Array] | int:
    """Return the texture of a sleeve that continues the torso's pattern between two heights in 0..1."""
    if person.pattern in ("plain", "logo"):
        return int(Material.UPPER)
    cloth = upper_cloth(person)

    def texture(side: Array, along: Array) -> Array:
        return cloth(side * 1.3, shoulder + along * (elbow - shoulder))

    return texture


def head_texture(person: Identity) -> Callable[[Array, Array], Array]:
    """Return the texture of the head: face, hair and hat; height 0 is the chin."""
    hairline = {"bald": 2.0, "short": 0.80, "bob": 0.78, "long": 0.78, "ponytail": 0.80}[person.hair]
    width = {"bald": 9.0, "short": 1.25, "bob": 0.95, "long": 0.85, "ponytail": 1.15}[person.hair]
    nape = {"bald": 9.0, "short": 0.30, "bob": 0.06, "long": 0.0, "ponytail": 0.25}[person.hair]

    def texture(angle: Array, height: Array) -> Array:
        front = np.abs(angle)
        material = np.full(angle.shape, Material.SKIN, np.uint8)
        eyes = (np.abs(front - 0.42) < 0.22) & (np.abs(height - 0.54) < 0.055)
        material[eyes] = Material.FACE_SHADOW
        material[(front < 0.3) & (np.abs(height - 0.22) < 0.035)] = Material.LIPS
        hair = (height > hairline - 0.05 * front) | (
            (front > width) & (height > nape + 0.9 * (width + 0.55 - front))
        )
        material[hair] = Material.HAIR
        if person.hat:
            material[height > 0.68] = Material.HAT
        return material

    return texture
