"""Where the parts of a cell stand in its picture: a layered layout (Sugiyama).

Layers run from left to right: the inputs, then by turns operations and the nodes that add them, then the
output. A wire that passes a layer has a place of its own in it: wires run between boxes, never through.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from autoreid_fast.nas.genotype import CELL_INPUTS, Cell

INPUTS = ("cₖ₋₂", "cₖ₋₁")
OUTPUT = "cₖ"

SIZES = {"input": (52.0, 30.0), "op": (102.0, 28.0), "node": (32.0, 32.0), "wire": (0.0, 8.0)}
"""Width and height of each kind of item, in pixels."""

LAYER_GAP = 34.0
ITEM_GAP = 13.0
TRIES = 24
SWEEPS = 6


@dataclass
class Item:
    """A box, or the place where a wire passes a layer; ``x``, ``y`` is its centre, in pixels."""

    kind: str
    label: str
    layer: int
    x: float = 0.0
    y: float = 0.0


@dataclass(frozen=True)
class Layout:
    """What to draw: ``items`` and ``wires``, each the items that it joins, from left to right; the size."""

    items: tuple[Item, ...]
    wires: tuple[tuple[Item, ...], ...]
    width: float
    height: float


def cell_layout(cell: Cell) -> Layout:
    """The layout of a genotype's cell; the same for the same cell."""
    items, wires = _graph(cell)
    layers: list[list[Item]] = [[] for _ in range(1 + max(item.layer for item in items))]
    for item in items:
        layers[item.layer].append(item)
    links = [pair for wire in wires for pair in pairwise(wire)]
    layers = _ordered(layers, links)
    _place(layers, links)
    top = min(item.y - SIZES[item.kind][1] / 2 for item in items)
    for item in items:
        item.y -= top
    right = max(item.x + SIZES[item.kind][0] / 2 for item in items)
    bottom = max(item.y + SIZES[item.kind][1] / 2 for item in items)
    return Layout(tuple(items), tuple(wires), right, bottom)


def _graph(cell: Cell) -> tuple[list[Item], list[tuple[Item, ...]]]:
    """All items, those that wires need to pass layers included, and the wires."""
    states = [Item("input", label, 0) for label in INPUTS]
    items, wires = list(states), []
    for number, node in enumerate(cell):
        layer = 2 + max(states[edge.input].layer for edge in node)
        state = Item("node", str(number), layer)
        for edge in node:
            op = Item("op", edge.op, layer - 1)
            items.append(op)
            wires.append(_wire(states[edge.input], op, items))
            wires.append((op, state))
        items.append(state)
        states.append(state)
    output = Item("input", OUTPUT, 1 + max(state.layer for state in states))
    items.append(output)
    wires += [_wire(state, output, items) for state in states[CELL_INPUTS:]]
    return items, wires


def _wire(source: Item, target: Item, items: list[Item]) -> tuple[Item, ...]:
    between = [Item("wire", "", layer) for layer in range(source.layer + 1, target.layer)]
    items += between
    return (source, *between, target)


def _ordered(layers: list[list[Item]], links: Sequence[tuple[Item, Item]]) -> list[list[Item]]:
    """Every layer from top to bottom, with few crossings: the best of some starts, each swept to and fro."""
    chance = random.Random(0)
    beside: dict[int, tuple[list[Item], list[Item]]] = {}
    for layer in layers:
        for item in layer:
            beside[id(item)] = (
                [left for left, right in links if right is item],
                [right for left, right in links if left is item],
            )
    best, fewest = layers, float("inf")
    for attempt in range(TRIES):
        order = [list(layer) for layer in layers]
        if attempt:
            for layer in order[1:]:
                chance.shuffle(layer)
        for sweep in range(SWEEPS):
            side = sweep % 2
            row = {id(item): place for layer in order for place, item in enumerate(layer)}
            for layer in order if side == 0 else reversed(order):
                middle = {
                    id(item): sum(row[id(other)] for other in beside[id(item)][side])
                    / max(1, len(beside[id(item)][side]))
                    if beside[id(item)][side]
                    else row[id(item)]
                    for item in layer
                }
                layer.sort(key=lambda item, middle=middle: middle[id(item)])  # type: ignore[misc]
                row |= {id(item): place for place, item in enumerate(layer)}
            cost = _crossings(order, links)
            if cost < fewest:
                best, fewest = [list(layer) for layer in order], cost
    return best


def _crossings(order: Sequence[Sequence[Item]], links: Sequence[tuple[Item, Item]]) -> float:
    """How many pairs of links cross; among equals, long slopes count a little."""
    row = {id(item): place - (len(layer) - 1) / 2 for layer in order for place, item in enumerate(layer)}
    spans = [(left.layer, row[id(left)], row[id(right)]) for left, right in links]
    crossings = sum(a[0] == b[0] and (a[1] - b[1]) * (a[2] - b[2]) < 0 for a, b in combinations(spans, 2))
    return crossings + 1e-3 * sum(abs(left - right) for _, left, right in spans)


def _place(layers: Sequence[Sequence[Item]], links: Sequence[tuple[Item, Item]]) -> None:
    """Columns from left to right; each item as near to its neighbours' height as the order lets."""
    left = 0.0
    for layer in layers:
        width = max(SIZES[item.kind][0] for item in layer)
        for item in layer:
            item.x = left + width / 2
        left += width + LAYER_GAP
        for place, item in enumerate(layer):
            item.y = 40.0 * (place - (len(layer) - 1) / 2)
    neighbours: dict[int, list[Item]] = {id(item): [] for layer in layers for item in layer}
    for one, other in links:
        # a wire's inner stretch should be level, which counts more than where its ends are
        weight = 4 if one.kind == other.kind == "wire" else 2 if "wire" in (one.kind, other.kind) else 1
        neighbours[id(one)] += weight * [other]
        neighbours[id(other)] += weight * [one]
    for _ in range(40):
        for layer in layers:
            wanted = [
                sum(other.y for other in neighbours[id(item)]) / len(neighbours[id(item)]) for item in layer
            ]
            for item, y in zip(layer, _spaced(layer, wanted), strict=True):
                item.y = y


def _spaced(layer: Sequence[Item], wanted: Sequence[float]) -> list[float]:
    """The heights nearest to ``wanted`` (least squares) that keep order and gaps: pooled neighbours."""
    offsets = [0.0]
    for above, below in pairwise(layer):
        gap = (SIZES[above.kind][1] + SIZES[below.kind][1]) / 2 + ITEM_GAP
        offsets.append(offsets[-1] + gap)
    pools: list[tuple[float, int]] = []
    for value, offset in zip(wanted, offsets, strict=True):
        pool = (value - offset, 1)
        while pools and pools[-1][0] > pool[0]:
            mean, count = pools.pop()
            total = count + pool[1]
            pool = ((mean * count + pool[0] * pool[1]) / total, total)
        pools.append(pool)
    levels = [mean for mean, count in pools for _ in range(count)]
    return [level + offset for level, offset in zip(levels, offsets, strict=True)]
