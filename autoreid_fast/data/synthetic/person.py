"""Drawing a person: a walking body with clothes, hair and bag, made of solids."""

from dataclasses import dataclass

import numpy as np

from autoreid_fast.data.synthetic.clothing import (
    MATERIALS,
    Material,
    head_texture,
    leg_texture,
    lower_texture,
    sleeve_texture,
    torso_texture,
    upper_cloth,
)
from autoreid_fast.data.synthetic.identity import Identity
from autoreid_fast.data.synthetic.solid import Canvas, Point, Texture, View, ellipsoid

HIP, KNEE, ANKLE = 0.505, 0.265, 0.04
SHOULDER, HEM, NECK = 0.800, 0.470, 0.855
SKIRT_HEM = 0.30


@dataclass(frozen=True)
class Pose:
    """One moment of a walk; angles in radians; a ``swing`` of 0 is standing still."""

    phase: float
    swing: float
    lean: float = 0.0
    head_turn: float = 0.0
    elbow: float = 0.3
    phone: bool = False  # one forearm raised to the ear


def random_pose(rng: np.random.Generator, stride: float) -> Pose:
    """Draw a pose, mostly walking, at any phase."""
    walking = rng.random() < 0.85
    return Pose(
        phase=float(rng.uniform(0, 2 * np.pi)),
        swing=float(rng.uniform(0.22, 0.42) * stride if walking else rng.uniform(0.02, 0.10)),
        lean=float(rng.normal(0.012, 0.012)),
        head_turn=float(rng.normal(0, 0.35)),
        elbow=float(rng.uniform(0.1, 0.7)),
        phone=bool(rng.random() < 0.05),
    )


def _ahead(start: Point, length: float, angle: float, spread: float = 0.0) -> Point:
    """Return the end of a bone from ``start``, swung forward by ``angle`` and outward by ``spread``."""
    x, y, z = start
    return x + length * np.sin(spread), y - length * np.cos(angle), z + length * np.sin(angle)


def _between(start: Point, end: Point, fraction: float) -> Point:
    x, y, z = (a + fraction * (b - a) for a, b in zip(start, end, strict=True))
    return x, y, z


class _Drawer:
    """Drawer of one person's parts; ``base`` is added to its materials, its rows of the palette."""

    def __init__(self, canvas: Canvas, view: View, base: int, nearer: float) -> None:
        self.canvas, self.view, self.base, self.nearer = canvas, view, base, nearer

    def _moved(self, texture: Texture) -> Texture:
        if isinstance(texture, int):
            return int(texture) + self.base
        if self.base == 0:
            return texture
        return lambda u, v: texture(u, v) + np.uint8(self.base)

    def limb(
        self, start: Point, end: Point, r0: float, r1: float, texture: Texture, nearer: float = 0.0
    ) -> None:
        self.canvas.capsule(self.view, start, end, (r0, r1), self._moved(texture), self.nearer + nearer)

    def body(
        self,
        bottom: Point,
        top: Point,
        profile: list[tuple[float, float, float]],
        texture: Texture,
        turn: float = 0.0,
        nearer: float = 0.0,
    ) -> None:
        self.canvas.lathe(self.view, bottom, top, profile, self._moved(texture), turn, self.nearer + nearer)


def _legs(pen: _Drawer, person: Identity, pose: Pose, lift: float) -> None:
    girth = person.girth
    cloth = 1.12 if person.garment == "shorts" else 1.0
    for side in (-1, 1):
        phase = pose.phase + (0.0 if side < 0 else np.pi)
        hip_angle = pose.swing * np.sin(phase) + 0.04
        bend = 0.06 + 1.5 * pose.swing * max(0.0, float(np.cos(phase + 0.25)))
        hip = (side * 0.047 * (0.6 + 0.4 * girth), HIP + lift, 0.0)
        knee = _ahead(hip, HIP - KNEE, hip_angle)
        ankle = _ahead(knee, KNEE - ANKLE, hip_angle - bend)
        toe_angle = hip_angle - bend + 1.45
        toe = _ahead(ankle, 0.085, min(max(toe_angle, 0.8), 1.9), 0.12 * side)
        heel = _ahead(ankle, 0.030, toe_angle - 1.9)
        thigh, shin, foot = 0.054 * girth * cloth, 0.037 * (0.5 + 0.5 * girth), 0.021
        outside = float(side) if np.cos(pen.view.yaw) > 0 else -float(side)
        trousers = leg_texture(person, outside)
        if person.garment == "trousers":
            pen.limb(hip, knee, thigh, 0.045 * girth, trousers)
            pen.limb(knee, ankle, 0.044 * girth, 0.034 * (0.4 + 0.6 * girth), trousers)
        else:
            leggings = person.garment == "dress"
            skin = int(Material.LOWER if leggings else Material.SKIN)
            if person.garment == "shorts":
                pen.limb(hip, _between(hip, knee, 0.86), thigh, 0.056 * girth, trousers)
            # the thigh stays behind the skirt, however far it swings
            behind = 0.0 if person.garment == "shorts" else -0.25
            pen.limb(hip, knee, 0.042, 0.036 * (0.5 + 0.5 * girth), skin, nearer=behind)
            pen.limb(knee, ankle, shin + 0.002, 0.022, skin)
            if person.socks:
                pen.limb(_between(ankle, knee, person.socks), ankle, 0.031, 0.026, int(Material.SOCKS))
        pen.limb(heel, toe, foot + 0.004, foot * 0.85, int(Material.SHOES))
        pen.limb(ankle, heel, 0.022, foot, int(Material.SHOES))


