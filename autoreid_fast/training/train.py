"""Train a network for re-identification and evaluate it (Algorithm 1, last lines; Sec. 4.2)."""

import logging
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from autoreid_fast.data.batches import AugmentationConfig, TrainBatches
from autoreid_fast.data.config import AnyDataConfig, DataConfig
from autoreid_fast.data.load import load_dataset
from autoreid_fast.data.sampler import IdentitySampler
from autoreid_fast.devices import DeviceName, choose_device, place
from autoreid_fast.distributed.collectives import mean_over_processes
from autoreid_fast.distributed.group import on_main
from autoreid_fast.distributed.processes import current_shard
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.evaluation.evaluator import Evaluator
from autoreid_fast.files import write_json
from autoreid_fast.losses import AnyObjectiveConfig, ObjectiveConfig, objective
from autoreid_fast.models.costs import costs
from autoreid_fast.models.reid import ReIDNetwork, Tail
from autoreid_fast.models.weights import load_weights
from autoreid_fast.progress import epoch_progress
from autoreid_fast.runs.checkpoint import misfit
from autoreid_fast.runs.folder import RunFolder
from autoreid_fast.schema import Config
from autoreid_fast.training.epoch import Epoch
from autoreid_fast.training.joint_batch import (
    DistributedConfig,
    average_buffers,
    average_gradients,
    check_share_of_batch,
    join_model,
    joint_batch,
)
from autoreid_fast.training.loop import EpochRecord, Observe, Stateful, run_epochs, write_result
from autoreid_fast.training.network import run_backbone, weights_file
from autoreid_fast.training.schedule import set_learning_rate, step_decay
from autoreid_fast.training.setup import BatchConfig, training_images
from autoreid_fast.training.update import NONFINITE, Nonfinite, Updates

logger = logging.getLogger("autoreid_fast")


class TrainConfig(Config):
    """Train a searched or a fixed network, then evaluate it."""

    data: AnyDataConfig = Field(default_factory=DataConfig, description="The data set.")
    network: str = Field(
        "autoreid_base_reid",
        description="What to train: a name that `autoreid-fast models` lists, a genotype.json, or the "
        "run folder of a search.",
    )
    channels: int = Field(
        64, ge=1, description="C: channels of the first convolution (paper: 64 in training)."
    )
    cells_per_block: tuple[int, int, int, int] = Field(
        (2, 2, 2, 2),
        description="l: cells in each of the four blocks (paper: 2 2 2 2); ResNets have their own.",
    )
    pretrained: Path | None = Field(
        None,
        description="Weights of the backbone to start from: the run folder of a `pretrain`, its "
        "weights.safetensors, or for a ResNet torchvision's file; default: from scratch.",
    )
    last_stride: Literal[1, 2] = Field(
        2, description="ResNets: stride of the last stage; the papers of PCB and HPM set 1."
    )
    tail: Tail = Field(
        "embedding",
        description="embedding: the head of Sec. 3.2; pcb (six strips) or hpm (a pyramid of 1, 2, 4 and 8) "
        "on any backbone: their papers train with --objective.loss ce, the sum over the strips.",
    )
    embedding_dim: int = Field(512, ge=1, description="Size of the embedding g (paper: not said; 512).")
    dropout: float = Field(0.5, ge=0, lt=1, description="Rate of the two dropouts (paper: not said; 0.5).")
    objective: AnyObjectiveConfig = Field(default_factory=ObjectiveConfig, description="The loss.")
    batch: BatchConfig = Field(
        default_factory=lambda: BatchConfig(identities=8, images=4),
        description="The class-balanced batch (paper: 8 x 4 from scratch, 16 x 4 from ImageNet weights).",
    )
    augmentation: AugmentationConfig = Field(default_factory=AugmentationConfig, description="Augmentation.")
    epochs: int = Field(240, ge=1, description="Epochs (paper: 240).")
    learning_rate: float = Field(0.0035, gt=0, description="Adam's learning rate (paper: 0.0035).")
    decay_epochs: tuple[int, ...] = Field(
        (80, 150), description="Epochs from which the rate is divided by 10 (paper: 80 and 150)."
    )
    weight_decay: float = Field(5e-4, ge=0, description="Weight decay (paper: 0.0005).")
    evaluate_every: int = Field(
        0, ge=0, description="Evaluate after each so many epochs as well; 0 evaluates at the end alone."
    )
    nonfinite: Nonfinite = Field("stop", description=NONFINITE)
    seed: int = Field(0, ge=0, description="Seed of everything random: weights, batches, dropout.")
    device: DeviceName = Field("auto", description="Where to run; auto takes CUDA where there is one.")
    distributed: DistributedConfig = Field(
        default_factory=DistributedConfig, description="What several processes share."
    )


def build_network(config: TrainConfig, run: RunFolder, identities: int) -> ReIDNetwork:
    """The config's network with its head for ``identities`` classes, initialised by torch's random state.

    Raises:
        AutoReIDError: as ``run_backbone``.
    """
    backbone = run_backbone(
        run,
        config.network,
        (config.data.height, config.data.width),
        config.channels,
        config.cells_per_block,
        config.last_stride,
    )
    return ReIDNetwork(backbone, identities, config.embedding_dim, config.dropout, config.tail)


def initial_network(config: TrainConfig, run: RunFolder, identities: int) -> ReIDNetwork:
    """The network that a training starts from: ``build_network``, with the config's weights loaded.

    Raises:
        AutoReIDError: as ``build_network``, or the weights do not fit.
    """
    network = build_network(config, run, identities)
    if config.pretrained is not None:
        load_weights(network.backbone, weights_file(config.pretrained))
    return network


