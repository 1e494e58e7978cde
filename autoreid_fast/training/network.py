"""The network that a run names: by the registry, by a genotype's file, or by the run that found it."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from autoreid_fast.distributed.group import on_main
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.models.registry import BACKBONES, build_backbone
from autoreid_fast.nas.backbone import Backbone
from autoreid_fast.nas.derived_network import DerivedNetwork
from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.nas.input_size import check_input_size
from autoreid_fast.runs.folder import RunFolder


def run_backbone(
    run: RunFolder,
    network: str,
    size: tuple[int, int],
    channels: int,
    cells_per_block: Sequence[int],
    last_stride: int = 2,
) -> Backbone:
    """The backbone called ``network`` for images of ``size`` (height, width).

    A genotype is copied into the run folder, which from its first checkpoint on needs nothing outside it.

    Raises:
        AutoReIDError: the name or the genotype cannot be used, or the image size is too small.
    """
    source: str | Path = network
    if network not in BACKBONES:
        source = run.genotype if run.checkpoint.exists() else _genotype_file(Path(network))
    backbone = build_backbone(source, channels, cells_per_block, last_stride)
    if isinstance(backbone, DerivedNetwork):
        check_input_size(*size, backbone.genotype, cells_per_block)
        on_main(partial(_keep, backbone.genotype, run))
    return backbone


def _keep(genotype: Genotype, run: RunFolder) -> None:
    """A run that has a checkpoint has its genotype too, and may be read-only."""
    if not run.checkpoint.exists():
        genotype.save(run.genotype)


def weights_file(pretrained: Path) -> Path:
    """The file that ``pretrained`` means: itself, or what the pre-training in that folder has left."""
    if not pretrained.is_dir():
        return pretrained
    weights = RunFolder(pretrained).weights
    if not weights.exists():
        raise AutoReIDError(
            f"pretrained {pretrained}: no {weights.name} in it; if it is a pre-training that has not "
            "finished, go on with it: autoreid-fast pretrain --resume"
        )
    return weights


def _genotype_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    genotype = RunFolder(path).genotype
    if not genotype.exists():
        raise AutoReIDError(
            f"network {path}: no genotype.json in it; if its search has not finished, go on with it, or "
            "let `autoreid-fast derive` write the genotype as it is now"
        )
    return genotype
