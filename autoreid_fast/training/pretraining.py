"""Pre-train a backbone to classify images (ImageNet, Sec. 4.4); `train` can start from its weights."""

import logging
import os
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from autoreid_fast.data.image_folder import ImageBatches, read_image_folder, worker_deaths
from autoreid_fast.devices import choose_device, place
from autoreid_fast.distributed.collectives import sum_over_processes
from autoreid_fast.distributed.group import on_main
from autoreid_fast.distributed.processes import current_shard
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import write_json
from autoreid_fast.losses import LossTerms
from autoreid_fast.models.costs import costs
from autoreid_fast.models.weights import save_weights
from autoreid_fast.nas.backbone import Backbone
from autoreid_fast.runs.folder import RunFolder, open_run
from autoreid_fast.schema import require_config
from autoreid_fast.training.checkpointing import Stateful
from autoreid_fast.training.config import PretrainConfig
from autoreid_fast.training.epoch import Epoch
from autoreid_fast.training.joint_batch import average_statistics, check_divisible, join_model
from autoreid_fast.training.loop import EpochResult, StepLoop, run_epochs
from autoreid_fast.training.network import build_run_backbone, genotype_part
from autoreid_fast.training.schedule import cosine, set_learning_rate, step_decay
from autoreid_fast.training.step import TrainStep

logger = logging.getLogger("autoreid_fast")


def pretrain(config: PretrainConfig, folder: str | os.PathLike[str] | RunFolder) -> dict[str, Any]:
    """Pre-train a network on classified images, or resume the pre-training that ``folder`` holds.

    The folder receives checkpoints, the backbone's ``weights.safetensors`` and ``metrics.json``. Two runs
    with the same seed on the same CPU end with the same bits, whether they were interrupted or not. Several
    processes (`joined_processes`) share each batch.

    Args:
        config: Images, network and schedule.
        folder: Path of the run folder, or one that has been started by `RunFolder.start`.

    Returns:
        The contents of ``metrics.json``: accuracies on the validation images, and the network's costs.

    Raises:
        AutoReIDError: images, device, network or sizes do not allow the training; raised before it starts.

    Examples:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from PIL import Image
        >>> from autoreid_fast.training import PretrainConfig, pretrain
        >>> for name, color in (("dark", 50), ("bright", 200)):
        ...     for split, images in (("train", 4), ("val", 2)):
        ...         folder = Path("images") / split / name
        ...         folder.mkdir(parents=True)
        ...         for number in range(images):
        ...             pixels = np.full((32, 32, 3), color + number, np.uint8)
        ...             Image.fromarray(pixels).save(folder / f"{number}.png")
        >>> config = PretrainConfig(
        ...     root="images",
        ...     network="resnet18",
        ...     channels=4,
        ...     height=32,
        ...     width=32,
        ...     batch_size=4,
        ...     epochs=1,
        ...     workers=0,
        ...     device="cpu",
        ... )
        >>> metrics = pretrain(config, "runs/pretrain")
        >>> metrics["classes"], Path("runs/pretrain/weights.safetensors").exists()
        (2, True)
    """
    require_config(config, PretrainConfig)
    with open_run(folder, config, "pretrain") as run, worker_deaths():
        pretraining = Pretraining(config, run)
        history = run_epochs(
            run,
            config.epochs,
            pretraining.checkpointed,
            pretraining.run_epoch,
            best_by="top1",
            skip_nonfinite=config.nonfinite == "skip",
        )
        on_main(lambda: save_weights(pretraining.result.backbone, run.weights))
        metrics = {
            "network": config.network,
            "top1": history[-1]["top1"],
            "top5": history[-1]["top5"],
            "classes": pretraining.classes,
            "params_M": pretraining.costs.params_M,
            "flops_G": pretraining.costs.flops_G,
        }
        on_main(lambda: write_json(run.metrics, metrics))
        logger.info("weights written to %s", run.weights)
        return metrics


class ImageClassifier(nn.Module):
    """Images (N, 3, H, W) -> logits (N, ``num_classes``): a backbone and one linear layer on f."""

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(backbone.feature_dim, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.backbone(images))
        return logits


