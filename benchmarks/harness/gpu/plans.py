"""The two runs of a GPU session: their items, in the order of what matters most."""

from functools import partial

from ..case import case_names
from . import galleries, kernels, steps, tools
from .items import Item

OPS = ("mixed_op_sum", "separable_conv", "stencil3x3", "part_attention", "batch_hard", "batch_from_cache")
RIVALS = tuple(name for name in case_names() if name != "supernet_step")


def _pair(supernet: str, execution: str, precision: str, pairs: int, seconds: int) -> Item:
    run = partial(steps.pair, supernet=supernet, execution=execution, precision=precision, pairs=pairs)
    return Item(f"step pair, {supernet}, {execution}, {precision}", seconds, run)


def _ops(seconds: int, rivals: bool = False, names: tuple[str, ...] = OPS) -> list[Item]:
    title = "op with rivals" if rivals else "op"
    return [
        Item(f"{title}, {name}", seconds, partial(kernels.op, name=name, rivals=rivals)) for name in names
    ]


PAIRS = [
    Item("ceilings", 10, kernels.ceilings),
    _pair("source", "captured", "float32", 20, 20),
    _pair("source", "captured", "bfloat16", 20, 20),
    _pair("source", "eager", "float32", 3, 15),
    _pair("reference", "captured", "float32", 3, 30),
    _pair("reference", "eager", "float32", 2, 15),
]
GALLERIES = [
    Item("evaluation", 10, galleries.evaluation),
    Item("re-ranking", 15, galleries.reranking),
    Item("CPU and GPU ranks", 15, galleries.cpu_ranks),
    Item("products", 10, galleries.products),
    Item("nearest", 10, galleries.nearest),
    Item("sorting evaluator", 10, galleries.sorting_evaluator),
]
START = [Item("doctor", 10, tools.doctor), Item("tests", 120, tools.tests_and_kernels)]
FIRST = [
    *START,
    *PAIRS,
    *_ops(20),
    *GALLERIES,
    Item("sanitizers", 60, tools.sanitizers),
    Item("counters", 40, tools.profile_counters),
]
SECOND = [
    *START,
    *PAIRS[:3],
    *_ops(20),
    *GALLERIES[:3],
    Item("search and training", 150, steps.short_search),
    *_ops(60, rivals=True, names=RIVALS),
]
