"""Networks of runs: built from a config, or loaded from a run's checkpoint."""

from functools import partial
from pathlib import Path
from typing import Any

import torch

from autoreid_fast.devices import place
from autoreid_fast.distributed.group import on_main
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.models.precision import in_float32
from autoreid_fast.models.registry import BACKBONES, build_backbone
from autoreid_fast.models.reid import ReIDNetwork
from autoreid_fast.models.weights import load_weights
from autoreid_fast.nas.backbone import Backbone
from autoreid_fast.nas.derived_network import DerivedNetwork
from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.nas.input_size import check_input_size
from autoreid_fast.nas.state import require_finite
from autoreid_fast.runs.checkpoint import mismatch
from autoreid_fast.runs.folder import RunFolder
from autoreid_fast.runs.records import MetricsRecord, read_if_possible, recorded_genotype
from autoreid_fast.training.config import NetworkConfig, TrainConfig


def build_run_backbone(
    config: NetworkConfig, run: RunFolder, size: tuple[int, int], last_stride: int = 2
) -> Backbone:
    """Build the backbone of a run for images of ``size`` (height, width).

    A genotype is copied into the run folder, which from its first checkpoint on needs nothing outside it.

    Raises:
        AutoReIDError: the name or the genotype cannot be used, or the image size is too small.
    """
    source: str | Path = config.network
    if config.network not in BACKBONES:
        path = Path(config.network).expanduser()
        source = _recorded_genotype(path, run) if run.has_checkpoint else _genotype_file(path)
    backbone = build_backbone(source, config.channels, config.cells_per_block, last_stride)
    if isinstance(backbone, DerivedNetwork):
        check_input_size(*size, backbone.genotype, config.cells_per_block)
        on_main(partial(_save_genotype, backbone.genotype, run))
    return backbone


def _recorded_genotype(path: Path, run: RunFolder) -> Path:
    if not run.genotype.exists() and path.suffix != ".json" and not path.is_dir():
        BACKBONES[str(path)]  # raises: it was a registered backbone, which the run's imports should register
    return run.genotype


def _save_genotype(genotype: Genotype, run: RunFolder) -> None:
    if not run.has_checkpoint:  # later it is there, and the folder may be read-only
        genotype.save(run.genotype)


def _genotype_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    run = RunFolder(path)
    if not run.genotype.exists():
        raise AutoReIDError(
            f"network {path}: no genotype.json in it; if its search has not finished, resume it, or write "
            "the genotype as it is now: autoreid-fast derive"
        )
    recorded_genotype(run.genotype, read_if_possible(run.metrics, MetricsRecord, {}))
    return run.genotype


def weights_file(pretrained: Path) -> Path:
    """Return the weights that ``pretrained`` stands for: a file, or what a run of `pretrain` or `train` made.

    Raises:
        AutoReIDError: the run has no result.
    """
    if not pretrained.is_dir():
        return pretrained
    run = RunFolder(pretrained)
    if run.config.exists() and run.command() == "train":
        return run.checkpoint
    weights = run.weights
    if not weights.exists():
        raise AutoReIDError(
            f"pretrained {pretrained}: no {weights.name} in it; if its pre-training has not finished, resume "
            "it: autoreid-fast pretrain --resume"
        )
    return weights


def build_network(config: TrainConfig, run: RunFolder, identities: int) -> ReIDNetwork:
    """Build the config's network with a head for ``identities`` classes, initialised at random.

    Raises:
        AutoReIDError: as for `build_run_backbone`.
    """
    size = (config.data.height, config.data.width)
    backbone = build_run_backbone(config, run, size, config.last_stride)
    return ReIDNetwork(backbone, identities, config.embedding_dim, config.dropout, config.tail)


def initial_network(config: TrainConfig, run: RunFolder, identities: int) -> ReIDNetwork:
    """Build the network that a training starts from, with pre-trained weights if the config names some.

    Raises:
        AutoReIDError: as for `build_network`, or the weights do not fit.
    """
    network = build_network(config, run, identities)
    if config.pretrained is not None and needs_pretrained(config.pretrained, run):
        load_weights(network.backbone, weights_file(config.pretrained))
    return network


def needs_pretrained(pretrained: Path, run: RunFolder) -> bool:
    """Whether a run still has a use for the weights that it started from.

    A run with a checkpoint goes on without them. One of an earlier version scores its untrained network when
    it is resumed, if the weights are still there.
    """
    return not run.has_checkpoint or (not run.untrained.exists() and pretrained.exists())


@in_float32()
def load_trained(config: TrainConfig, run: RunFolder) -> ReIDNetwork:
    """Load the network of a run's last checkpoint, or of the chosen one, on the CPU, in eval mode.

    Its memory layout is that of training, because another layout sums in another order.

    Raises:
        AutoReIDError: the run has no checkpoint, or one of another architecture or with NaN.
    """
    state = run.last_state()
    weights = state["model"]
    model = build_network(config, run, identities_of(weights))
    checkpoint = run.chosen or run.checkpoint
    complaint = f"does not fit the architecture in {run.config}; restore its checkpoint"
    load_state(model, weights, checkpoint, complaint)
    if "genotype" in state:
        for part in genotype_part(model.backbone, run).values():
            part.load_state_dict(state["genotype"])
    place(model, torch.device("cpu"))
    return model.eval()


class GenotypePart:
    """A network's genotype in a checkpoint, so that another one in genotype.json is noticed.

    The weights of two genotypes may have the same names and shapes.

    Args:
        genotype: The genotype.
        run: Run folder, whose genotype.json it is.
    """

    def __init__(self, genotype: Genotype, run: RunFolder) -> None:
        self._genotype = genotype
        self._run = run

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {"json": self._genotype.to_json()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Compare the genotype with that of a checkpoint.

        Raises:
            AutoReIDError: they differ.
        """
        if state != self.state_dict():
            raise AutoReIDError(
                f"{self._run.genotype}: not the genotype that the run's checkpoint was trained with; restore "
                "the file"
            )


def genotype_part(backbone: Backbone, run: RunFolder) -> dict[str, GenotypePart]:
    """Return the part of a checkpoint that holds a network's genotype; empty for networks without one."""
    return {"genotype": GenotypePart(backbone.genotype, run)} if isinstance(backbone, DerivedNetwork) else {}


def identities_of(state: dict[str, torch.Tensor]) -> int:
    """Number of identities that the network of a state dict classifies; 0 without a classifier."""
    return next((len(value) for name, value in state.items() if name.startswith("head.classifier")), 0)


def load_state(model: ReIDNetwork, state: dict[str, torch.Tensor], file: Path, complaint: str) -> None:
    """Load the ``state`` that ``file`` holds into ``model``.

    Raises:
        AutoReIDError: ``complaint``, and the first entry that does not fit; or the first that is not finite.
    """
    converted = [
        name
        for name, value in model.state_dict().items()
        if name in state and value.is_floating_point() != state[name].is_floating_point()
    ]
    if converted:
        kinds = f"{converted[0]} is {state[converted[0]].dtype}"
        raise AutoReIDError(f"{file}: {complaint} ({kinds}; it would be converted)")
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise AutoReIDError(f"{file}: {complaint} ({mismatch(error)})") from None
    require_finite(model.state_dict(), str(file))