def _trunk(pen: _Drawer, person: Identity, pose: Pose, lift: float) -> None:
    girth, wide = person.girth, person.shoulders
    lean = pose.lean
    torso = [
        (0.00, 0.098 * girth, 0.066 * girth),
        (0.10, 0.100 * girth, 0.070 * girth),
        (0.38, 0.088 * girth, 0.064 * girth),
        (0.66, 0.104 * (wide + girth) / 2, 0.070 * girth),
        (0.82, 0.114 * wide, 0.066 * girth),
        (0.90, 0.104 * wide, 0.055),
        (0.95, 0.076 * wide, 0.046),
        (1.00, 0.036, 0.034),
    ]
    pen.body(
        (0.0, HEM + lift, 0.0), (0.0, NECK + lift, lean * 1.6), torso, torso_texture(person), nearer=0.02
    )
    lower = lower_texture(person)
    if person.garment in ("skirt", "dress"):
        sway = 0.02 * float(np.sin(pose.phase))
        flare = 0.115 + 0.06 * pose.swing
        skirt = [(0.0, flare * girth, (flare - 0.015) * girth), (1.0, 0.088 * girth, 0.064 * girth)]
        cloth: Texture = int(Material.UPPER) if person.garment == "dress" else lower
        if person.garment == "dress" and person.pattern in ("stripes", "checks", "print"):
            cloth = upper_cloth(person)
        pen.body((0.0, SKIRT_HEM + lift, sway), (0.0, HEM + 0.06 + lift, 0.0), skirt, cloth, nearer=0.01)
    else:
        seat = [(0.0, 0.03, 0.03), (0.25, 0.088 * girth, 0.06 * girth), (1.0, 0.096 * girth, 0.064 * girth)]
        pen.body((0.0, HIP - 0.09 + lift, 0.0), (0.0, HEM + 0.02 + lift, 0.0), seat, lower)


def _arms(pen: _Drawer, person: Identity, pose: Pose, lift: float) -> Point:
    """Draw both arms; return the hand on the side of the bag."""
    girth = 0.45 + 0.55 * person.girth
    carrying = (0.0, 0.0, 0.0)
    for side in (-1, 1):
        phase = pose.phase + (np.pi if side < 0 else 0.0)
        swing = 0.85 * pose.swing * float(np.sin(phase)) - 0.05
        elbow_bend = pose.elbow * (0.6 + 0.4 * float(np.sin(phase)))
        if person.bag == "handbag" and side == person.side:
            swing, elbow_bend = 0.3 * swing, 0.25
        shoulder = (side * 0.108 * person.shoulders, SHOULDER + lift, pose.lean)
        elbow = _ahead(shoulder, 0.165, swing, 0.17 * side)
        raised = pose.phone and side != person.side
        wrist = _ahead(elbow, 0.145, 2.6 if raised else swing + elbow_bend, -0.03 * side)
        hand = _ahead(wrist, 0.035, 2.6 if raised else swing + elbow_bend)
        upper_radius, lower_radius = 0.034 * girth, 0.026 * girth
        if person.sleeves == "long":
            sleeve = upper_radius + 0.003
            pen.limb(shoulder, elbow, sleeve, 0.031 * girth, sleeve_texture(person, 0.86, 0.45))
            pen.limb(elbow, wrist, 0.031 * girth, 0.024 * girth, sleeve_texture(person, 0.45, 0.05))
        else:
            cuff, short = _between(shoulder, elbow, 0.62), sleeve_texture(person, 0.86, 0.60)
            pen.limb(shoulder, cuff, upper_radius + 0.005, upper_radius + 0.003, short)
            pen.limb(shoulder, elbow, upper_radius - 0.006, lower_radius, int(Material.SKIN))
            pen.limb(elbow, wrist, lower_radius, 0.019, int(Material.SKIN))
        pen.limb(wrist, hand, 0.019, 0.021, int(Material.SKIN))
        if side == person.side:
            carrying = hand
    return carrying


