"""`costs`: what a network costs."""

import json
from pathlib import Path
from typing import Annotated

import tyro

from autoreid_fast.commands.options import parse, show
from autoreid_fast.models.costs import costs
from autoreid_fast.models.registry import NETWORKS, build_backbone


def run_costs(arguments: list[str]) -> int:
    """Print parameters, multiply-adds and activation memory of a network."""
    name_help = tyro.conf.arg(help=f"A genotype.json, or one of: {', '.join(NETWORKS)}.")

    def command(
        network: Annotated[str, name_help],
        /,
        channels: int = 64,
        cells_per_block: tuple[int, int, int, int] = (2, 2, 2, 2),
        height: int = 384,
        width: int = 128,
        num_classes: int = 751,
        json: bool = False,
    ) -> None:
        """Parameters, multiply-adds (the paper's FLOPs) and activation memory of a network, per block.

        Args:
            network: What to count.
            channels: C; a ResNet's width (paper: 64 in training).
            cells_per_block: l; ResNets have their own (paper: 2 2 2 2).
            height: Image height in pixels (paper: 384).
            width: Image width in pixels (paper: 128).
            num_classes: Classes of the linear layer on f that is counted with it (Market-1501: 751).
            json: Print JSON: params_M, flops_G, activation_MB, and the same per block.
        """
        source = Path(network) if network.endswith(".json") else network
        counted = costs(build_backbone(source, channels, cells_per_block), height, width, num_classes)
        show(_json(counted.to_dict()) if json else counted.table())

    parse(command, "costs", arguments)
    return 0


def _json(value: object) -> str:
    return json.dumps(value, indent=2)
