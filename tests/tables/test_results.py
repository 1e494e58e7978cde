"""Results of a table: means and deviations beside the paper's figures, unfinished runs, searches."""

import json
import math
from collections.abc import Callable
from pathlib import Path

from autoreid_fast.data.config import DataConfig
from autoreid_fast.files import write_json
from autoreid_fast.paper.tables import TableNumber, load_table
from autoreid_fast.tables.output import as_markdown, as_text, write_results
from autoreid_fast.tables.plan import Entry, TableSetup, choose_rows, plan
from autoreid_fast.tables.results import TableResults, collect_results


def results_of(
    tmp_path: Path,
    number: TableNumber,
    rows: list[str],
    seeds: tuple[int, ...],
    metrics_of: Callable[[Entry], dict[str, float] | None],
) -> TableResults:
    """Results of a table after every entry's run wrote ``metrics_of(entry)``, or is unfinished for None."""
    table = load_table(number)
    chosen = choose_rows(table, rows)
    setup = TableSetup(tmp_path, DataConfig(root=tmp_path), tmp_path, {}, "auto", "full")
    entries, tasks = plan(table, chosen, seeds, setup)
    for task in tasks:
        if task.command == "train":
            write_json(task.result, {"params_M": 3.456, "rank1": 0.5, "mAP": 0.25})
    for entry in entries:
        entry.task.result.unlink(missing_ok=True)
        if (metrics := metrics_of(entry)) is not None:
            write_json(entry.task.result, metrics)
    return collect_results(number, table, chosen, entries, "full")


def test_mean_and_deviation_over_finished_seeds(tmp_path: Path) -> None:
    mean_average_precision = {0: 0.50, 1: 0.53, 2: 0.59}
    costs = {"params_M": 9.02, "flops_G": 1.69}
    results = results_of(
        tmp_path,
        *(4, ["DARTS", "GDAS"], (0, 1, 2)),
        lambda entry: (
            {"mAP": mean_average_precision[entry.seed], "rank1": 0.9, **costs}
            if entry.row == "DARTS"
            else None
        ),
    )
    assert (results.runs_done, results.runs) == (3, 6)
    darts, gdas = results.rows
    assert darts.paper == {"mAP": 65.2, "rank1": 85.6, "params_M": 9.1, "flops_G": 1.75}
    assert round(darts.ours["mAP"].mean, 6) == 54
    assert round(darts.ours["mAP"].deviation, 6) == round(((16 + 1 + 25) / 2) ** 0.5, 6)
    assert gdas.ours["mAP"] is None
    lines = as_text(results).splitlines()
    assert next(line.split() for line in lines if line.split()[:1] == ["DARTS"]) == (
        ["DARTS", "65.2", "54.0", "±", "4.6", "85.6", "90.0", "±", "0.0", "9.1", "9.02", "1.75", "1.690"]
    )
    assert next(line.split() for line in lines if line.split()[:1] == ["GDAS"]) == (
        ["GDAS", "66.8", "…", "86.5", "…", "13.5", "…", "2.3", "…"]
    )
    assert "| DARTS | 65.2 | 54.0 ± 4.6 | 85.6 | 90.0 ± 0.0 | 9.1 | 9.02 | 1.75 | 1.690 |" in as_markdown(
        results
    )
    write_results(tmp_path, results)
    assert json.loads((tmp_path / "table.json").read_text()) == json.loads(json.dumps(results.to_dict()))


def test_variants_have_separate_columns(tmp_path: Path) -> None:
    rank1 = {"labeled": 0.7, "detected": 0.6}
    results = results_of(
        tmp_path,
        *(5, ["Baseline", "PAN"], (0,)),
        lambda entry: {"rank1": rank1[entry.variant], "mAP": rank1[entry.variant] - 0.1},
    )
    assert list(results.columns.values()) == [
        "labeled rank-1",
        "labeled mAP",
        "detected rank-1",
        "detected mAP",
    ]
    text = as_text(results)
    assert [line.split() for line in text.splitlines() if "PAN" in line] == [
        ["PAN", "36.9", "–", "35.0", "–", "36.3", "–", "34.0", "–"]
    ]
    ours = ["Baseline", "75.0", "70.0", "70.1", "60.0", "70.5", "60.0", "66.5", "50.0"]
    assert [line.split() for line in text.splitlines() if "Baseline" in line] == [ours]


def test_a_re_ranked_row_has_its_own_ranks_and_the_size_of_its_network(tmp_path: Path) -> None:
    results = results_of(tmp_path, 3, ["Baseline + RK"], (0,), lambda entry: {"rank1": 0.8, "mAP": 0.75})
    (row,) = results.rows
    assert {column: summary and summary.mean for column, summary in row.ours.items()} == {
        "params_M": 3.456,
        "rank1": 80,
        "mAP": 75,
    }


def test_statistics_of_searches(tmp_path: Path) -> None:
    """1, 2 and 3 part_aware modules over the seeds in the ReID space; none in the standard space."""
    rows = ["Baseline (run 1)", "Baseline + ReID Search Space (run 1)", "GDAS"]
    table = load_table(1)
    chosen = choose_rows(table, rows)
    setup = TableSetup(tmp_path, DataConfig(root=tmp_path), None, {}, "auto", "full")
    entries, tasks = plan(table, chosen, (0, 1, 2), setup)

    def search_lines() -> list[str]:
        results = collect_results(1, table, chosen, entries, "full")
        markdown, text = (show(results).split("Searches: ")[1] for show in (as_markdown, as_text))
        lines = [line for line in markdown.splitlines() if "(run 1)" in line]
        for line in lines:  # the terminal shows the same values
            assert line.replace("|", " ").split() in [words.split() for words in text.splitlines()]
        return lines

    assert search_lines() == [
        "| Baseline (run 1) | … | … | … | … |",
        "| Baseline + ReID Search Space (run 1) | … | … | … | … |",
    ]
    for task in tasks:
        if task.command == "search":
            seed = int(task.run.name[-1])
            ops = ["part_aware"] * (seed + 1) + ["sep_conv_3x3"] * (7 - seed)
            nodes = [[[ops[2 * node], 0], [ops[2 * node + 1], 1]] for node in range(4)]
            plain = [[["skip_connect", 0], ["sep_conv_3x3", 1]]] * 4
            candidate = "reid" in task.run.name
            genotype = {"normal": nodes if candidate else plain, "reduce": plain}
            entropies = {"entropy_normal": 0.5 * math.log(7 if candidate else 6), "entropy_reduce": 0.0}
            write_json(task.result, {"genotype": genotype, **entropies})
    assert search_lines() == [
        "| Baseline (run 1) | – | – | 50.0 ± 0.0 | 0.0 ± 0.0 |",
        "| Baseline + ReID Search Space (run 1) | 2.0 ± 1.0 | 0.0 ± 0.0 | 50.0 ± 0.0 | 0.0 ± 0.0 |",
    ]
