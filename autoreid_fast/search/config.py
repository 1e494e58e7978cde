"""What a search can be told: the fields of `search`, their defaults and what the paper says of each."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator

from autoreid_fast.data.batches import AugmentationConfig
from autoreid_fast.data.config import AnyDataConfig, DataConfig
from autoreid_fast.devices import DeviceName
from autoreid_fast.distributed.processes import current_shard
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.losses import AnyObjectiveConfig, ObjectiveConfig
from autoreid_fast.nas.space import Space
from autoreid_fast.schema import Config
from autoreid_fast.training.joint_batch import DistributedConfig
from autoreid_fast.training.setup import BatchConfig
from autoreid_fast.training.update import NONFINITE, Nonfinite


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


class GumbelConfig(Config):
    """The temperature of GDAS's Gumbel softmax, linear in the epoch."""

    tau: float = Field(10.0, gt=0, description="Temperature at the first epoch (GDAS: 10).")
    final_tau: float = Field(0.1, gt=0, description="Temperature at the last epoch (GDAS: 0.1).")


class SearchConfig(Config):
    """Search an architecture for person re-identification (Algorithm 1)."""

    data: AnyDataConfig = Field(default_factory=DataConfig, description="The data set.")
    algorithm: Literal["darts", "gdas"] = Field(
        "darts",
        description="darts: all candidates at once, weighted by softmax(alpha), as the paper does; gdas: one "
        "sampled candidate an edge (Table 4's GDAS).",
    )
    order: Literal[1, 2] = Field(
        1,
        description="darts: 1 takes alpha's gradient at omega as it is; 2 at omega after one more step, and "
        "through that step, for 2.5 times the work (paper: 1st, by its reference to DARTS).",
    )
    gumbel: GumbelConfig = Field(default_factory=GumbelConfig, description="gdas: how it samples.")
    space: Space = Field(
        "reid",
        description="Candidate operations: reid has the part-aware module, standard has not (Sec. 3.3).",
    )
    channels: int = Field(32, ge=1, description="C: channels of the first convolution (paper: 32 in search).")
    cells_per_block: tuple[int, int, int, int] = Field(
        (2, 2, 2, 2), description="l: cells in each of the four blocks (paper: 2 2 2 2)."
    )
    supernet: Literal["source", "reference"] = Field(
        "source",
        description="How the supernet is computed: source shares between edges what is the same, on fused "
        "kernels; reference goes edge by edge. The mathematics is one. gdas, which runs single "
        "candidates, has its own.",
    )
    embedding_dim: int = Field(512, ge=1, description="Size of the embedding g (paper: not said; 512).")
    dropout: float = Field(0.5, ge=0, lt=1, description="Rate of the two dropouts (paper: not said; 0.5).")
    objective: AnyObjectiveConfig = Field(default_factory=ObjectiveConfig, description="The loss.")
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
    nonfinite: Nonfinite = Field("stop", description=NONFINITE)
    seed: int = Field(0, ge=0, description="Seed of everything random: split, weights, batches, dropout.")
    device: DeviceName = Field("auto", description="Where to run; auto takes CUDA where there is one.")
    distributed: DistributedConfig = Field(
        default_factory=DistributedConfig, description="What several processes share."
    )

    execution: Literal["auto", "captured", "eager"] = Field(
        "auto",
        description="captured: both steps as one CUDA graph (darts of order 1 alone); eager: one operation "
        "after another; auto: captured where that can be.",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="bfloat16: the network under autocast; alpha, its softmax, statistics, losses and "
        "optimisers stay in float32.",
    )

    @field_validator("order")
    @classmethod
    def _order_is_of_darts(cls, order: int, info: ValidationInfo) -> int:
        if order == 2 and info.data.get("algorithm") == "gdas":
            raise ValueError("the second order is of algorithm darts; use 1 with gdas")
        return order

    @field_validator("execution")
    @classmethod
    def _captured_steps_are_all_alike(cls, execution: str, info: ValidationInfo) -> str:
        if execution == "captured" and not _can_be_captured(info.data):
            raise ValueError(
                "only darts of order 1 with nonfinite stop does the same in each step, which a graph needs; "
                "use auto or eager"
            )
        return execution

    def captured_on(self, device: torch.device) -> bool:
        """Whether the steps run from a CUDA graph on ``device``.

        Raises:
            AutoReIDError: they shall, and ``device`` has no CUDA graphs, or several processes share the run.
        """
        available = device.type == "cuda" and current_shard().processes == 1
        if self.execution == "captured" and not available:
            raise AutoReIDError(
                f"execution: captured needs one process on CUDA, and this is {current_shard().processes} on "
                f"{device.type}: use auto or eager"
            )
        wanted = available and self.execution != "eager"
        return wanted and _can_be_captured(self.model_dump(include={"algorithm", "order", "nonfinite"}))


def _can_be_captured(values: Mapping[str, Any]) -> bool:
    """GDAS's network changes with each sample; the second order sets the random state back between passes;
    a step that may be skipped asks for its loss."""
    wanted = {"algorithm": "darts", "order": 1, "nonfinite": "stop"}
    return all(values.get(name) == value for name, value in wanted.items())