def _head(pen: _Drawer, person: Identity, pose: Pose, lift: float) -> None:
    forward = pose.lean * 2 + 0.012
    size = 1.04 / (0.4 + 0.6 * person.height)  # the heads of tall people are relatively smaller
    chin, crown = 0.868 + lift, 0.868 + 0.135 * size + lift
    pen.limb((0.0, 0.83 + lift, 0.0), (0.0, 0.89 + lift, forward), 0.030, 0.029, int(Material.SKIN))
    pen.body(
        (0.0, chin, forward),
        (0.0, crown, forward),
        ellipsoid(0.047 * size, 0.057 * size, 0.25),
        head_texture(person),
        turn=pose.head_turn,
    )
    hair = int(Material.HAIR)
    if person.hair == "long":
        fall = [(0.0, 0.034, 0.016), (0.3, 0.054, 0.026), (0.8, 0.054, 0.040), (1.0, 0.02, 0.02)]
        back = (0.0, 0.71 + lift, -0.062), (0.0, crown - 0.01, forward - 0.022)
        pen.body(*back, fall, hair, nearer=0.01 if np.cos(pen.view.yaw) < 0 else 0.0)
    elif person.hair == "bob":
        fall = [(0.0, 0.050, 0.030), (0.5, 0.056, 0.045), (1.0, 0.02, 0.02)]
        pen.body((0.0, 0.85 + lift, forward - 0.026), (0.0, crown, forward - 0.02), fall, hair)
    elif person.hair == "ponytail":
        tie = (0.0, 0.955 + lift, forward - 0.060)
        pen.limb(
            tie, (0.0, 0.80 + lift, forward - 0.095 - 0.02 * float(np.sin(pose.phase))), 0.024, 0.012, hair
        )
    if person.hat:
        hat = int(Material.HAT)
        dome = [(0.0, 0.052 * size, 0.062 * size), (0.5, 0.050 * size, 0.060 * size), (1.0, 0.028, 0.03)]
        pen.body((0.0, crown - 0.045, forward), (0.0, crown + 0.008, forward), dome, hat, turn=pose.head_turn)
        brim = [(0.0, 0.06 * size, 0.09 * size), (1.0, 0.05 * size, 0.08 * size)]
        pen.body(
            (0.0, crown - 0.052, forward + 0.015),
            (0.0, crown - 0.040, forward + 0.015),
            brim,
            hat,
            turn=pose.head_turn,
        )


def _bag(pen: _Drawer, person: Identity, pose: Pose, hand: Point, lift: float) -> None:
    side, bag = person.side, int(Material.BAG)
    if person.bag == "backpack":
        shape = ellipsoid(0.085, 0.052, 3.0)

        def pocket(angle: np.ndarray, height: np.ndarray) -> np.ndarray:
            seam = (np.abs(height - 0.48) < 0.03) | (np.abs(np.abs(angle) - np.pi) > 1.9)
            return np.where(seam, np.uint8(Material.STRAP), np.uint8(Material.BAG))

        pen.body((0.0, 0.555 + lift, -0.095), (0.0, 0.815 + lift, -0.085 + pose.lean), shape, pocket)
    elif person.bag == "shoulder_bag":
        shape = ellipsoid(0.040, 0.085, 4.0)
        x = -side * 0.115 * person.girth
        pen.body((x, 0.43 + lift, -0.01), (x, 0.555 + lift, -0.01), shape, bag)
    elif person.bag == "handbag":
        x, y, z = hand
        shape = ellipsoid(0.030, 0.068, 4.0)
        pen.limb(hand, (x, y - 0.05, z), 0.008, 0.03, int(Material.STRAP))
        pen.body((x, y - 0.145, z), (x, y - 0.035, z), shape, bag)


def draw_person(
    canvas: Canvas, view: View, person: Identity, pose: Pose, base: int = 0, nearer: float = 0.0
) -> None:
    """Draw ``person`` into the canvas with materials ``base`` + 1 .. ``base`` + 15.

    ``nearer`` moves the whole person towards the camera, in units, in front of or behind somebody else.
    """
    if base % MATERIALS:
        raise ValueError(f"base {base} is not a multiple of {MATERIALS}")
    pen = _Drawer(canvas, view, base, nearer)
    # the body is lower at full stride
    lift = HIP * (np.cos(0.8 * pose.swing * abs(np.sin(pose.phase))) - 1) * 0.9
    _legs(pen, person, pose, lift)
    _trunk(pen, person, pose, lift)
    hand = _arms(pen, person, pose, lift)
    _head(pen, person, pose, lift)
    _bag(pen, person, pose, hand, lift)
