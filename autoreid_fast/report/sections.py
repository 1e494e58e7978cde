"""The sections of a report, each from what the runs have left; None where they have nothing for it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import yaml
from matplotlib.figure import Figure

from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.report import curves, figures
from autoreid_fast.report.alpha import alpha_figure, alpha_heat, alpha_history
from autoreid_fast.report.cell import genotype_figure, summary
from autoreid_fast.report.looks import looks, looks_figure
from autoreid_fast.report.page import Section, Table, render, table
from autoreid_fast.report.ranked import Card, RankedList, ranked_figure, ranked_lists
from autoreid_fast.report.run_view import RunView, evaluations_of
from autoreid_fast.report.theme import Drawing

Figures = dict[str, Drawing]
"""Every figure that a report draws, by the name of its files; sections add theirs."""


def ranking_section(runs: Sequence[RunView], beside: RunView | None) -> Section | None:
    """Headline figures of what was evaluated."""
    evaluated = [run for run in runs if run.evaluated]
    if not evaluated:
        return None
    return Section("figures", "Figures", figures.ranking(evaluated, beside))


def search_section(run: RunView) -> Section | None:
    """What a search found, in figures."""
    if run.genotype is None:
        return None
    return Section("search", "The search", figures.found(run, run.genotype))


def cells_section(runs: Sequence[RunView], drawn: Figures) -> Section | None:
    """Both cells of every genotype among ``runs`` as graphs; of several, under the names of their runs."""
    names: dict[Genotype, list[str]] = {}
    for run in runs:
        if run.genotype is not None:
            names.setdefault(run.genotype, []).append(run.name)
    if not names:
        return None
    pictures = []
    for number, (genotype, runs_of) in enumerate(names.items(), start=1):
        name = "cells" if len(names) == 1 else f"cells-{number}"
        drawn[name] = Drawing(genotype_figure(genotype))
        label = f"Normal cell: {summary(genotype.normal)}. Reduction cell: {summary(genotype.reduce)}."
        pictures.append((", ".join(runs_of) if len(runs) > 1 else "", drawn[name].inline(name, label)))
    note = (
        "cₖ₋₂ and cₖ₋₁ are the outputs of the last two cells; a node, 0 to 3, adds what its two operations "
        "give; cₖ is the concatenation of the four nodes."
    )
    return Section("cells", "The cells", render("cells", pictures=pictures, note=note))


def alpha_section(run: RunView, drawn: Figures) -> Section | None:
    """alpha over the epochs."""
    alpha = alpha_history(run.history, run.config.get("space", "reid"))
    if alpha is None:
        return None
    drawn["alpha"] = Drawing(alpha_figure(alpha))
    return Section("alpha", "Alpha over the epochs", alpha_heat(alpha))


def history_section(run: RunView, drawn: Figures, title: str, anchor: str) -> Section | None:
    """Losses, learning rates and what else the epochs recorded."""
    if not run.history:
        return None
    charts = curves.history_figures(run.history)
    return _charts(anchor, title, {f"{anchor}-{name}": chart for name, chart in charts.items()}, drawn)


def compared_section(runs: Sequence[RunView], drawn: Figures) -> Section | None:
    """The histories of several runs, one chart a figure."""
    charts = curves.compared_figures({run.name: run.history for run in runs})
    return _charts("curves", "Curves", charts, drawn) if charts else None


def curve_section(runs: Sequence[RunView], drawn: Figures) -> Section | None:
    """CMC curves of all runs and their evaluations, and how the first one's APs are spread."""
    ranked = {run.name: run.retrieval for run in with_evaluations(runs) if run.retrieval}
    if not ranked:
        return None
    name, first = next(iter(ranked.items()))
    charts = {
        "cmc": curves.cmc_figure({name: retrieval["cmc"] for name, retrieval in ranked.items()}),
        "average-precision": curves.precision_figure(
            first["average_precision"], name if len(ranked) > 1 else ""
        ),
    }
    return _charts("cmc", "CMC and AP", charts, drawn)


def with_evaluations(runs: Sequence[RunView]) -> list[RunView]:
    """Every run, each followed by the evaluations of it."""
    return [view for run in runs for view in (run, *evaluations_of(run))]


def evaluations_section(run: RunView) -> Section | None:
    """What `eval` measured of this run."""
    rows = [
        [each.name, *(figures.share(each.metrics, name) for name, _ in figures.SHARES)]
        for each in evaluations_of(run)
    ]
    if not rows:
        return None
    header = ["evaluation", *(label for _, label in figures.SHARES)]
    note = "What eval measured of this run; each has a page of its own in the folder evaluations."
    return Section("evaluations", "Evaluations", table(Table(header, rows), note))


def lists_section(run: RunView, drawn: Figures) -> Section | None:
    """Ranked lists of the best, typical and worst queries."""
    if run.retrieval is None or not run.retrieval["lists"]:
        return None
    lists = [ranked_list(ranked) for ranked in run.retrieval["lists"]]
    drawn["ranked-lists"] = Drawing(ranked_figure(lists))
    note = (
        "Left the query, then its nearest gallery images. A solid frame and a tick: the same person; dashed "
        "and a cross: somebody else. Junk and images of the query's person from its own camera are left out, "
        "as the protocol has it."
    )
    return Section("lists", "Ranked lists", ranked_lists(lists, note))


