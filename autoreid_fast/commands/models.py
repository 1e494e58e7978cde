"""`models`: list the networks and their costs."""

import json as json_module
from dataclasses import asdict

from rich.box import SIMPLE_HEAD
from rich.table import Table

from autoreid_fast.commands.costs import SizeOptions, Sizes
from autoreid_fast.commands.options import parse, show
from autoreid_fast.models.costs import StageCosts
from autoreid_fast.models.registry import BACKBONES
from autoreid_fast.models.stored_costs import stored_costs
from autoreid_fast.report.text_tables import plain_text


def run_models(arguments: list[str]) -> int:
    """Parse and run `models`."""
    parse(list_models, "models", arguments)
    return 0


def list_models(sizes: SizeOptions = Sizes(), json: bool = False) -> None:  # noqa: B008 (immutable)
    """List the networks that --network accepts by name; `autoreid-fast costs NAME` shows one in detail.

    Costs are those of the backbone and one linear classifier on f, which seems to be how the paper counts.
    A multiply-add counts as one FLOP.

    Args:
        sizes: Sizes of the networks and of their images.
        json: Print JSON: params_M, flops_G and activation_MB by name.
    """
    totals = {name: _total_costs(name, sizes) for name in BACKBONES.names()}
    if json:
        values = {name: asdict(total) | {"name": BACKBONES[name].summary} for name, total in totals.items()}
        show(json_module.dumps(values, indent=2))
        return
    table = Table(box=SIMPLE_HEAD, header_style="bold")
    table.add_column("network")
    table.add_column("params M", justify="right")
    table.add_column("GFLOPs", justify="right")
    table.add_column("")
    for name, total in totals.items():
        table.add_row(name, f"{total.params_M:.2f}", f"{total.flops_G:.3f}", BACKBONES[name].summary)
    show(plain_text(table))


def _total_costs(name: str, sizes: Sizes) -> StageCosts:
    if sizes == Sizes() and name in stored_costs():
        return stored_costs()[name]
    return sizes.costs(name).total
