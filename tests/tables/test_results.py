"""What is printed: ours beside the paper's, means and deviations, what is not there yet, what failed."""

import json
import math
from pathlib import Path
from typing import Any

from autoreid_fast.data.config import DataConfig
from autoreid_fast.files import write_json
from autoreid_fast.paper.tables import TableNumber, load_table
from autoreid_fast.tables.plan import Where, chosen_rows, plan
from autoreid_fast.tables.results import as_markdown, as_text, results, write_results


def result(
    tmp_path: Path, number: TableNumber, rows: list[str], seeds: tuple[int, ...], done: Any
) -> dict[str, Any]:
    """The results of a table in which ``done(cell)`` are the figures that each cell's run has left."""
    table = load_table(number)
    chosen = chosen_rows(table, rows)
    place = Where(tmp_path, DataConfig(root=tmp_path), tmp_path, {}, "auto", "full")
    cells, tasks = plan(table, chosen, seeds, place)
    for task in tasks:
        if task.command == "train":
            write_json(task.result, {"params_M": 3.456, "rank1": 0.5, "mAP": 0.25})
    for cell in cells:
        cell.task.result.unlink(missing_ok=True)
        if (figures := done(cell)) is not None:
            write_json(cell.task.result, figures)
    return results(number, table, chosen, cells, "full")


def test_mean_and_deviation_over_the_seeds_that_are_done(tmp_path: Path) -> None:
    shares = {0: 0.50, 1: 0.53, 2: 0.59}
    costs = {"params_M": 9.02, "flops_G": 1.69}
    found = result(
        tmp_path,
        *(4, ["DARTS", "GDAS"], (0, 1, 2)),
        lambda cell: {"mAP": shares[cell.seed], "rank1": 0.9, **costs} if cell.row == "DARTS" else None,
    )
    assert (found["runs_done"], found["runs"]) == (3, 6)
    darts, gdas = found["rows"]
    assert darts["paper"] == {"mAP": 65.2, "rank1": 85.6, "params_M": 9.1, "flops_G": 1.75}
    assert round(darts["ours"]["mAP"]["mean"], 6) == 54
    assert round(darts["ours"]["mAP"]["deviation"], 6) == round(((16 + 1 + 25) / 2) ** 0.5, 6)
    assert gdas["ours"]["mAP"] is None
    lines = as_text(found).splitlines()
    assert next(line.split() for line in lines if line.split()[:1] == ["DARTS"]) == (
        ["DARTS", "65.2", "54.0", "±", "4.6", "85.6", "90.0", "±", "0.0", "9.1", "9.02", "1.75", "1.690"]
    )
    assert next(line.split() for line in lines if line.split()[:1] == ["GDAS"]) == (
        ["GDAS", "66.8", "…", "86.5", "…", "13.5", "…", "2.3", "…"]
    )
    assert "| DARTS | 65.2 | 54.0 ± 4.6 | 85.6 | 90.0 ± 0.0 | 9.1 | 9.02 | 1.75 | 1.690 |" in as_markdown(
        found
    )
    write_results(tmp_path, found)
    assert json.loads((tmp_path / "table.json").read_text()) == json.loads(json.dumps(found))


def test_both_kinds_of_boxes_have_columns_of_their_own(tmp_path: Path) -> None:
    share = {"labeled": 0.7, "detected": 0.6}
    found = result(
        tmp_path,
        *(5, ["Baseline", "PAN"], (0,)),
        lambda cell: {"rank1": share[cell.variant], "mAP": share[cell.variant] - 0.1},
    )
    assert list(found["columns"].values()) == [
        "labeled rank-1",
        "labeled mAP",
        "detected rank-1",
        "detected mAP",
    ]
    text = as_text(found)
    assert [line.split() for line in text.splitlines() if "PAN" in line] == [
        ["PAN", "36.9", "–", "35.0", "–", "36.3", "–", "34.0", "–"]
    ]
    ours = ["Baseline", "75.0", "70.0", "70.1", "60.0", "70.5", "60.0", "66.5", "50.0"]
    assert [line.split() for line in text.splitlines() if "Baseline" in line] == [ours]


def test_a_re_ranked_row_has_its_own_ranks_and_its_networks_size(tmp_path: Path) -> None:
    found = result(tmp_path, 3, ["Baseline + RK"], (0,), lambda cell: {"rank1": 0.8, "mAP": 0.75})
    (row,) = found["rows"]
    assert {column: value["mean"] for column, value in row["ours"].items()} == {
        "params_M": 3.456,
        "rank1": 80,
        "mAP": 75,
    }


def test_what_the_searches_chose_stands_under_the_table(tmp_path: Path) -> None:
    """1, 2 and 3 part_aware modules over the seeds in the ReID space; none to choose in the standard one."""
    rows = ["Baseline (run 1)", "Baseline + ReID Search Space (run 1)", "GDAS"]
    table = load_table(1)
    chosen = chosen_rows(table, rows)
    place = Where(tmp_path, DataConfig(root=tmp_path), None, {}, "auto", "full")
    cells, tasks = plan(table, chosen, (0, 1, 2), place)

    def choices() -> list[str]:
        found = results(1, table, chosen, cells, "full")
        marked, plain = (show(found).split("What the searches chose")[1] for show in (as_markdown, as_text))
        lines = [line for line in marked.splitlines() if "(run 1)" in line]
        for line in lines:  # the terminal shows the same
            assert line.replace("|", " ").split() in [words.split() for words in plain.splitlines()]
        return lines

    assert choices() == [
        "| Baseline (run 1) | … | … | … | … |",
        "| Baseline + ReID Search Space (run 1) | … | … | … | … |",
    ]
    for task in tasks:
        if task.command == "search":
            seed = int(task.run.name[-1])
            ops = ["part_aware"] * (seed + 1) + ["sep_conv_3x3"] * (7 - seed)
            nodes = [[[ops[2 * node], 0], [ops[2 * node + 1], 1]] for node in range(4)]
            plain = [[["skip_connect", 0], ["sep_conv_3x3", 1]]] * 4
            offered = "reid" in task.run.name
            genotype = {"normal": nodes if offered else plain, "reduce": plain}
            entropies = {"entropy_normal": 0.5 * math.log(7 if offered else 6), "entropy_reduce": 0.0}
            write_json(task.result, {"genotype": genotype, **entropies})
    assert choices() == [
        "| Baseline (run 1) | – | – | 50.0 ± 0.0 | 0.0 ± 0.0 |",
        "| Baseline + ReID Search Space (run 1) | 2.0 ± 1.0 | 0.0 ± 0.0 | 50.0 ± 0.0 | 0.0 ± 0.0 |",
    ]
