"""Layered layout of a cell's graph (Sugiyama, Tagawa and Toda, 1981).

Layers run from left to right: the inputs, then alternately operations and the nodes that add their outputs,
then the cell's output. A wire has an item of its own in every layer that it passes, so that wires run between
boxes, never through them.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from autoreid_fast.nas.genotype import Cell
from autoreid_fast.nas.space import CELL_INPUTS

INPUTS = ("cₖ₋₂", "cₖ₋₁")
OUTPUT = "cₖ"

SIZES = {"input": (52.0, 30.0), "op": (102.0, 28.0), "node": (32.0, 32.0), "wire": (0.0, 8.0)}
"""Width and height of each kind of item, in pixels."""

LAYER_GAP = 34.0
ITEM_GAP = 13.0
INITIAL_SPACING = 40.0
ATTEMPTS = 24
SWEEPS = 6
PLACEMENT_ROUNDS = 40


@dataclass
class Item:
    """Box, or the point at which a wire passes a layer; ``x`` and ``y`` are its centre in pixels."""

    kind: str
    label: str
    layer: int
    x: float = 0.0
    y: float = 0.0


@dataclass(frozen=True)
class Layout:
    """Positions of a cell's graph; a wire is the items that it connects, from left to right."""

    items: tuple[Item, ...]
    wires: tuple[tuple[Item, ...], ...]
    width: float
    height: float


Layers = Sequence[Sequence[Item]]
Link = tuple[Item, Item]
"""Two items of a wire in neighbouring layers, the left one first."""


def cell_layout(cell: Cell) -> Layout:
    """Lay out a genotype's cell; deterministic."""
    items, wires = _graph(cell)
    layers: list[list[Item]] = [[] for _ in range(1 + max(item.layer for item in items))]
    for item in items:
        layers[item.layer].append(item)
    links = [link for wire in wires for link in pairwise(wire)]
    layers = _reduce_crossings(layers, links)
    _place(layers, links)
    top = min(item.y - SIZES[item.kind][1] / 2 for item in items)
    for item in items:
        item.y -= top
    right = max(item.x + SIZES[item.kind][0] / 2 for item in items)
    bottom = max(item.y + SIZES[item.kind][1] / 2 for item in items)
    return Layout(tuple(items), tuple(wires), right, bottom)


def _graph(cell: Cell) -> tuple[list[Item], list[tuple[Item, ...]]]:
    """All items, including those of wires that pass layers, and the wires."""
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


def _wire(start: Item, end: Item, items: list[Item]) -> tuple[Item, ...]:
    """Connect two items; the items of the layers between them are appended to ``items``."""
    between = [Item("wire", "", layer) for layer in range(start.layer + 1, end.layer)]
    items += between
    return (start, *between, end)


def _reduce_crossings(layers: Layers, links: Sequence[Link]) -> list[list[Item]]:
    """Order each layer from top to bottom for few crossings.

    Barycentre heuristic: sweeps from left to right and back sort every layer by the mean row of the
    neighbours. The best order over several shuffled starts is returned.
    """
    generator = random.Random(0)
    left = {id(item): [a for a, b in links if b is item] for layer in layers for item in layer}
    right = {id(item): [b for a, b in links if a is item] for layer in layers for item in layer}
    best, fewest = [list(layer) for layer in layers], float("inf")
    for attempt in range(ATTEMPTS):
        order = [list(layer) for layer in layers]
        if attempt > 0:
            for layer in order[1:]:
                generator.shuffle(layer)
        for sweep in range(SWEEPS):
            rightwards = sweep % 2 == 0
            _sort_layers(order if rightwards else order[::-1], left if rightwards else right)
            cost = _crossing_cost(order, links)
            if cost < fewest:
                best, fewest = [list(layer) for layer in order], cost
    return best


def _sort_layers(layers: Sequence[list[Item]], neighbours: dict[int, list[Item]]) -> None:
    """Sort each layer in place by the mean row of its items' ``neighbours``; without any, an item stays."""
    row = {id(item): index for layer in layers for index, item in enumerate(layer)}
    for layer in layers:
        mean_row = {}
        for item in layer:
            rows = [row[id(other)] for other in neighbours[id(item)]] or [row[id(item)]]
            mean_row[id(item)] = sum(rows) / len(rows)
        layer.sort(key=lambda item, mean_row=mean_row: mean_row[id(item)])  # type: ignore[misc]
        row |= {id(item): index for index, item in enumerate(layer)}


def _crossing_cost(layers: Layers, links: Sequence[Link]) -> float:
    """Number of crossing links, plus a small cost of steep links to break ties."""
    row = {id(item): index - (len(layer) - 1) / 2 for layer in layers for index, item in enumerate(layer)}
    spans = [(left.layer, row[id(left)], row[id(right)]) for left, right in links]
    crossings = sum(a[0] == b[0] and (a[1] - b[1]) * (a[2] - b[2]) < 0 for a, b in combinations(spans, 2))
    return crossings + 1e-3 * sum(abs(left - right) for _, left, right in spans)


def _place(layers: Layers, links: Sequence[Link]) -> None:
    """Set coordinates: layers from left to right, items as level with their neighbours as possible."""
    left = 0.0
    for layer in layers:
        width = max(SIZES[item.kind][0] for item in layer)
        for index, item in enumerate(layer):
            item.x = left + width / 2
            item.y = INITIAL_SPACING * (index - (len(layer) - 1) / 2)
        left += width + LAYER_GAP
    neighbours: dict[int, list[Item]] = {id(item): [] for layer in layers for item in layer}
    for one, other in links:
        # the inner part of a wire should be level, which matters more than where its ends are
        weight = 4 if one.kind == other.kind == "wire" else 2 if "wire" in (one.kind, other.kind) else 1
        neighbours[id(one)] += weight * [other]
        neighbours[id(other)] += weight * [one]
    for _ in range(PLACEMENT_ROUNDS):
        for layer in layers:
            wanted = [
                sum(other.y for other in neighbours[id(item)]) / len(neighbours[id(item)]) for item in layer
            ]
            for item, y in zip(layer, _spaced(layer, wanted), strict=True):
                item.y = y


def _spaced(layer: Sequence[Item], wanted: Sequence[float]) -> list[float]:
    """Heights nearest to ``wanted`` (least squares) that keep the order and the gaps of ``layer``.

    Isotonic regression of the heights without the gaps, by pooling adjacent violators.
    """
    offsets = [0.0]
    for above, below in pairwise(layer):
        gap = (SIZES[above.kind][1] + SIZES[below.kind][1]) / 2 + ITEM_GAP
        offsets.append(offsets[-1] + gap)
    pools: list[tuple[float, int]] = []  # mean height and number of items
    for value, offset in zip(wanted, offsets, strict=True):
        pool = (value - offset, 1)
        while pools and pools[-1][0] > pool[0]:
            mean, count = pools.pop()
            total = count + pool[1]
            pool = ((mean * count + pool[0] * pool[1]) / total, total)
        pools.append(pool)
    levels = [mean for mean, count in pools for _ in range(count)]
    return [level + offset for level, offset in zip(levels, offsets, strict=True)]
