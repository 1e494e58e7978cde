"""The synthetic people: frequencies of their clothes, swapped pairs, and views of the body."""

from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pytest

from autoreid_fast.data.synthetic.camera import GAIN_SPAN, make_cameras
from autoreid_fast.data.synthetic.clothing import Material
from autoreid_fast.data.synthetic.identity import Identity, sample_identities
from autoreid_fast.data.synthetic.person import Pose, draw_person
from autoreid_fast.data.synthetic.solid import Canvas, View

PEOPLE = sample_identities(6000, seed=3)

# The shares of the real sets, in percent, as the design lists them.
UPPER = {"white": 30, "black": 15, "gray": 12, "red": 10, "green": 8, "blue": 6, "yellow": 5, "purple": 4}
LOWER = {"black": 39, "blue": 16, "gray": 16, "brown": 9, "white": 8}


def share(holds: list[bool]) -> float:
    return 100 * sum(holds) / len(holds)


@pytest.mark.parametrize(("field", "expected"), [("upper", UPPER), ("lower", LOWER)])
def test_colours_have_the_real_frequencies(field: str, expected: dict[str, int]) -> None:
    counts = Counter(getattr(person, field) for person in PEOPLE)
    for colour, percent in expected.items():
        assert 100 * counts[colour] / len(PEOPLE) == pytest.approx(percent, abs=2.0), colour


def test_garments_bags_and_hair_have_the_real_frequencies() -> None:
    assert share([p.sleeves == "short" for p in PEOPLE]) == pytest.approx(95, abs=1.5)
    assert share([p.garment != "trousers" for p in PEOPLE]) == pytest.approx(61, abs=2.5)
    assert share([p.garment == "dress" for p in PEOPLE]) == pytest.approx(15, abs=2)
    assert share([p.bag == "backpack" for p in PEOPLE]) == pytest.approx(27, abs=2.5)
    assert share([p.bag == "shoulder_bag" for p in PEOPLE]) == pytest.approx(25, abs=2.5)
    assert share([p.bag == "handbag" for p in PEOPLE]) == pytest.approx(12, abs=2)
    assert share([p.hat for p in PEOPLE]) == pytest.approx(3, abs=1.5)
    assert share([p.hair in ("long", "ponytail") for p in PEOPLE]) == pytest.approx(33, abs=2.5)


def test_swapped_pairs_differ_only_in_which_part_wears_which_colour() -> None:
    exchanged = {
        "upper": "lower",
        "lower": "upper",
        "upper_colour": "lower_colour",
        "lower_colour": "upper_colour",
    }
    pairs = 0
    for one, other in zip(PEOPLE[::2], PEOPLE[1::2], strict=True):
        a, b = asdict(one), asdict(other)
        if all(a[name] == b[exchanged.get(name, name)] for name in a):
            assert one.upper != one.lower
            pairs += 1
    assert pairs > 0.5 * len(PEOPLE) / 2


def test_more_identities_start_with_the_same_ones() -> None:
    assert sample_identities(7, seed=3) == PEOPLE[:7]
    assert sample_identities(8, seed=4) != PEOPLE[:8]


def materials(person: Identity, yaw: float, tilt: float = 0.15) -> Counter[int]:
    """Count the pixels of each material of a standing person."""
    canvas = Canvas(256, 128, light=0.0)
    draw_person(canvas, View(230, 64, 247, yaw, tilt), person, Pose(phase=0.0, swing=0.05))
    return Counter(canvas.material.ravel().tolist())


@pytest.fixture
def person() -> Identity:
    return replace(
        PEOPLE[0],
        bag="none",
        pattern="plain",
        lower_pattern="plain",
        open_front=False,
        garment="trousers",
        sleeves="short",
        hair="short",
        hat=False,
        girth=1.0,
        shoulders=1.0,
    )


def test_a_backpack_is_visible_from_behind_and_its_straps_from_the_front(person: Identity) -> None:
    person = replace(person, bag="backpack")
    front, side, back = (materials(person, yaw) for yaw in (0.0, np.pi / 2, np.pi))
    assert front[Material.BAG] < 0.1 * back[Material.BAG]
    assert front[Material.BAG] < side[Material.BAG] < back[Material.BAG]
    assert front[Material.STRAP] > 100


@pytest.mark.parametrize(
    ("change", "seen"), [({"pattern": "logo"}, Material.ACCENT), ({"open_front": True}, Material.INNER)]
)
def test_the_chest_is_visible_from_the_front_only(
    person: Identity, change: dict[str, object], seen: Material
) -> None:
    person = replace(person, **change)  # type: ignore[arg-type]
    assert materials(person, 0.0)[seen] > 200
    assert materials(person, np.pi)[seen] == 0


def test_sleeves_and_garments_cover_skin(person: Identity) -> None:
    bare = materials(replace(person, garment="shorts"), 0.0)[Material.SKIN]
    covered = materials(person, 0.0)[Material.SKIN]
    long = materials(replace(person, sleeves="long"), 0.0)[Material.SKIN]
    assert bare > 1.3 * covered
    assert covered > 1.3 * long


def test_the_body_is_upright_and_fills_its_box(person: Identity) -> None:
    canvas = Canvas(256, 128, light=0.0)
    draw_person(canvas, View(230, 64, 247, 0.0, 0.0), person, Pose(phase=0.0, swing=0.05))
    rows = np.flatnonzero((canvas.material > 0).any(axis=1))
    assert rows[0] == pytest.approx(247 - 230, abs=8)
    assert rows[-1] == pytest.approx(247, abs=8)
    height = {
        m: np.nonzero(canvas.material == m)[0].mean()
        for m in (Material.HAIR, Material.UPPER, Material.LOWER, Material.SHOES)
    }
    assert list(height.values()) == sorted(height.values())


def test_cameras_span_the_measured_gain() -> None:
    gains = np.stack([camera.gain for camera in make_cameras(6, seed=0)])
    assert np.ptp(gains, axis=0) == pytest.approx(GAIN_SPAN, abs=0.25)
