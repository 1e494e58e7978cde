"""Algorithm 1: search an architecture by alternating steps on omega and alpha (first-order DARTS)."""

import json
import logging
from collections import Counter
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from autoreid_fast.data.batches import AugmentationConfig, TrainBatches
from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.dataset import split_half
from autoreid_fast.data.load import load_dataset
from autoreid_fast.data.sampler import IdentitySampler
from autoreid_fast.engine.loop import EpochRecord, Stateful, run_epochs
from autoreid_fast.engine.progress import progress_bar
from autoreid_fast.engine.run_folder import RunFolder
from autoreid_fast.engine.schedule import cosine, set_learning_rate, step_decay
from autoreid_fast.engine.setup import (
    BatchConfig,
    DeviceName,
    choose_device,
    place,
    training_images,
)
from autoreid_fast.files import write_json
from autoreid_fast.losses import ObjectiveConfig, objective
from autoreid_fast.models.reid import ReIDNetwork
from autoreid_fast.nas.derive import alpha_entropy, derive
from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.nas.input_size import check_input_size
from autoreid_fast.nas.supernet import Supernet
from autoreid_fast.schema import Config

logger = logging.getLogger("autoreid_fast")


class OmegaConfig(Config):
    """How the operation parameters omega are optimised: SGD with a cosine schedule (Sec. 4.2)."""

    learning_rate: float = Field(0.1, gt=0, description="Learning rate at the first epoch (paper: 0.1).")
    final_learning_rate: float = Field(0.001, ge=0, description="Where the cosine ends (paper: 0.001).")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD (paper: 0.9).")
    weight_decay: float = Field(5e-4, ge=0, description="Weight decay (paper: 0.0005).")
    gradient_clip: float = Field(
        5.0, gt=0, description="Largest norm of the gradient (paper: not said; DARTS, which it follows: 5)."
    )


class AlphaConfig(Config):
    """How the architecture parameters alpha are optimised: Adam with steps (Sec. 4.2)."""

    learning_rate: float = Field(
        0.02,
        gt=0,
        description="Learning rate at the first epoch (paper: 0.02). Adam's betas are torch's: the paper "
        "gives none.",
    )
    decay_epochs: tuple[int, ...] = Field(
        (60, 150), description="Epochs from which the rate is divided by 10 (paper: 60 and 150)."
    )
    weight_decay: float = Field(5e-4, ge=0, description="Weight decay (paper: 0.0005).")


class SearchConfig(Config):
    """Search an architecture for person re-identification (Algorithm 1, first order)."""

    data: DataConfig = Field(default_factory=DataConfig, description="The data set.")
    space: Literal["reid", "standard"] = Field(
        "reid",
        description="Candidate operations: reid has the part-aware module, standard has not (Sec. 3.3).",
    )
    channels: int = Field(32, ge=1, description="C: channels of the first convolution (paper: 32 in search).")
    cells_per_block: tuple[int, int, int, int] = Field(
        (2, 2, 2, 2), description="l: cells in each of the four blocks (paper: 2 2 2 2)."
    )
    embedding_dim: int = Field(512, ge=1, description="Size of the embedding g (paper: not said; 512).")
    dropout: float = Field(0.5, ge=0, lt=1, description="Rate of the two dropouts (paper: not said; 0.5).")
    objective: ObjectiveConfig = Field(default_factory=ObjectiveConfig, description="The loss.")
    alpha_loss: Literal["ret", "triplet"] = Field(
        "ret",
        description="Alpha's loss where the loss is retrieval: ret as Algorithm 1 says, triplet as the text "
        "of Sec. 3.2 says. With loss ce it is cross entropy.",
    )
    batch: BatchConfig = Field(default_factory=BatchConfig, description="The class-balanced batch.")
    augmentation: AugmentationConfig = Field(default_factory=AugmentationConfig, description="Augmentation.")
    epochs: int = Field(200, ge=1, description="Epochs (paper: 200).")
    omega: OmegaConfig = Field(default_factory=OmegaConfig, description="Optimiser of omega.")
    alpha: AlphaConfig = Field(default_factory=AlphaConfig, description="Optimiser of alpha.")
    seed: int = Field(0, ge=0, description="Seed of everything random: split, weights, batches, dropout.")
    device: DeviceName = Field("auto", description="Where to run; auto takes CUDA where there is one.")


