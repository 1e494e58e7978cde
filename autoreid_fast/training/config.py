"""Configs of `train` and `pretrain`, and the groups of fields that `search` shares with them."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from autoreid_fast.data.batches import AugmentationConfig
from autoreid_fast.data.config import AnyDataConfig, DataConfig
from autoreid_fast.devices import DeviceName
from autoreid_fast.losses import AnyObjectiveConfig, ObjectiveConfig
from autoreid_fast.models.reid import Tail
from autoreid_fast.schema import Config

Nonfinite = Literal["stop", "skip"]


Cells = Annotated[int, Field(le=100)]
"""Number of cells of one block."""
Milestone = Annotated[int, Field(ge=0, le=1_000_000)]
"""Epoch from which a learning rate is lower; it may lie beyond the last one."""


class DistributedConfig(Config):
    """Work that the processes of `torchrun` share; no effect in a single process."""

    sync_bn: bool = Field(
        True,
        description="Batch statistics over the images of all processes; off: each process uses its own.",
    )
    gather: bool = Field(
        True,
        description="Compute the loss over the images of all processes, so that batch-hard mining sees them; "
        "off: each process mines among its own identities.",
    )


class RunConfig(Config):
    """Fields of every run."""

    seed: int = Field(
        0, ge=0, le=2**63 - 1, description="Seed of everything random: weights, splits, batches, dropout."
    )
    device: DeviceName = Field("auto", description="Device: auto (CUDA if available), cpu, cuda or cuda:N.")
    nonfinite: Nonfinite = Field(
        "stop",
        description="If a loss is NaN or infinite: stop, naming the step, its images and the last good "
        "checkpoint; or skip the step with a warning, which on a GPU makes every step wait for its loss.",
    )
    distributed: DistributedConfig = Field(
        default_factory=DistributedConfig, description="Several processes under torchrun."
    )


class NetworkConfig(Config):
    """Fields that choose a backbone."""

    network: str = Field(
        "autoreid_base_reid",
        description="Network to train: a name that `autoreid-fast models` lists, a genotype.json, or the run "
        "folder of a search.",
    )
    channels: int = Field(
        64, ge=1, le=10_000, description="C: channels of the first convolution (paper: 64 in training)."
    )
    cells_per_block: tuple[Cells, Cells, Cells, Cells] = Field(
        (2, 2, 2, 2),
        description="l: cells in each of the four blocks (paper: 2 2 2 2); ResNets ignore it.",
    )


class HeadConfig(Config):
    """Fields of the layers after the backbone."""

    embedding_dim: int = Field(
        512, ge=1, le=100_000, description="Size of the embedding g (not in the paper; usually 512)."
    )
    dropout: float = Field(
        0.5, ge=0, lt=1, description="Rate of the two dropouts (not in the paper; usually 0.5)."
    )


class BatchConfig(Config):
    """Class-balanced batch (Sec. 3.2): identities, and images per identity."""

    identities: int = Field(
        4,
        ge=2,
        le=100_000,
        description="P: identities per batch (not in the paper; 4 in search, 8 in training).",
    )
    images: int = Field(4, ge=2, le=100_000, description="K: images per identity (paper: 4).")

    @property
    def size(self) -> int:
        """Images per batch."""
        return self.identities * self.images


class TrainConfig(HeadConfig, NetworkConfig, RunConfig):
    """Train a searched or a fixed network, then evaluate it."""

    data: AnyDataConfig = Field(default_factory=DataConfig, description="Data set.")
    pretrained: Path | None = Field(
        None,
        description="Weights of the backbone to start from: the run folder of a `pretrain` or a `train`, one "
        "of its files of weights, or another tool's state dict of this network, such as torchvision's of a "
        "ResNet; default: random weights.",
    )
    last_stride: Literal[1, 2] = Field(
        2,
        description="Stride of the last stage, for ResNets and other networks that have this option. The "
        "papers of PCB and HPM use 1; --tail does not change it.",
    )
    tail: Tail = Field(
        "embedding",
        description="embedding: the head of Sec. 3.2; pcb (six strips) or hpm (a pyramid of 1, 2, 4 and 8 "
        "strips) on any backbone: their papers train with --objective.loss ce, summed over the strips.",
    )
    objective: AnyObjectiveConfig = Field(default_factory=ObjectiveConfig, description="Loss.")
    batch: BatchConfig = Field(
        default_factory=lambda: BatchConfig(identities=8, images=4),
        description="Class-balanced batch (paper: 8 x 4 from scratch, 16 x 4 from ImageNet weights).",
    )
    augmentation: AugmentationConfig = Field(default_factory=AugmentationConfig, description="Augmentation.")
    epochs: int = Field(240, ge=1, le=1_000_000, description="Epochs (paper: 240).")
    learning_rate: float = Field(0.0035, gt=0, description="Learning rate of Adam (paper: 0.0035).")
    decay_epochs: tuple[Milestone, ...] = Field(
        (80, 150), description="Epochs from which the learning rate is divided by 10 (paper: 80 and 150)."
    )
    weight_decay: float = Field(5e-4, ge=0, description="Weight decay (paper: 0.0005).")
    evaluate_every: int = Field(
        0, ge=0, le=1_000_000, description="Evaluate after every so many epochs; 0: only after the last one."
    )


class PretrainConfig(NetworkConfig, RunConfig):
    """Pre-train a network on ImageNet or another tree of classified images; the paper gives no numbers."""

    root: Path | None = Field(None, description="Folder that holds train/CLASS/... and val/CLASS/....")
    height: int = Field(224, gt=0, le=10_000, description="Image height in pixels; usually 224.")
    width: int = Field(224, gt=0, le=10_000, description="Image width in pixels; usually 224.")
    min_crop_area: float = Field(
        0.08, gt=0, le=1, description="Smallest fraction of an image's area that a crop keeps; usually 0.08."
    )
    epochs: int = Field(100, ge=1, le=1_000_000, description="Epochs; usually 90 to 300.")
    batch_size: int = Field(256, ge=2, le=100_000, description="Images per batch; usually 256.")
    learning_rate: float = Field(
        0.1, gt=0, description="Learning rate of SGD at the start; usually 0.1 for batches of 256."
    )
    schedule: Literal["cosine", "step"] = Field(
        "cosine", description="cosine: half a cosine to 0; step: divided by 10 at each of decay_epochs."
    )
    decay_epochs: tuple[Milestone, ...] = Field((30, 60, 90), description="Milestones of the step schedule.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD; usually 0.9.")
    weight_decay: float = Field(1e-4, ge=0, description="Weight decay; usually 1e-4.")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="Label smoothing; usually 0.1.")
    amp: bool = Field(False, description="Compute in bfloat16 under torch's autocast.")
    ema_decay: float = Field(
        0,
        ge=0,
        lt=1,
        description="Decay of a moving average of the weights, which is evaluated and saved; 0: no average.",
    )
    workers: int = Field(
        8, ge=0, le=1_024, description="Processes that decode images; 0: decode in the main process."
    )
