"""Train a network for re-identification and evaluate it (Algorithm 1, last lines; Sec. 4.2)."""

import logging
import os
from typing import Any

import torch
from torch import Tensor

from autoreid_fast.data.batches import TrainBatches
from autoreid_fast.data.load import load_dataset
from autoreid_fast.data.sampler import IdentitySampler
from autoreid_fast.devices import choose_device, place
from autoreid_fast.distributed.group import on_main
from autoreid_fast.distributed.processes import current_shard
from autoreid_fast.evaluation.evaluator import Evaluator
from autoreid_fast.files import write_json
from autoreid_fast.losses import LossTerms, build_loss
from autoreid_fast.losses.registry import advice_on_nonfinite
from autoreid_fast.models.costs import costs
from autoreid_fast.runs.folder import RunFolder, open_run
from autoreid_fast.runs.records import ScoresRecord
from autoreid_fast.schema import read_json, require_config
from autoreid_fast.training.checkpointing import EpochRecord, Stateful
from autoreid_fast.training.config import TrainConfig
from autoreid_fast.training.epoch import Epoch
from autoreid_fast.training.images import training_images
from autoreid_fast.training.joint_batch import average_statistics, check_batch, join_model, joint_batch
from autoreid_fast.training.loop import EpochResult, Observe, StepLoop, run_epochs, write_result
from autoreid_fast.training.network import genotype_part, initial_network, needs_pretrained
from autoreid_fast.training.schedule import set_learning_rate, step_decay
from autoreid_fast.training.step import TrainStep

logger = logging.getLogger("autoreid_fast")


def train(
    config: TrainConfig, folder: str | os.PathLike[str] | RunFolder, observe: Observe | None = None
) -> dict[str, Any]:
    """Train and evaluate a network, or resume the training that ``folder`` holds.

    The folder receives checkpoints, the features of query and gallery and ``metrics.json``. Two runs with the
    same seed on the same CPU end with the same bits, whether they were interrupted or not. Several processes
    (`joined_processes`) share each batch.

    Args:
        config: Data set, network, loss and schedule.
        folder: Path of the run folder, or one that has been started by `RunFolder.start`.
        observe: Callback that adds to TensorBoard after each epoch.

    Returns:
        The contents of ``metrics.json``: scores of the trained network, of the same network untrained and of
        chance, and the network's costs.

    Raises:
        AutoReIDError: data, device, network or sizes do not allow the training; raised before it starts.

    Examples:
        >>> from autoreid_fast.data.synthetic import SyntheticConfig, generate
        >>> from autoreid_fast.training import TrainConfig, train
        >>> generate("people", SyntheticConfig(train_identities=8, test_identities=4, cameras=2))
        >>> config = TrainConfig(
        ...     data={"kind": "synthetic", "root": "people", "height": 64, "width": 32},
        ...     network="resnet18",
        ...     channels=4,
        ...     batch={"identities": 4, "images": 2},
        ...     epochs=1,
        ...     device="cpu",
        ... )
        >>> metrics = train(config, "runs/train")
        >>> 0 <= metrics["mAP"] <= 1, metrics["identities"]
        (True, 8)
    """
    require_config(config, TrainConfig)
    with open_run(folder, config, "train") as run:
        training = Training(config, run)
        untrained = training.untrained()
        history = run_epochs(
            run,
            config.epochs,
            training.checkpointed,
            training.run_epoch,
            observe,
            best_by="mAP",
            skip_nonfinite=config.nonfinite == "skip",
            advice=advice_on_nonfinite(config.objective),
        )
        evaluation = training.evaluator(training.model, run.features, run.retrieval)
        if "mAP" not in history[-1]:
            record = {"epoch": config.epochs, "rank1": evaluation.cmc[1], "mAP": evaluation.mAP}
            on_main(lambda: write_result(run, record, observe))
        metrics = {
            "network": config.network,
            **evaluation.to_dict(),
            **({} if untrained is None else {"untrained": untrained}),
            "params_M": training.costs.params_M,
            "flops_G": training.costs.flops_G,
            "identities": training.identities,
            "costs": training.costs.to_dict(),
        }
        on_main(lambda: write_json(run.metrics, metrics))
        for line in str(evaluation).splitlines():
            logger.info("%s", line)
        return metrics


