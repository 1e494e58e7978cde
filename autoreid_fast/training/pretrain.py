"""Pre-train a backbone to classify images (ImageNet, Sec. 4.4); its weights then start a reID training."""

import logging
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from autoreid_fast.data.image_folder import ImageBatches, read_image_folder, worker_deaths
from autoreid_fast.devices import DeviceName, choose_device, place
from autoreid_fast.distributed.collectives import mean_over_processes, sum_over_processes
from autoreid_fast.distributed.group import on_main
from autoreid_fast.distributed.processes import current_shard
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import write_json
from autoreid_fast.models.costs import costs
from autoreid_fast.models.weights import save_weights
from autoreid_fast.nas.backbone import Backbone
from autoreid_fast.progress import epoch_progress
from autoreid_fast.runs.folder import RunFolder
from autoreid_fast.schema import Config
from autoreid_fast.training.epoch import Epoch
from autoreid_fast.training.joint_batch import (
    DistributedConfig,
    average_buffers,
    average_gradients,
    join_model,
)
from autoreid_fast.training.loop import EpochRecord, Stateful, run_epochs
from autoreid_fast.training.network import run_backbone
from autoreid_fast.training.schedule import cosine, set_learning_rate, step_decay
from autoreid_fast.training.update import NONFINITE, Nonfinite, Updates

logger = logging.getLogger("autoreid_fast")


class PretrainConfig(Config):
    """Pre-train a network on ImageNet, or any tree of classified images; the paper gives no numbers."""

    root: Path | None = Field(None, description="Folder that holds train/CLASS/... and val/CLASS/....")
    network: str = Field(
        "autoreid_base_reid",
        description="What to train: a name that `autoreid-fast models` lists, a genotype.json, or the run "
        "folder of a search.",
    )
    channels: int = Field(
        64, ge=1, description="C: channels of the first convolution (paper: 64 in training)."
    )
    cells_per_block: tuple[int, int, int, int] = Field(
        (2, 2, 2, 2),
        description="l: cells in each of the four blocks (paper: 2 2 2 2); ResNets have their own.",
    )
    height: int = Field(224, gt=0, description="Image height in pixels; 224 in the field.")
    width: int = Field(224, gt=0, description="Image width in pixels; 224 in the field.")
    min_crop_area: float = Field(
        0.08,
        gt=0,
        le=1,
        description="Smallest share of an image's area that a crop keeps; 0.08 in the field.",
    )
    epochs: int = Field(100, ge=1, description="Epochs; 90 to 300 in the field.")
    batch_size: int = Field(256, ge=2, description="Images in a batch; 256 in the field.")
    learning_rate: float = Field(0.1, gt=0, description="SGD's learning rate; 0.1 for a batch of 256.")
    schedule: Literal["cosine", "step"] = Field(
        "cosine", description="cosine: half a cosine to 0; step: divided by 10 at each of decay_epochs."
    )
    decay_epochs: tuple[int, ...] = Field((30, 60, 90), description="Milestones of the step schedule.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD; 0.9 in the field.")
    weight_decay: float = Field(1e-4, ge=0, description="Weight decay; 1e-4 in the field.")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="Label smoothing; 0.1 in the field.")
    amp: bool = Field(False, description="Compute in bfloat16 where torch's autocast does.")
    ema_decay: float = Field(
        0, ge=0, lt=1, description="Keep a moving average of the weights, and evaluate and leave it; 0: none."
    )
    workers: int = Field(8, ge=0, description="Processes that decode images; 0: none but this one.")
    nonfinite: Nonfinite = Field("stop", description=NONFINITE)
    seed: int = Field(0, ge=0, description="Seed of everything random: weights, order, crops.")
    device: DeviceName = Field("auto", description="Where to run; auto takes CUDA where there is one.")
    distributed: DistributedConfig = Field(
        default_factory=DistributedConfig, description="What several processes share."
    )


class ImageClassifier(nn.Module):
    """Images (N, 3, H, W) -> logits (N, ``num_classes``): a backbone and one linear layer on f."""

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(backbone.feature_dim, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.backbone(images))
        return logits