def load_trained(config: TrainConfig, run: RunFolder) -> ReIDNetwork:
    """The network of a run as of its last checkpoint, on the CPU, in eval mode.

    Its memory layout is that of training, for another one sums in another order.

    Raises:
        AutoReIDError: the run has no checkpoint, or one of another architecture.
    """
    state = run.last_state()["model"]
    model = build_network(config, run, identities_of(state))
    load_state(
        model, state, f"{run.checkpoint}: another architecture than {run.config} says; put back its own"
    )
    place(model, torch.device("cpu"))
    return model.eval()


def identities_of(state: dict[str, torch.Tensor]) -> int:
    """How many identities the network of a state dict was trained to tell apart; 0 where it has no head."""
    return next((len(value) for name, value in state.items() if name.startswith("head.classifier")), 0)


def load_state(model: ReIDNetwork, state: dict[str, torch.Tensor], complaint: str) -> None:
    """Load all of ``state``, or raise AutoReIDError: ``complaint`` and the first that does not fit."""
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise AutoReIDError(f"{complaint} ({misfit(error)})") from None


def train(config: TrainConfig, run: RunFolder, observe: Observe | None = None) -> dict[str, Any]:
    """Run or resume a training; leaves features and ``metrics.json`` in the run folder; returns the metrics.

    The folder must have been started (``RunFolder.start``). Beside the trained network's figures stand those
    of the same network untrained, and of chance. Two runs with one seed on one CPU are equal bit for bit,
    killed and resumed or not. Several processes share each batch. ``observe`` sees every epoch, as in
    `run_epochs`.

    Raises:
        AutoReIDError: data, device, network or sizes do not allow the training; said before work starts.
    """
    check_share_of_batch(config.batch.identities, config.distributed)
    device = choose_device(config.device)
    dataset = load_dataset(config.data)
    torch.manual_seed(config.seed)
    initial_network(config, run, identities=2)  # what cannot be built is known before images are decoded
    images = training_images(dataset, config.data)
    sampler = IdentitySampler(images.labels, config.batch.identities, config.batch.images, config.seed)
    batches = TrainBatches(
        images.cache, images.labels, sampler, config.augmentation, device, config.seed, current_shard()
    )
    evaluator = Evaluator(dataset, config.data, device)

    images_a_step = config.batch.identities * config.batch.images
    torch.manual_seed(config.seed)
    model = initial_network(config, run, images.identities)
    place(model, device)
    join_model(model, config.distributed)
    parameters = list(model.parameters())
    optimizer = torch.optim.Adam(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    updates = Updates(model, config.nonfinite)
    network_costs = costs(model.backbone, config.data.height, config.data.width, images.identities)
    logger.info(
        "training %s on %s: %.2f M parameters, %.3f GFLOPs, %d images of %d identities, %d steps an epoch",
        *(config.network, device, network_costs.params_M, network_costs.flops_G),
        *(len(images.labels), images.identities, len(batches)),
    )
    untrained = evaluator(model).to_dict()

    def one_epoch(epoch: Epoch) -> EpochRecord:
        set_learning_rate(optimizer, step_decay(epoch.number, config.learning_rate, config.decay_epochs))
        model.train()
        with epoch_progress("train", epoch.number, config.epochs, images_a_step) as show_done:
            to_do = batches.epoch(epoch.number, epoch.done)
            for inputs, labels in epoch.steps(to_do, partial(batches.names, epoch.number)):
                updates.begin()
                terms = objective(*joint_batch(model(inputs), labels, config.distributed), config.objective)
                gradients = torch.autograd.grad(terms.total, parameters, allow_unused=True)
                for parameter, gradient in zip(parameters, average_gradients(gradients), strict=True):
                    parameter.grad = gradient
                loss = updates.take(optimizer, terms.total)
                epoch.add(loss=loss, **terms.terms)
                show_done(epoch.done + 1, len(batches), loss)
        names = ("loss", "cross_entropy", "triplet")
        means = mean_over_processes(epoch.means())
        record: EpochRecord = dict(zip(names, means.tolist(), strict=True))
        record["images"] = (len(batches) - epoch.first) * images_a_step
        record["learning_rate"] = optimizer.param_groups[0]["lr"]
        record["line"] = "  ".join(f"{name} {record[name]:.3f}" for name in names)
        if not config.distributed.sync_bn:
            average_buffers(model)
        if config.evaluate_every and (epoch.number + 1) % config.evaluate_every == 0:
            evaluation = evaluator(model, retrieval=run.retrieval)
            record |= {"rank1": evaluation.cmc[1], "mAP": evaluation.mAP}
            record["line"] += f"  rank-1 {evaluation.cmc[1]:.3f}  mAP {evaluation.mAP:.3f}"
        return record

    parts: dict[str, Stateful] = {"model": model, "optimizer": optimizer}
    history = run_epochs(run, config.epochs, parts, one_epoch, observe, "mAP", config.nonfinite == "skip")
    evaluation = evaluator(model, run.features, run.retrieval)
    if "mAP" not in history[-1]:
        last = {"epoch": config.epochs, "rank1": evaluation.cmc[1], "mAP": evaluation.mAP}
        on_main(lambda: write_result(run, last, observe))
    metrics = {
        "network": config.network,
        **evaluation.to_dict(),
        "untrained": untrained,
        "params_M": network_costs.params_M,
        "flops_G": network_costs.flops_G,
        "identities": images.identities,
        "costs": network_costs.to_dict(),
    }
    on_main(lambda: write_json(run.metrics, metrics))
    logger.info("%s", evaluation)
    return metrics