class Pretraining:
    """Images, network and optimiser of one pre-training, and how they run an epoch.

    Raises:
        AutoReIDError: images, device, network or sizes do not allow the training.
    """

    def __init__(self, config: PretrainConfig, run: RunFolder) -> None:
        self.config = config
        self._run = run
        device = choose_device(config.device)
        size = (config.height, config.width)
        torch.manual_seed(config.seed)
        backbone = build_run_backbone(config, run, size)
        train_images, val_images = read_image_folder(config.root)
        self.classes = len(train_images.classes)
        check_divisible("batch_size", config.batch_size)
        batches = ImageBatches(
            train_images,
            size,
            config.batch_size,
            device,
            config.workers,
            config.min_crop_area,
            config.seed,
            current_shard(),
        )
        if not len(batches):
            raise AutoReIDError(
                f"batch_size is {config.batch_size}, but {config.root} has only {len(train_images.files)} "
                "training images: use a smaller batch_size"
            )
        self._val_batches = ImageBatches(
            val_images, size, config.batch_size, device, config.workers, shard=current_shard()
        )
        self._build_model(backbone, device)
        self._steps = StepLoop(
            title="pre-train",
            epochs=config.epochs,
            batches=batches,
            batch_images=config.batch_size,
            step=self._step,
            loss_names=("loss",),
        )
        self.costs = costs(backbone, *size, self.classes)
        logger.info(
            "pre-training %s on %s: %.2f M parameters, %.3f GFLOPs, %d images of %d classes, "
            "%d steps per epoch",
            config.network,
            device,
            self.costs.params_M,
            self.costs.flops_G,
            len(train_images.files),
            self.classes,
            len(batches),
        )

    def _build_model(self, backbone: Backbone, device: torch.device) -> None:
        config = self.config
        self.model = ImageClassifier(backbone, self.classes)
        place(self.model, device)
        join_model(self.model, config.distributed)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            config.learning_rate,
            config.momentum,
            weight_decay=config.weight_decay,
        )
        self.checkpointed: dict[str, Stateful] = {"model": self.model, "optimizer": self.optimizer}
        self.checkpointed |= genotype_part(backbone, self._run)
        self._average: AveragedModel | None = None
        self.result = self.model
        if config.ema_decay:
            average_weights = get_ema_multi_avg_fn(config.ema_decay)
            self._average = AveragedModel(self.model, multi_avg_fn=average_weights, use_buffers=True)
            self.checkpointed["average"] = self._average
            self.result = cast(ImageClassifier, self._average.module)
        self._criterion = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
        self._train_step = TrainStep(self.model, self.optimizer, config.nonfinite)

    def run_epoch(self, epoch: Epoch) -> EpochResult:
        """Train one epoch and measure the accuracy."""
        rate = self._learning_rate(epoch.number)
        set_learning_rate(self.optimizer, rate)
        self.model.train()
        losses = self._steps.run(epoch)
        average_statistics(self.model, self.config.distributed)
        average_statistics(self.result, self.config.distributed)
        accuracies = accuracy(self.result, self._val_batches, self.config.amp)
        summary = f"loss {losses['loss']:.3f}  top-1 {accuracies['top1']:.3f}  top-5 {accuracies['top5']:.3f}"
        return EpochResult(
            {**losses, "learning_rate": rate, **accuracies}, summary, self._steps.images(epoch)
        )

    def _learning_rate(self, epoch: int) -> float:
        config = self.config
        if config.schedule == "cosine":
            return cosine(epoch, config.epochs, config.learning_rate, 0)
        return step_decay(epoch, config.learning_rate, config.decay_epochs)

    def _step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        losses = self._train_step(lambda: self._losses(images, labels))
        if self._average is not None:
            self._average.update_parameters(self.model)
        return {"loss": losses.total}

    def _losses(self, images: Tensor, labels: Tensor) -> LossTerms:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.config.amp):
            return LossTerms(self._criterion(self.model(images), labels), {})


@torch.no_grad()
def accuracy(model: nn.Module, batches: ImageBatches, amp: bool = False) -> dict[str, float]:
    """Measure ``top1`` and ``top5``: fractions of the images whose class is among the 1 or 5 most likely."""
    model.eval()
    counts = torch.zeros(3, dtype=torch.int64)
    for images, labels in batches.epoch():
        with torch.autocast(images.device.type, torch.bfloat16, enabled=amp):
            logits = model(images)
        most_likely = logits.float().topk(min(5, logits.shape[1]), dim=1).indices
        correct = most_likely == labels[:, None]
        counts += torch.tensor([int(correct[:, 0].sum()), int(correct.sum()), len(labels)])
    top1, top5, images_seen = sum_over_processes(counts).tolist()
    return {"top1": top1 / images_seen, "top5": top5 / images_seen}
