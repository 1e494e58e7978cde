"""Sections of a search and of genotypes: headlines, cell graphs, alpha over the epochs."""

import base64
from collections.abc import Sequence

import numpy as np
import torch
from markupsafe import Markup

from autoreid_fast.models.registry import build_backbone
from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.report.alpha import EDGE_LABELS, TITLES, AlphaHistory, alpha_history
from autoreid_fast.report.metrics import training_time
from autoreid_fast.report.pages.charts import Drawings
from autoreid_fast.report.pages.page import Section, render
from autoreid_fast.report.pages.results import Headline
from autoreid_fast.report.plots.alpha import alpha_figure
from autoreid_fast.report.plots.cells import describe_cell, genotype_figure
from autoreid_fast.report.plots.theme import Drawing
from autoreid_fast.report.run_view import RunView

MARKET1501_IDENTITIES = 751
"""Classes of the linear layer that the paper's parameter counts seem to include."""
PUBLISHED_PARAMETERS = "paper: 8.6 to 14.8"
"""Smallest and largest searched network of Table 1, in millions."""


def search_section(run: RunView) -> Section | None:
    """Headlines of a search: epochs and time, entropy of alpha, part_aware modules, parameters."""
    if run.genotype is None:
        return None
    last = run.history[-1] if run.history else {}
    entropy = last.get("entropy_normal", 0), last.get("entropy_reduce", 0)
    parameters = f"{_parameters(run.genotype) / 1e6:.1f}"
    headlines = [
        Headline("epochs", f"{len(run.history)} of {run.config.get('epochs', '?')}", "", training_time(run)),
        Headline(
            "entropy of alpha", f"{entropy[0]:.2f}", f"/ {entropy[1]:.2f}", "nats, normal / reduction cell"
        ),
        Headline("part_aware", str(_count_part_aware(run.genotype)), "of 16", "operations kept"),
        Headline("parameters at C = 64", parameters, "M", PUBLISHED_PARAMETERS),
    ]
    return Section("search", "The search", render("headlines", headlines=headlines))


def _count_part_aware(genotype: Genotype) -> int:
    cells = (genotype.normal, genotype.reduce)
    return sum(edge.op == "part_aware" for cell in cells for node in cell for edge in node)


def _parameters(genotype: Genotype) -> int:
    """Parameters of the genotype's network and a linear classifier on f, counted as in Table 1."""
    with torch.device("meta"):
        backbone = build_backbone(genotype)
        classifier = torch.nn.Linear(backbone.feature_dim, MARKET1501_IDENTITIES)
    return sum(parameter.numel() for part in (backbone, classifier) for parameter in part.parameters())


def cells_section(runs: Sequence[RunView], drawings: Drawings) -> Section | None:
    """Graphs of both cells of every genotype, each once; of several runs, titled with the runs' names."""
    run_names: dict[Genotype, list[str]] = {}
    for run in runs:
        if run.genotype is not None:
            run_names.setdefault(run.genotype, []).append(run.name)
    if not run_names:
        return None
    graphs = []
    for number, (genotype, names) in enumerate(run_names.items(), start=1):
        file_name = "cells" if len(run_names) == 1 else f"cells-{number}"
        drawings[file_name] = Drawing(genotype_figure(genotype))
        description = (
            f"Normal cell: {describe_cell(genotype.normal)}. "
            f"Reduction cell: {describe_cell(genotype.reduce)}."
        )
        title = ", ".join(names) if len(runs) > 1 else ""
        graphs.append((title, drawings[file_name].inline(file_name, description)))
    note = (
        "cₖ₋₂ and cₖ₋₁ are the outputs of the two preceding cells. Each node, 0 to 3, adds the outputs of "
        "its two operations. cₖ is the concatenation of the four nodes."
    )
    return Section("cells", "The cells", render("cells", graphs=graphs, note=note))


def alpha_section(run: RunView, drawings: Drawings) -> Section | None:
    """softmax(alpha) over the epochs."""
    alpha = alpha_history(run.history, run.config.get("space", "reid"))
    if alpha is None:
        return None
    drawings["alpha"] = Drawing(alpha_figure(alpha))
    return Section("alpha", "Alpha over the epochs", _heat_maps(alpha))


def _heat_maps(alpha: AlphaHistory) -> Markup:
    """Tables of both cells' weights at the last epoch, with a slider over all epochs if scripts run."""
    percent = np.rint(100 * alpha.weights).astype(np.uint8)
    return render(
        "alpha",
        titles=TITLES,
        edges=EDGE_LABELS,
        operations=alpha.operations,
        percent=percent[-1].tolist(),
        kept=alpha.kept[-1].tolist(),
        epochs=len(percent),
        color_limit=round(100 * alpha.color_limit),
        all_weights=_base64(percent),
        all_kept=_base64(np.packbits(alpha.kept.reshape(len(percent), -1), axis=1)),
    )


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode("ascii")
