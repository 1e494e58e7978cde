"""Identities of the synthetic pedestrians: all that stays the same from camera to camera.

The frequencies of colours, garments, bags and hair follow the attribute labels of real data sets
(Market-1501, "Improving Person Re-identification by Attribute and Identity Learning", Lin et al. 2019). More
than half of the identities come in swapped pairs, two people who differ only in which body part wears which
colour: a colour histogram cannot tell them apart, but a network that sees body parts can.
"""

from dataclasses import dataclass, replace

import numpy as np

Colour = tuple[float, float, float]

COLOURS: dict[str, Colour] = {
    "white": (0.86, 0.86, 0.84),
    "black": (0.09, 0.09, 0.10),
    "gray": (0.47, 0.47, 0.48),
    "red": (0.68, 0.13, 0.15),
    "green": (0.20, 0.46, 0.24),
    "blue": (0.16, 0.26, 0.54),
    "yellow": (0.84, 0.74, 0.22),
    "purple": (0.44, 0.22, 0.50),
    "brown": (0.42, 0.29, 0.19),
    "pink": (0.86, 0.55, 0.62),
    "orange": (0.84, 0.46, 0.15),
}

UPPER_FREQUENCY = {
    "white": 0.30, "black": 0.15, "gray": 0.12, "red": 0.10, "green": 0.08, "blue": 0.06,
    "yellow": 0.05, "purple": 0.04, "brown": 0.03, "pink": 0.04, "orange": 0.03,
}  # fmt: skip
LOWER_FREQUENCY = {
    "white": 0.08, "black": 0.39, "gray": 0.16, "red": 0.03, "green": 0.03, "blue": 0.16,
    "yellow": 0.02, "purple": 0.01, "brown": 0.09, "pink": 0.02, "orange": 0.01,
}  # fmt: skip

DRESS_FREQUENCY = 0.15
GARMENT_FREQUENCY = {
    "trousers": 0.39 / 0.85,
    "shorts": 0.36 / 0.85,
    "skirt": 0.10 / 0.85,
}  # of people without a dress
BAG_FREQUENCY = {"none": 0.36, "backpack": 0.27, "shoulder_bag": 0.25, "handbag": 0.12}
PATTERN_FREQUENCY = {
    "plain": 0.44,
    "stripes": 0.14,
    "checks": 0.08,
    "logo": 0.20,
    "two_tone": 0.08,
    "print": 0.06,
}
LOWER_PATTERN_FREQUENCY = {"plain": 0.88, "side_stripe": 0.07, "checks": 0.05}
SHORT_SLEEVES_FREQUENCY, HAT_FREQUENCY, OPEN_FRONT_FREQUENCY = 0.95, 0.03, 0.10
LONG_HAIR_FREQUENCY = {"trousers": 0.20, "shorts": 0.20, "skirt": 0.72, "dress": 0.72}  # 33 % of everybody


@dataclass(frozen=True)
class Identity:
    """One person. Colours are sRGB in 0..1; lengths are relative to the average person."""

    upper: str  # a key of COLOURS
    lower: str
    upper_colour: Colour
    lower_colour: Colour
    pattern: str
    accent: Colour  # the second colour of the upper pattern
    lower_pattern: str
    open_front: bool  # an open jacket: the inner shirt is visible from the front only
    inner: Colour
    sleeves: str  # short | long
    garment: str  # trousers | shorts | skirt | dress
    shoes: Colour
    socks: float  # height of the socks as a fraction of the shin
    hair: str  # short | bob | long | ponytail | bald
    hair_colour: Colour
    skin: Colour
    hat: bool
    hat_colour: Colour
    bag: str  # none | backpack | shoulder_bag | handbag
    bag_colour: Colour
    side: int  # the side a bag is worn on, -1 or 1
    height: float
    girth: float
    shoulders: float
    stride: float


def _choose(rng: np.random.Generator, frequencies: dict[str, float]) -> str:
    names = list(frequencies)
    edges = np.cumsum(list(frequencies.values()))
    return names[min(int(np.searchsorted(edges, rng.random() * edges[-1], side="right")), len(names) - 1)]


def _shade(rng: np.random.Generator, name: str, spread: float = 0.05) -> Colour:
    """Draw a shade of the named colour."""
    value = np.asarray(COLOURS[name]) * (1 + 2 * spread * rng.uniform(-1, 1)) + spread * rng.uniform(
        -0.6, 0.6, 3
    )
    red, green, blue = (float(v) for v in np.clip(value, 0.04, 0.93))
    return red, green, blue


def _swap_table() -> tuple[float, np.ndarray]:
    """Return the fraction of identities in swapped pairs, and the symmetric probabilities of (upper, lower).

    In swapped pairs upper and lower have the same marginal distribution, so that pairs can use a colour only
    as often as the smaller of its two frequencies. That minimum is their marginal; scaling fits a table
    with a zero diagonal to it.
    """
    common = np.array([min(UPPER_FREQUENCY[c], LOWER_FREQUENCY[c]) for c in COLOURS])
    target = common / common.sum()
    scale = np.sqrt(target)
    off_diagonal = 1 - np.eye(len(target))
    for _ in range(200):
        scale *= np.sqrt(target / (scale * (off_diagonal @ scale)))
    return float(common.sum()), np.outer(scale, scale) * off_diagonal