class Training:
    """Data, network and optimiser of one training, and how they run an epoch.

    Raises:
        AutoReIDError: data, device, network or sizes do not allow the training.
    """

    def __init__(self, config: TrainConfig, run: RunFolder) -> None:
        check_batch(config.batch, config.distributed)
        device = choose_device(config.device)
        dataset = load_dataset(config.data)
        torch.manual_seed(config.seed)
        initial_network(config, run, identities=2)  # fail early: decoding the images takes long
        build_loss(config.objective)
        images = training_images(dataset, config.data)
        self.config = config
        self.identities = images.identities
        self.evaluator = Evaluator(dataset, config.data, device)
        self._run = run

        torch.manual_seed(config.seed)
        self.model = initial_network(config, run, images.identities)
        place(self.model, device)
        join_model(self.model, config.distributed)
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.checkpointed: dict[str, Stateful] = {"model": self.model, "optimizer": self.optimizer}
        self.checkpointed |= genotype_part(self.model.backbone, run)
        self._loss = build_loss(config.objective).to(device)
        self._train_step = TrainStep(self.model, self.optimizer, config.nonfinite)

        sampler = IdentitySampler(images.labels, config.batch.identities, config.batch.images, config.seed)
        batches = TrainBatches(
            images.cache, images.labels, sampler, config.augmentation, device, config.seed, current_shard()
        )
        self._steps = StepLoop(
            title="train",
            epochs=config.epochs,
            batches=batches,
            batch_images=config.batch.size,
            step=self._step,
            loss_names=("loss", "cross_entropy", "triplet"),
        )
        self.costs = costs(self.model.backbone, config.data.height, config.data.width, images.identities)
        logger.info(
            "training %s on %s: %.2f M parameters, %.3f GFLOPs, %d images of %d identities, "
            "%d steps per epoch",
            config.network,
            device,
            self.costs.params_M,
            self.costs.flops_G,
            len(images.labels),
            images.identities,
            len(batches),
        )

    def untrained(self) -> dict[str, Any] | None:
        """Score the network as it is before the training, once, for ``untrained.json``.

        Returns:
            The scores; None in a run of an earlier version whose pre-trained weights are gone.
        """
        run, pretrained = self._run, self.config.pretrained
        if on_main(run.untrained.exists):
            return on_main(lambda: dict(read_json(run.untrained, ScoresRecord)))
        if pretrained is not None and not on_main(lambda: needs_pretrained(pretrained, run)):
            message = "%s: gone; the run goes on from its checkpoint, without scores of the untrained network"
            logger.warning(message, pretrained)
            return None
        scores = self.evaluator(self.model).to_dict()
        on_main(lambda: write_json(run.untrained, scores))
        return scores

    def run_epoch(self, epoch: Epoch) -> EpochResult:
        """Train one epoch, and evaluate if one is due."""
        config = self.config
        rate = step_decay(epoch.number, config.learning_rate, config.decay_epochs)
        set_learning_rate(self.optimizer, rate)
        self.model.train()
        losses = self._steps.run(epoch)
        average_statistics(self.model, config.distributed)
        record: EpochRecord = {**losses, "learning_rate": rate}
        summary = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
        if config.evaluate_every and (epoch.number + 1) % config.evaluate_every == 0:
            evaluation = self.evaluator(self.model, retrieval=self._run.retrieval)
            record |= {"rank1": evaluation.cmc[1], "mAP": evaluation.mAP}
            summary += f"  rank-1 {100 * evaluation.cmc[1]:.2f} %  mAP {100 * evaluation.mAP:.2f} %"
        return EpochResult(record, summary, self._steps.images(epoch))

    def _step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        losses = self._train_step(lambda: self._losses(images, labels))
        return {"loss": losses.total, **losses.terms}

    def _losses(self, images: Tensor, labels: Tensor) -> LossTerms:
        feature, logits, labels = joint_batch(self.model(images), labels, self.config.distributed)
        losses: LossTerms = self._loss(feature, logits, labels)
        return losses
