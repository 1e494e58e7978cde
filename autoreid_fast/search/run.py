"""Algorithm 1 as a run: search for an architecture by alternating steps of omega and alpha."""

import json
import logging
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from autoreid_fast.data.batches import TrainBatches
from autoreid_fast.data.dataset import split_half
from autoreid_fast.data.load import load_dataset
from autoreid_fast.data.sampler import IdentitySampler
from autoreid_fast.devices import choose_device
from autoreid_fast.distributed.group import on_main
from autoreid_fast.distributed.processes import current_shard
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import write_json
from autoreid_fast.losses import build_loss
from autoreid_fast.losses.registry import advice_on_nonfinite
from autoreid_fast.nas.derivation import alpha_entropy
from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.nas.input_size import check_input_size
from autoreid_fast.runs.folder import RunFolder, open_run
from autoreid_fast.schema import require_config
from autoreid_fast.search.algorithm import Batch, build_algorithm, build_supernet
from autoreid_fast.search.config import SEARCH_ALGORITHMS, SearchConfig
from autoreid_fast.training.epoch import Epoch
from autoreid_fast.training.images import LabeledImages, training_images
from autoreid_fast.training.joint_batch import average_statistics, check_batch
from autoreid_fast.training.loop import EpochResult, Observe, StepLoop, run_epochs

logger = logging.getLogger("autoreid_fast")


def search(
    config: SearchConfig, folder: str | os.PathLike[str] | RunFolder, observe: Observe | None = None
) -> Genotype:
    """Search for an architecture, or resume the search that ``folder`` holds.

    The folder receives checkpoints, ``genotype.json`` and ``metrics.json``. Two runs with the same seed on
    the same CPU end with the same bits, whether they were interrupted or not. Several processes
    (`joined_processes`) share each batch.

    Args:
        config: Data set, algorithm, loss and schedule.
        folder: Path of the run folder, or one that has been started by `RunFolder.start`.
        observe: Callback that adds to TensorBoard after each epoch.

    Returns:
        The architecture derived from alpha after the last epoch.

    Raises:
        AutoReIDError: data, device or sizes do not allow the search; raised before it starts.

    Examples:
        >>> from autoreid_fast.data.synthetic import SyntheticConfig, generate
        >>> from autoreid_fast.search import SearchConfig, search
        >>> generate("people", SyntheticConfig(train_identities=8, test_identities=4, cameras=2))
        >>> config = SearchConfig(
        ...     data={"kind": "synthetic", "root": "people", "height": 112, "width": 32},
        ...     channels=3,
        ...     cells_per_block=(1, 1, 1, 1),
        ...     batch={"identities": 4, "images": 2},
        ...     epochs=1,
        ...     device="cpu",
        ... )
        >>> genotype = search(config, "runs/search")
        >>> len(genotype.normal)  # nodes of the normal cell
        4
    """
    require_config(config, SearchConfig)
    with open_run(folder, config, "search") as run:
        searching = Search(config)
        history = run_epochs(
            run,
            config.epochs,
            searching.algorithm.checkpointed,
            searching.run_epoch,
            observe,
            skip_nonfinite=config.nonfinite == "skip",
            advice=advice_on_nonfinite(config.objective),
        )
        genotype = searching.genotype()
        on_main(lambda: genotype.save(run.genotype))
        results = ("omega_loss", "alpha_loss", "entropy_normal", "entropy_reduce", "genotype")
        on_main(lambda: write_json(run.metrics, {name: history[-1][name] for name in results}))
        logger.info("found %s", describe(genotype))
        logger.info("written to %s", run.genotype)
        return genotype


