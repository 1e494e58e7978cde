"""`models`: the fixed networks, and what each costs."""

import json as json_text
from dataclasses import asdict

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table

from autoreid_fast.commands.options import parse, show
from autoreid_fast.models.costs import costs
from autoreid_fast.models.registry import NETWORKS, build_backbone
from autoreid_fast.report.text_tables import plain_text


def run_models(arguments: list[str]) -> int:
    """Print every network that has a name, with its parameters and multiply-adds."""

    def command(
        channels: int = 64,
        cells_per_block: tuple[int, int, int, int] = (2, 2, 2, 2),
        height: int = 384,
        width: int = 128,
        num_classes: int = 751,
        json: bool = False,
    ) -> None:
        """The networks by the names that --network takes; `autoreid-fast costs NAME` looks into one of them.

        Counted as the paper seems to: the backbone and one linear classifier on f, a multiply-add as a FLOP.

        Args:
            channels: C; a ResNet's width (paper: 64 in training).
            cells_per_block: l; ResNets have their own (paper: 2 2 2 2).
            height: Image height in pixels (paper: 384).
            width: Image width in pixels (paper: 128).
            num_classes: Classes of the classifier on f (Market-1501: 751).
            json: Print JSON: by name, params_M, flops_G, activation_MB.
        """
        counted = {}
        for name in NETWORKS:
            with torch.device("meta"):
                backbone = build_backbone(name, channels, cells_per_block)
            counted[name] = costs(backbone, height, width, num_classes).total
        if json:
            figures = {name: asdict(total) | {"name": NETWORKS[name]} for name, total in counted.items()}
            show(json_text.dumps(figures, indent=2))
            return
        table = Table(box=SIMPLE_HEAD, header_style="bold")
        for column, side in (("network", "left"), ("params M", "right"), ("GFLOPs", "right"), ("", "left")):
            table.add_column(column, justify=side)  # type: ignore[arg-type]
        for name, total in counted.items():
            table.add_row(name, f"{total.params_M:.2f}", f"{total.flops_G:.3f}", NETWORKS[name])
        show(plain_text(table))

    parse(command, "models", arguments)
    return 0