class Searcher:
    """A supernet with its head and both optimisers; ``step`` is one turn of Algorithm 1's loop."""

    def __init__(self, config: SearchConfig, identities: int, device: torch.device) -> None:
        self.config = config
        self.supernet = Supernet(config.channels, config.cells_per_block, config.space)
        self.model = ReIDNetwork(self.supernet, identities, config.embedding_dim, config.dropout)
        place(self.model, device)
        self.alpha = list(self.supernet.architecture_parameters())
        alpha_ids = {id(parameter) for parameter in self.alpha}
        self.omega = [p for p in self.model.parameters() if id(p) not in alpha_ids]
        self.omega_optimizer = torch.optim.SGD(
            self.omega,
            lr=config.omega.learning_rate,
            momentum=config.omega.momentum,
            weight_decay=config.omega.weight_decay,
        )
        self.alpha_optimizer = torch.optim.Adam(
            self.alpha, lr=config.alpha.learning_rate, weight_decay=config.alpha.weight_decay
        )

    def set_epoch(self, epoch: int) -> None:
        """Set both learning rates for ``epoch`` (from 0)."""
        omega, alpha = self.config.omega, self.config.alpha
        rate = cosine(epoch, self.config.epochs, omega.learning_rate, omega.final_learning_rate)
        set_learning_rate(self.omega_optimizer, rate)
        set_learning_rate(self.alpha_optimizer, step_decay(epoch, alpha.learning_rate, alpha.decay_epochs))

    def step(
        self,
        train: tuple[torch.Tensor, torch.Tensor],
        val: tuple[torch.Tensor, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Algorithm 1, lines 2 to 5: update omega on a batch of D_train, then alpha on one of D_val.

        A batch is images (N, 3, H, W) float32 and labels (N,) int64. Returns the two losses, detached.
        """
        omega_loss = self._update(self.omega, self.omega_optimizer, train, None)
        retrieval = self.config.objective.loss == "retrieval"
        alpha_loss = self._update(
            self.alpha, self.alpha_optimizer, val, self.config.alpha_loss if retrieval else "ce"
        )
        return omega_loss, alpha_loss

    def _update(
        self,
        parameters: list[nn.Parameter],
        optimizer: torch.optim.Optimizer,
        batch: tuple[torch.Tensor, torch.Tensor],
        terms: Literal["ce", "ret", "triplet"] | None,
    ) -> torch.Tensor:
        images, labels = batch
        output = self.model(images)
        loss = objective(output.feature, output.logits, labels, self.config.objective, terms).total
        # asking for these gradients alone keeps each step from computing the other's; a parameter out of
        # the loss's reach (the head, where alpha's loss is the triplet) has none
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        if optimizer is self.omega_optimizer:
            nn.utils.clip_grad_norm_(parameters, self.config.omega.gradient_clip)
        optimizer.step()
        return loss.detach()

    def genotype(self) -> Genotype:
        """What alpha says now (Sec. 3.1)."""
        return derive(self.supernet.alpha_normal, self.supernet.alpha_reduce, self.config.space)


def describe(genotype: Genotype) -> str:
    """What a genotype is made of, in a line: how often each operation was chosen in each cell."""
    cells = []
    for name, cell in (("normal", genotype.normal), ("reduce", genotype.reduce)):
        counts = Counter(edge.op for node in cell for edge in node)
        cells.append(f"{name}: " + ", ".join(f"{count} {op}" for op, count in counts.most_common()))
    return "; ".join(cells)


def search(config: SearchConfig, run: RunFolder) -> Genotype:
    """Run or resume a search; leaves ``genotype.json`` and ``metrics.json`` in the run folder.

    The folder must have been started (``RunFolder.start``). Two runs with one seed on one CPU are equal
    bit for bit, killed and resumed or not.

    Raises:
        AutoReIDError: data, device or sizes do not allow the search; said before work starts.
    """
    device = choose_device(config.device)
    check_input_size(config.data.height, config.data.width, config.space, config.cells_per_block)
    with torch.device("meta"):  # what cannot be built is known before images are decoded
        Supernet(config.channels, config.cells_per_block, config.space)
    images = training_images(load_dataset(config.data), config.data)
    halves = split_half(images.cache.records, config.seed)
    streams = []
    for stream, half in enumerate(halves):
        seed = 2 * config.seed + stream
        sampler = IdentitySampler(images.labels, config.batch.identities, config.batch.images, seed, half)
        streams.append(TrainBatches(images.cache, images.labels, sampler, config.augmentation, device, seed))
    steps = min(len(stream) for stream in streams)
    torch.manual_seed(config.seed)
    searcher = Searcher(config, images.identities, device)
    searcher.model.train()
    logger.info(
        "searching the %s space on %s: %d + %d images of %d identities, %d step pairs an epoch",
        *(config.space, device, len(halves[0]), len(halves[1]), images.identities, steps),
    )

    def one_epoch(epoch: int) -> EpochRecord:
        searcher.set_epoch(epoch)
        omega_loss = alpha_loss = torch.zeros((), device=device)
        with progress_bar(f"search epoch {epoch + 1}/{config.epochs}") as show_done:
            pairs = zip(*(stream.epoch(epoch) for stream in streams), strict=False)
            for step, (train, val) in enumerate(pairs, start=1):
                losses = searcher.step(train, val)
                omega_loss, alpha_loss = omega_loss + losses[0], alpha_loss + losses[1]
                show_done(step, steps)
        alphas = (searcher.supernet.alpha_normal, searcher.supernet.alpha_reduce)
        entropies = [alpha_entropy(alpha) for alpha in alphas]
        genotype = searcher.genotype()
        record: EpochRecord = {
            "omega_loss": float(omega_loss / steps),
            "alpha_loss": float(alpha_loss / steps),
            "omega_learning_rate": searcher.omega_optimizer.param_groups[0]["lr"],
            "alpha_learning_rate": searcher.alpha_optimizer.param_groups[0]["lr"],
            "entropy_normal": entropies[0],
            "entropy_reduce": entropies[1],
            "alpha_normal": alphas[0].tolist(),
            "alpha_reduce": alphas[1].tolist(),
            "genotype": json.loads(genotype.to_json()),
        }
        record["line"] = (
            f"omega {record['omega_loss']:.3f}  alpha {record['alpha_loss']:.3f}  "
            f"entropy {entropies[0]:.3f}/{entropies[1]:.3f}  {describe(genotype)}"
        )
        return record

    parts: dict[str, Stateful] = {
        "model": searcher.model,
        "omega_optimizer": searcher.omega_optimizer,
        "alpha_optimizer": searcher.alpha_optimizer,
    }
    history = run_epochs(run, config.epochs, parts, one_epoch)
    genotype = searcher.genotype()
    genotype.save(run.genotype)
    figures = ("omega_loss", "alpha_loss", "entropy_normal", "entropy_reduce", "genotype")
    write_json(run.metrics, {name: history[-1][name] for name in figures})
    logger.info("found %s\nwritten to %s", describe(genotype), run.genotype)
    return genotype
