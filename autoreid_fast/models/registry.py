"""Backbones by name: what the command line and the configs call them."""

from collections.abc import Sequence
from pathlib import Path

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.models.resnet import ResNet
from autoreid_fast.nas.backbone import Backbone
from autoreid_fast.nas.derived_network import DerivedNetwork
from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.nas.published import GENOTYPES

_RESNETS = {"resnet18": 18, "resnet34": 34, "resnet50": 50}

NETWORKS: dict[str, str] = {
    "resnet18": "ResNet-18",
    "resnet34": "ResNet-34",
    "resnet50": "ResNet-50",
    "darts_v1": "DARTS, searched on CIFAR-10, first order",
    "darts_v2": "DARTS, searched on CIFAR-10, second order (Table 1: DARTS)",
    "gdas_v1": "GDAS, searched on CIFAR-10",
    "autoreid_baseline": "Auto-ReID, Table 1: Baseline (run 1)",
    "autoreid_base_reid": "Auto-ReID, Table 1: Baseline + ReID Search Space (run 1)",
    "autoreid_retrieval": "Auto-ReID, Table 1: Retrieval + ReID Search Space (run 1)",
}
"""Every name that `build_backbone` knows, and what it is."""


def build_backbone(
    network: str | Path | Genotype,
    channels: int = 64,
    cells_per_block: Sequence[int] = (2, 2, 2, 2),
    last_stride: int = 2,
) -> Backbone:
    """The backbone called ``network``: a name of `NETWORKS`, a path to a genotype.json, or a genotype.

    ``channels`` is C, and the width of a ResNet, whose depth is in its name: ``cells_per_block`` is for cell
    networks alone, ``last_stride`` for ResNets. Raises AutoReIDError for an unknown name, an unreadable
    genotype and a cell network with another ``last_stride`` than 2.
    """
    if network in _RESNETS:
        return ResNet(_RESNETS[str(network)], channels, last_stride)
    if last_stride != 2:
        raise AutoReIDError(f"last_stride {last_stride}: {network} is no ResNet, and only those have one")
    return DerivedNetwork(find_genotype(network), channels, cells_per_block)


def find_genotype(network: str | Path | Genotype) -> Genotype:
    """The genotype itself, by its name in `GENOTYPES`, or from a genotype.json; AutoReIDError otherwise."""
    if isinstance(network, Genotype):
        return network
    if network in GENOTYPES:
        return GENOTYPES[str(network)]
    path = Path(network)
    if path.suffix == ".json" or path.is_file():
        return Genotype.load(path)
    raise AutoReIDError(f"unknown network {network}: a genotype.json or one of {', '.join(NETWORKS)}")