class Search:
    """Data and algorithm of one search, and how they run an epoch.

    Raises:
        AutoReIDError: data, device or sizes do not allow the search.
    """

    def __init__(self, config: SearchConfig) -> None:
        check_batch(config.batch, config.distributed)
        device = choose_device(config.device)
        execution = "captured" if config.captured_on(device) else "eager"
        check_input_size(config.data.height, config.data.width, config.space, config.cells_per_block)
        with torch.device("meta"):  # fail early: decoding the images takes long
            build_supernet(config)
        build_loss(config.objective)
        images = training_images(load_dataset(config.data), config.data)
        pairs = PairedBatches(config, images, device)
        torch.manual_seed(config.seed)
        self.config = config
        self.algorithm = build_algorithm(config, images.identities, device)
        self.algorithm.model.train()
        self.genotype()  # fail early: the first epoch takes long
        self._steps = StepLoop(
            title="search",
            epochs=config.epochs,
            batches=pairs,
            batch_images=2 * config.batch.size,
            step=self._step,
            loss_names=("omega_loss", "alpha_loss"),
        )
        logger.info(
            "searching the %s space on %s (%s execution): %d + %d images of %d identities, "
            "%d step pairs per epoch",
            config.space,
            device,
            execution,
            *pairs.sizes,
            images.identities,
            len(pairs),
        )

    def run_epoch(self, epoch: Epoch) -> EpochResult:
        """Search one epoch and derive the present genotype."""
        algorithm = self.algorithm
        algorithm.set_epoch(epoch.number)
        losses = self._steps.run(epoch)
        average_statistics(algorithm.model, self.config.distributed)
        normal, reduce = algorithm.supernet.alpha_normal, algorithm.supernet.alpha_reduce
        entropies = {"entropy_normal": alpha_entropy(normal), "entropy_reduce": alpha_entropy(reduce)}
        genotype = self.genotype()
        record = {
            **losses,
            "omega_learning_rate": float(algorithm.omega_optimizer.param_groups[0]["lr"]),
            "alpha_learning_rate": float(algorithm.alpha_optimizer.param_groups[0]["lr"]),
            **entropies,
            "alpha_normal": normal.tolist(),
            "alpha_reduce": reduce.tolist(),
            "genotype": json.loads(genotype.to_json()),
        }
        entropy = "/".join(f"{value:.3f}" for value in entropies.values())
        summary = (
            f"omega {losses['omega_loss']:.3f}  alpha {losses['alpha_loss']:.3f}  "
            f"entropy {entropy}  {describe(genotype)}"
        )
        return EpochResult(record, summary, self._steps.images(epoch))

    def genotype(self) -> Genotype:
        """Derive the present genotype.

        Raises:
            AutoReIDError: a user's algorithm derives something else.
        """
        with self._naming_errors():
            genotype = self.algorithm.genotype()
        if not isinstance(genotype, Genotype):
            raise AutoReIDError(
                f"search algorithm {self.config.algorithm}: genotype returned {type(genotype).__name__}; "
                "expected a Genotype (autoreid_fast.nas)"
            )
        return genotype

    def _naming_errors(self) -> AbstractContextManager[None]:
        return SEARCH_ALGORITHMS[self.config.algorithm].naming_errors()

    def _step(self, train: Batch, val: Batch) -> dict[str, Tensor]:
        with self._naming_errors():
            losses = self.algorithm.step(train, val)
        if not isinstance(losses, tuple) or [_shape_of(loss) for loss in losses] != [(), ()]:
            raise AutoReIDError(
                f"search algorithm {self.config.algorithm}: step returned {_described(losses)}; expected the "
                "losses of omega and of alpha, two tensors of shape ()"
            )
        return {"omega_loss": losses[0], "alpha_loss": losses[1]}


class PairedBatches:
    """Pairs of batches, one from each half of the training images: D_train for omega, D_val for alpha.

    Args:
        config: Config of the search.
        images: Training images.
        device: Device of the batches.

    Attributes:
        sizes: Number of images in each half.
    """

    def __init__(self, config: SearchConfig, images: LabeledImages, device: torch.device) -> None:
        batch = config.batch
        halves = split_half(images.cache.records, config.seed)
        self.sizes = tuple(len(half) for half in halves)
        self._halves: list[TrainBatches] = []
        for number, half in enumerate(halves):
            seed = 2 * config.seed + number
            sampler = IdentitySampler(images.labels, batch.identities, batch.images, seed, half)
            self._halves.append(
                TrainBatches(
                    images.cache, images.labels, sampler, config.augmentation, device, seed, current_shard()
                )
            )

    def __len__(self) -> int:
        """Pairs per epoch."""
        return min(len(half) for half in self._halves)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Batch, Batch]]:
        """Yield the pairs of ``epoch`` from number ``first`` on."""
        train, val = (half.epoch(epoch, first) for half in self._halves)
        return zip(train, val, strict=False)

    def names(self, epoch: int, number: int) -> list[str]:
        """File names of the images in pair ``number`` of ``epoch``."""
        return [name for half in self._halves for name in half.names(epoch, number)]


def _shape_of(loss: object) -> tuple[int, ...] | None:
    return tuple(loss.shape) if isinstance(loss, Tensor) else None


def _described(losses: object) -> str:
    if not isinstance(losses, tuple):
        return type(losses).__name__
    shapes = (_shape_of(loss) for loss in losses)
    parts = [type(loss).__name__ for loss in losses]
    return ", ".join(
        part if shape is None else f"{part} {shape}" for part, shape in zip(parts, shapes, strict=True)
    )


def describe(genotype: Genotype) -> str:
    """Count the operations of each cell of ``genotype``, in one line."""
    cells = []
    for name, cell in (("normal", genotype.normal), ("reduce", genotype.reduce)):
        counts = Counter(edge.op for node in cell for edge in node)
        cells.append(f"{name}: " + ", ".join(f"{count} {op}" for op, count in counts.most_common()))
    return "; ".join(cells)