SWAPPED_FRACTION, _SWAP = _swap_table()


def _person(rng: np.random.Generator, upper: str, lower: str, dress_frequency: float) -> Identity:
    garment = "dress" if rng.random() < dress_frequency else _choose(rng, GARMENT_FREQUENCY)
    if rng.random() < LONG_HAIR_FREQUENCY[garment]:
        hair = "long" if rng.random() < 0.6 else "ponytail"
    else:
        hair = _choose(rng, {"short": 0.85, "bob": 0.11, "bald": 0.04})
    slight = hair in ("long", "ponytail", "bob") or garment in ("skirt", "dress")
    hair_tone = _choose(rng, {"black": 0.72, "dark_brown": 0.18, "brown": 0.07, "fair": 0.03})
    hair_colour = {
        "black": (0.07, 0.06, 0.06), "dark_brown": (0.17, 0.11, 0.08),
        "brown": (0.33, 0.21, 0.13), "fair": (0.58, 0.46, 0.28),
    }[hair_tone]  # fmt: skip
    tone = rng.random() ** 1.6  # 0 light .. 1 dark
    skin = tuple(
        float(v) for v in (1 - tone) * np.array([0.86, 0.67, 0.56]) + tone * np.array([0.45, 0.30, 0.22])
    )
    accent = _choose(rng, {name: frequency for name, frequency in UPPER_FREQUENCY.items() if name != upper})
    shoes = _choose(
        rng, {"black": 0.42, "white": 0.28, "gray": 0.12, "brown": 0.08, "red": 0.05, "blue": 0.05}
    )
    bag = _choose(rng, {"black": 0.45, "blue": 0.12, "red": 0.12, "brown": 0.11, "gray": 0.10, "yellow": 0.05,
                        "pink": 0.05})  # fmt: skip
    return Identity(
        upper=upper,
        lower=lower,
        upper_colour=_shade(rng, upper),
        lower_colour=_shade(rng, lower),
        pattern=_choose(rng, PATTERN_FREQUENCY),
        accent=_shade(rng, accent),
        lower_pattern=_choose(rng, LOWER_PATTERN_FREQUENCY),
        open_front=bool(rng.random() < OPEN_FRONT_FREQUENCY),
        inner=_shade(
            rng, _choose(rng, {"white": 0.6, "black": 0.15, "gray": 0.15, "yellow": 0.05, "red": 0.05})
        ),
        sleeves="short" if rng.random() < SHORT_SLEEVES_FREQUENCY else "long",
        garment=garment,
        shoes=_shade(rng, shoes),
        socks=float(rng.choice([0.0, 0.0, 0.12, 0.3])),
        hair=hair,
        hair_colour=hair_colour,
        skin=skin,  # type: ignore[arg-type]
        hat=bool(rng.random() < HAT_FREQUENCY),
        hat_colour=_shade(rng, _choose(rng, {"black": 0.3, "white": 0.3, "red": 0.2, "blue": 0.2})),
        bag=_choose(rng, BAG_FREQUENCY),
        bag_colour=_shade(rng, bag),
        side=1 if rng.random() < 0.5 else -1,
        height=float(np.clip(rng.normal(0.97 if slight else 1.02, 0.035), 0.88, 1.12)),
        girth=float(np.clip(rng.normal(0.92 if slight else 1.04, 0.09), 0.75, 1.35)),
        shoulders=float(np.clip(rng.normal(0.93 if slight else 1.04, 0.04), 0.84, 1.15)),
        stride=float(rng.uniform(0.75, 1.2)),
    )


def are_swapped(one: Identity, other: Identity) -> bool:
    """Return whether the two differ only in which body part wears which colour."""
    return one.upper != one.lower and swapped(one) == other


def swapped(person: Identity) -> Identity:
    """Return the same person with the colours of upper and lower clothing exchanged."""
    return replace(
        person,
        upper=person.lower,
        lower=person.upper,
        upper_colour=person.lower_colour,
        lower_colour=person.upper_colour,
    )


def sample_identities(count: int, seed: int) -> list[Identity]:
    """Sample ``count`` identities; 2i and 2i+1 are either a swapped pair or two independent people.

    The first ``k`` are the same for every ``count >= k``.
    """
    colours = list(COLOURS)
    upper_rest = {c: UPPER_FREQUENCY[c] - min(UPPER_FREQUENCY[c], LOWER_FREQUENCY[c]) for c in colours}
    lower_rest = {c: LOWER_FREQUENCY[c] - min(UPPER_FREQUENCY[c], LOWER_FREQUENCY[c]) for c in colours}
    pair_frequency = {
        f"{u} {low}": float(_SWAP[i, j]) for i, u in enumerate(colours) for j, low in enumerate(colours)
    }
    people: list[Identity] = []
    for pair in range((count + 1) // 2):
        rng = np.random.default_rng([seed, pair])
        if rng.random() < SWAPPED_FRACTION:
            upper, lower = _choose(rng, pair_frequency).split()
            one = _person(rng, upper, lower, dress_frequency=0.0)
            people += [one, swapped(one)]
        else:
            for _ in range(2):
                upper, lower = _choose(rng, upper_rest), _choose(rng, lower_rest)
                people.append(_person(rng, upper, lower, DRESS_FREQUENCY / (1 - SWAPPED_FRACTION)))
    return people[:count]
