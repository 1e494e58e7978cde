"""Published genotypes, by the names that the command line uses."""

from autoreid_fast.nas.genotype import Cell, Genotype, checked_cell

_SHORT = {
    "max3": "max_pool_3x3",
    "avg3": "avg_pool_3x3",
    "skip": "skip_connect",
    "sep3": "sep_conv_3x3",
    "sep5": "sep_conv_5x5",
    "dil3": "dil_conv_3x3",
    "dil5": "dil_conv_5x5",
    "part": "part_aware",
}


def _cell(text: str) -> Cell:
    """Read one line of the table below: bars between nodes, commas between edges; operation, then input."""
    nodes = ([edge.split() for edge in node.split(",")] for node in text.split("|"))
    return checked_cell(text, [[(_SHORT[op], int(source)) for op, source in node] for node in nodes])


GENOTYPES: dict[str, Genotype] = {
    # DARTS [20], first and second order, and GDAS [9], as their authors released them.
    "darts_v1": Genotype(
        normal=_cell("sep3 1, sep3 0 | skip 0, sep3 1 | skip 0, sep3 1 | sep3 0, skip 2"),
        reduce=_cell("max3 0, max3 1 | skip 2, max3 0 | max3 0, skip 2 | skip 2, avg3 0"),
    ),
    "darts_v2": Genotype(
        normal=_cell("sep3 0, sep3 1 | sep3 0, sep3 1 | sep3 1, skip 0 | skip 0, dil3 2"),
        reduce=_cell("max3 0, max3 1 | skip 2, max3 1 | max3 0, skip 2 | skip 2, max3 1"),
    ),
    "gdas_v1": Genotype(
        normal=_cell("skip 0, skip 1 | skip 0, sep5 2 | sep3 3, skip 0 | sep5 4, sep3 3"),
        reduce=_cell("sep5 0, sep3 1 | sep5 2, sep5 1 | dil5 2, sep3 1 | sep5 0, sep5 1"),
    ),
    # Table 1, run 1 of "Baseline", "Baseline + ReID Search Space" and "Retrieval + ReID Search Space".
    "autoreid_baseline": Genotype(
        normal=_cell("dil3 1, dil3 0 | dil3 1, sep3 2 | dil3 2, sep3 1 | sep3 2, sep3 3"),
        reduce=_cell("sep3 1, skip 0 | max3 2, dil3 1 | max3 0, dil3 2 | skip 0, dil3 4"),
    ),
    "autoreid_base_reid": Genotype(
        normal=_cell("dil3 0, skip 1 | max3 2, sep3 0 | max3 3, sep3 1 | sep3 2, dil3 3"),
        reduce=_cell("skip 1, part 0 | avg3 2, part 0 | sep3 1, avg3 2 | skip 4, max3 3"),
    ),
    "autoreid_retrieval": Genotype(
        normal=_cell("sep3 0, skip 1 | dil3 2, dil3 0 | dil3 3, sep3 2 | dil3 4, dil3 3"),
        reduce=_cell("max3 0, part 1 | sep3 0, dil3 2 | dil3 2, max3 0 | dil3 4, dil3 3"),
    ),
}
