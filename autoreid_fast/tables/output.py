"""A table's results as text, Markdown and JSON."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from autoreid_fast.files import write_json, write_text
from autoreid_fast.report.text_tables import plain_text
from autoreid_fast.tables.results import COSTS, SEARCH_STATISTICS, RowResults, Summary, TableResults
from autoreid_fast.tables.scale import SCALES

WIDTH = 200
COST_DIGITS = {"params_M": 2, "flops_G": 3}
PENDING, ABSENT = "…", "–"
SEARCHES_NOTE = (
    "Searches: part_aware modules among a cell's 8 operations (uniform alphas would choose 1.3 of them); "
    "entropy of softmax(alpha) in per cent of the logarithm of the number of candidates (100: no preference)."
)


def write_results(out: Path, results: TableResults) -> None:
    """Write ``table.txt``, ``table.md`` and ``table.json``."""
    write_text(out / "table.txt", as_text(results) + "\n")
    write_text(out / "table.md", as_markdown(results) + "\n")
    write_json(out / "table.json", results.to_dict())


def as_text(results: TableResults) -> str:
    """Table for the terminal, followed by the statistics of its searches."""
    headers = [f"{label}\n{source}" for label in results.columns.values() for source in ("paper", "ours")]
    parts = [*_heading(results), _text_table(headers, map(_entries, results.rows))]
    searches = [_search_entries(row) for row in results.rows if row.search is not None]
    if searches:
        labels = [label.replace(", ", "\n") for label in SEARCH_STATISTICS.values()]
        parts += ["", SEARCHES_NOTE, _text_table(labels, searches)]
    return "\n".join(parts)


def as_markdown(results: TableResults) -> str:
    """Table in Markdown, followed by the statistics of its searches."""
    headers = [f"{label} {source}" for label in results.columns.values() for source in ("paper", "ours")]
    parts = [*_heading(results), _markdown_table(headers, map(_entries, results.rows))]
    searches = [_search_entries(row) for row in results.rows if row.search is not None]
    if searches:
        parts += [SEARCHES_NOTE, _markdown_table(list(SEARCH_STATISTICS.values()), searches)]
    return "\n\n".join(parts)


def _heading(results: TableResults) -> list[str]:
    lines = [f"Table {results.table}: {results.title}"]
    lines += [SCALES[results.scale].note] if results.scale in SCALES else []
    seeds = ", ".join(map(str, results.seeds))
    averaged = f"mean ± deviation over seeds {seeds}" if len(results.seeds) > 1 else "one seed"
    lines.append(
        f"Ours: {results.runs_done} of {results.runs} runs; {averaged}. "
        f"{PENDING}: not finished; {ABSENT}: not run, or not printed by the paper."
    )
    return lines


def _entries(row: RowResults) -> list[str]:
    """The row's name, then the paper's and our value for each column."""
    entries = [row.name]
    for column, paper in row.paper.items():
        ours = row.ours[column]
        entries.append(ABSENT if paper is None else str(paper))
        if ours is None:
            entries.append(PENDING if row.runs else ABSENT)
        elif column in COSTS:
            entries.append(f"{ours.mean:.{COST_DIGITS[column]}f}")
        else:
            entries.append(_show(ours))
    return entries


def _search_entries(row: RowResults) -> list[str]:
    """The row's name, then the statistics of its searches."""
    statistics = row.search or {}
    # every finished search has entropies, but part_aware may not be a candidate
    missing = PENDING if statistics["entropy_normal"] is None else ABSENT
    return [row.name, *(_show(summary) if summary else missing for summary in statistics.values())]


def _show(summary: Summary) -> str:
    deviation = "" if summary.deviation is None else f" ± {summary.deviation:.1f}"
    return f"{summary.mean:.1f}{deviation}"


def _text_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    table = Table(box=SIMPLE_HEAD, header_style="bold")
    table.add_column("row")
    for header in headers:
        table.add_column(header, justify="right")
    for entries in rows:
        table.add_row(*map(Text, entries))
    return plain_text(table, WIDTH)


def _markdown_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rule = "|---" + "|---:" * len(headers) + "|"
    return "\n".join([_markdown_row(["row", *headers]), rule, *map(_markdown_row, rows)])


def _markdown_row(entries: Sequence[str]) -> str:
    return "| " + " | ".join(entries) + " |"
