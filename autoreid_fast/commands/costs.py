"""`costs`: count what a network costs."""

import json as json_module
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from autoreid_fast.commands.options import parse, show
from autoreid_fast.models.costs import Costs, costs
from autoreid_fast.models.registry import BACKBONES, build_backbone
from autoreid_fast.schema import Config


class Sizes(Config):
    """Sizes of a network and of its images; the defaults are Table 1's."""

    channels: int = Field(64, description="C; the width of a ResNet (paper: 64 in training).")
    cells_per_block: tuple[int, int, int, int] = Field(
        (2, 2, 2, 2), description="l; ignored by ResNets (paper: 2 2 2 2)."
    )
    height: int = Field(384, description="Image height in pixels (paper: 384).")
    width: int = Field(128, description="Image width in pixels (paper: 128).")
    num_classes: int = Field(751, description="Classes of the classifier on f (Market-1501: 751).")

    def costs(self, network: str | Path) -> Costs:
        """Count the costs of a network, given by name or as a genotype file."""
        backbone = build_backbone(network, self.channels, self.cells_per_block)
        return costs(backbone, self.height, self.width, self.num_classes)


SizeOptions = Annotated[Sizes, tyro.conf.arg(name="")]
NetworkOption = Annotated[
    str, tyro.conf.arg(help=f"A genotype.json, or one of: {', '.join(BACKBONES.names())}.")
]


def run_costs(arguments: list[str]) -> int:
    """Parse and run `costs`."""
    parse(count_costs, "costs", arguments)
    return 0


def count_costs(
    network: NetworkOption,
    /,
    sizes: SizeOptions = Sizes(),  # noqa: B008 (immutable)
    json: bool = False,
) -> None:
    """Count a network's parameters, multiply-adds (the paper's FLOPs) and activation memory, per block.

    Args:
        network: The network.
        sizes: Sizes of the network and of its images.
        json: Print JSON: params_M, flops_G and activation_MB, in total and per block.
    """
    counted = sizes.costs(Path(network) if network.endswith(".json") else network)
    show(json_module.dumps(counted.to_dict(), indent=2) if json else counted.table())