def pretrain(config: PretrainConfig, run: RunFolder) -> dict[str, Any]:
    """Run or resume a pre-training; leaves the backbone's ``weights.safetensors`` and ``metrics.json``.

    The folder must have been started (``RunFolder.start``). Two runs with one seed on one CPU are equal bit
    for bit, killed and resumed or not. Several processes share each batch.

    Raises:
        AutoReIDError: images, device, network or sizes do not allow the training; said before work starts.
    """
    device = choose_device(config.device)
    size = (config.height, config.width)
    torch.manual_seed(config.seed)
    backbone = run_backbone(run, config.network, size, config.channels, config.cells_per_block)
    train_images, val_images = read_image_folder(config.root)
    classes = len(train_images.classes)
    processes = current_shard().processes
    if config.batch_size % processes:
        raise AutoReIDError(
            f"batch_size is {config.batch_size}, which {processes} processes cannot share evenly: "
            f"make it a multiple of {processes}"
        )
    train = ImageBatches(
        *(train_images, size, config.batch_size, device, config.workers),
        *(config.min_crop_area, config.seed, current_shard()),
    )
    if not len(train):
        raise AutoReIDError(
            f"batch_size {config.batch_size}: {config.root} has {len(train_images.files)} training images; "
            "choose a smaller one"
        )
    val = ImageBatches(val_images, size, config.batch_size, device, config.workers, shard=current_shard())
    model = ImageClassifier(backbone, classes)
    place(model, device)
    join_model(model, config.distributed)
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(
        parameters, config.learning_rate, config.momentum, weight_decay=config.weight_decay
    )
    parts: dict[str, Stateful] = {"model": model, "optimizer": optimizer}
    average = None
    if config.ema_decay:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay), use_buffers=True)
        parts["average"] = average
    result = model if average is None else cast(ImageClassifier, average.module)
    criterion = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
    updates = Updates(model, config.nonfinite)
    network_costs = costs(backbone, *size, classes)
    logger.info(
        "pre-training %s on %s: %.2f M parameters, %.3f GFLOPs, %d images of %d classes, %d steps an epoch",
        *(config.network, device, network_costs.params_M, network_costs.flops_G),
        *(len(train_images.files), classes, len(train)),
    )

    def one_epoch(epoch: Epoch) -> EpochRecord:
        rate = (
            cosine(epoch.number, config.epochs, config.learning_rate, 0)
            if config.schedule == "cosine"
            else step_decay(epoch.number, config.learning_rate, config.decay_epochs)
        )
        set_learning_rate(optimizer, rate)
        model.train()
        with epoch_progress("pre-train", epoch.number, config.epochs, config.batch_size) as show_done:
            batches = train.epoch(epoch.number, epoch.done)
            for images, labels in epoch.steps(batches, partial(train.names, epoch.number)):
                updates.begin()
                with torch.autocast(device.type, torch.bfloat16, enabled=config.amp):
                    loss = criterion(model(images), labels)
                gradients = torch.autograd.grad(loss, parameters)
                for parameter, gradient in zip(parameters, average_gradients(gradients), strict=True):
                    parameter.grad = gradient
                loss = updates.take(optimizer, loss)
                if average is not None:
                    average.update_parameters(model)
                epoch.add(loss=loss)
                show_done(epoch.done + 1, len(train), loss)
        record: EpochRecord = {
            "loss": float(mean_over_processes(epoch.means())),
            "learning_rate": rate,
        }
        if not config.distributed.sync_bn:
            average_buffers(model)
            average_buffers(result)
        record |= accuracy(result, val, config.amp)
        record["line"] = f"loss {record['loss']:.3f}  top-1 {record['top1']:.3f}  top-5 {record['top5']:.3f}"
        return record

    skips = config.nonfinite == "skip"
    with worker_deaths():
        history = run_epochs(run, config.epochs, parts, one_epoch, best_by="top1", tolerant=skips)
    on_main(lambda: save_weights(result.backbone, run.weights))
    metrics = {
        "network": config.network,
        "top1": history[-1]["top1"],
        "top5": history[-1]["top5"],
        "classes": classes,
        "params_M": network_costs.params_M,
        "flops_G": network_costs.flops_G,
    }
    on_main(lambda: write_json(run.metrics, metrics))
    logger.info("weights written to %s", run.weights)
    return metrics


@torch.no_grad()
def accuracy(model: nn.Module, batches: ImageBatches, amp: bool = False) -> dict[str, float]:
    """Shares of the images whose class is the likeliest one (``top1``) or among the five likeliest."""
    model.eval()
    counts = torch.zeros(3, dtype=torch.int64)
    for images, labels in batches.epoch():
        with torch.autocast(images.device.type, torch.bfloat16, enabled=amp):
            logits = model(images)
        likeliest = logits.float().topk(min(5, logits.shape[1]), dim=1).indices
        right = likeliest == labels[:, None]
        counts += torch.tensor([int(right[:, 0].sum()), int(right.sum()), len(labels)])
    top1, top5, seen = sum_over_processes(counts).tolist()
    return {"top1": top1 / seen, "top5": top5 / seen}