def ranked_list(ranked: Mapping[str, Any]) -> RankedList:
    """A list of ``retrieval.json`` as a page shows it."""
    cards, late = [], ranked["first_hit"] > len(ranked["entries"])
    for place, entry in enumerate(ranked["entries"], start=1):
        rank = ranked["first_hit"] if late and entry["match"] else place
        cards.append(_card(entry, str(rank), "right" if entry["match"] else "wrong"))
    matches = "1 match" if ranked["matches"] == 1 else f"{ranked['matches']} matches"
    title = (
        f"{ranked['kind'].capitalize()}: AP {100 * ranked['average_precision']:.1f} %, {matches}, "
        f"the first at rank {ranked['first_hit']}"
    )
    gap = len(cards) - 1 if late else -1
    return RankedList(title, _card(ranked["query"], "query", ""), cards, gap)


def _card(image: Mapping[str, Any], first: str, verdict: Any) -> Card:
    camera = [] if image["camera"] is None else [f"camera {image['camera']}"]
    return Card(image["picture"], image["path"], [first, *camera], verdict)


def looks_section(run: RunView, drawn: Figures) -> Section | None:
    """Where the network looks, on the queries of the ranked lists."""
    lists = [ranked for ranked in (run.retrieval or {}).get("lists", []) if "looks" in ranked["query"]]
    if not lists:
        return None
    drawn["looks"] = Drawing(looks_figure(lists))
    rows, columns = len(lists[0]["query"]["looks"]), len(lists[0]["query"]["looks"][0])
    note = (
        f"The feature is the mean over the {rows} x {columns} places of the last feature map; the brighter, "
        "the larger the place's share in it (its part of the feature's squared length)."
    )
    return Section("looks", "Where the network looks", looks(lists, note))


def costs_section(runs: Sequence[RunView]) -> Section | None:
    """Parameters, multiply-adds and activations by stage."""
    counted = {run.name: run.metrics["costs"] for run in runs if "costs" in run.metrics}
    if not counted:
        return None
    header = ["stage", "parameters, M", "multiply-adds, G", "activations, MB"]
    parts = []
    for name, each in counted.items():
        rows = [_stage(stage) for stage in (*each["stages"], {"name": "total", **each})]
        parts.append((name if len(counted) > 1 else "", table(Table(header, rows, total=True))))
    size = next(iter(counted.values()))
    note = (
        f"One image of {size['height']}x{size['width']}; the classifier has {size['num_classes']} "
        "identities. Activations: what a float32 forward pass writes."
    )
    return Section("costs", "Costs", render("beside", parts=parts, note=note))


def _stage(counted: Mapping[str, Any]) -> list[str]:
    costs = f"{counted['params_M']:.3f}", f"{counted['flops_G']:.4f}", f"{counted['activation_MB']:.1f}"
    return [counted["name"], *costs]


def config_section(runs: Sequence[RunView]) -> Section:
    """The resolved configs."""
    texts = [
        (f"{run.command}: {run.name}", yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True))
        for run in runs
    ]
    return Section("config", "Configuration", render("config", texts=texts))


def machine_section(runs: Sequence[RunView]) -> Section:
    """What the runs ran on."""
    described = [machine(run) for run in runs]
    rows = [[name, *(each[name] for each in described)] for name in described[0]]
    rows = [row for row in rows if any(row[1:])]
    same = [row[:2] for row in rows if len(set(row[1:])) == 1]
    different = [row for row in rows if len(set(row[1:])) > 1]
    parts = [("", table(Table(["", *(run.name for run in runs)], different, text=True)))] if different else []
    parts.append(("", table(Table(["", "all runs" if different else ""], same, text=True))))
    return Section("machine", "Machine", render("beside", parts=parts, note=""))


def machine(run: RunView) -> dict[str, str]:
    """The environment of a run in words; nothing for what is not known."""
    known = run.environment
    threads = f"threads: {known.get('cpu_threads', '?')}"
    packages = known.get("packages", {})
    versions = (f"{name} {version}" for name, version in packages.items() if version)
    return {
        "began": moment(str(known.get("date", ""))),
        "took": figures.time_taken(run) if run.history else "",
        "GPU": ", ".join(known.get("gpus", [])),
        "CPU": f"{known['cpu']}, {threads}" if "cpu" in known else threads,
        "system": str(known.get("platform", "")),
        "Python": str(known.get("python", "")),
        "packages": ", ".join(versions),
        "commit": str(known.get("commit") or "")[:10],
    }


def moment(date: str) -> str:
    """A time of ISO 8601 in UTC as people write it; what is none, as it is."""
    try:
        return f"{datetime.fromisoformat(date):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return date


def _charts(anchor: str, title: str, charts: Mapping[str, Figure], drawn: Figures) -> Section:
    inline = []
    for name, chart in charts.items():
        drawn[name] = Drawing(chart)
        inline.append(drawn[name].inline(name, chart.axes[0].get_title(loc="left") or name))
    return Section(anchor, title, render("charts", charts=inline, note=""))
