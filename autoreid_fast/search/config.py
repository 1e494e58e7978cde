"""Config that all search algorithms share, and their registry."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator

from autoreid_fast.data.batches import AugmentationConfig
from autoreid_fast.data.config import AnyDataConfig, DataConfig
from autoreid_fast.distributed.processes import current_shard
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.losses import AnyObjectiveConfig, ObjectiveConfig
from autoreid_fast.nas.space import Space
from autoreid_fast.registry import RegisteredConfig, Registry, field_error
from autoreid_fast.schema import Config
from autoreid_fast.training.config import BatchConfig, Cells, HeadConfig, Milestone, RunConfig

if TYPE_CHECKING:
    from autoreid_fast.search.algorithm import SearchAlgorithm

SEARCH_ALGORITHMS: "Registry[type[SearchAlgorithm]]" = Registry(
    "search algorithm", builtin="autoreid_fast.search.algorithms"
)
register_search_algorithm = SEARCH_ALGORITHMS.register


class OmegaConfig(Config):
    """Optimiser of the operation parameters omega: SGD with a cosine schedule (Sec. 4.2)."""

    learning_rate: float = Field(0.1, gt=0, description="Learning rate of the first epoch (paper: 0.1).")
    final_learning_rate: float = Field(
        0.001, ge=0, description="Learning rate at the end of the cosine schedule (paper: 0.001)."
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD (paper: 0.9).")
    weight_decay: float = Field(5e-4, ge=0, description="Weight decay (paper: 0.0005).")
    gradient_clip: float = Field(
        5.0, gt=0, description="Largest norm of the gradient (not in the paper; 5 in DARTS)."
    )


class AlphaConfig(Config):
    """Optimiser of the architecture parameters alpha: Adam with a step schedule (Sec. 4.2)."""

    learning_rate: float = Field(
        0.02,
        gt=0,
        description="Learning rate of the first epoch (paper: 0.02). Adam's betas are torch's: the paper "
        "gives none.",
    )
    decay_epochs: tuple[Milestone, ...] = Field(
        (60, 150), description="Epochs from which the learning rate is divided by 10 (paper: 60 and 150)."
    )
    weight_decay: float = Field(5e-4, ge=0, description="Weight decay (paper: 0.0005).")


class SupernetConfig(Config):
    """Fields of the supernet and of how its steps are computed."""

    space: Space = Field(
        "reid",
        description="Candidate operations: reid has the part-aware module, standard does not (Sec. 3.3).",
    )
    channels: int = Field(
        32, ge=1, le=10_000, description="C: channels of the first convolution (paper: 32 in search)."
    )
    cells_per_block: tuple[Cells, Cells, Cells, Cells] = Field(
        (2, 2, 2, 2), description="l: cells in each of the four blocks (paper: 2 2 2 2)."
    )
    supernet: Literal["source", "reference"] = Field(
        "source",
        description="source: fused kernels, which compute once what the edges that leave a node share; "
        "reference: edge by edge in plain PyTorch. Both compute the same function. gdas ignores it.",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="bfloat16: the network runs under autocast; alpha, its softmax, statistics, losses and "
        "optimisers stay in float32.",
    )
    execution: Literal["auto", "captured", "eager"] = Field(
        "auto",
        description="captured: both steps as one CUDA graph (needs darts of order 1, nonfinite stop, and "
        "one process on CUDA); eager: operation by operation; auto: captured if possible.",
    )


class SearchConfig(HeadConfig, SupernetConfig, RunConfig, RegisteredConfig):
    """Search for a person re-identification architecture (Algorithm 1)."""

    # each algorithm has its own subclass, chosen by ``algorithm``, for the fields that only it has
    registry: ClassVar[Registry[Any]] = SEARCH_ALGORITHMS
    key: ClassVar[str] = "algorithm"
    default: ClassVar[str] = "darts"

    algorithm: str = Field(
        "darts",
        description="darts: all candidates at once, weighted by softmax(alpha), as in the paper; gdas: one "
        "sampled candidate per edge (GDAS in Table 4).",
    )
    data: AnyDataConfig = Field(default_factory=DataConfig, description="Data set.")
    objective: AnyObjectiveConfig = Field(default_factory=ObjectiveConfig, description="Loss.")
    alpha_loss: Literal["ret", "triplet"] = Field(
        "ret",
        description="Loss of alpha if objective.loss is retrieval: ret as in Algorithm 1, triplet as in the "
        "text of Sec. 3.2. Otherwise it is objective.loss.",
    )
    batch: BatchConfig = Field(default_factory=BatchConfig, description="Class-balanced batch.")
    augmentation: AugmentationConfig = Field(default_factory=AugmentationConfig, description="Augmentation.")
    epochs: int = Field(200, ge=1, le=1_000_000, description="Epochs (paper: 200).")
    omega: OmegaConfig = Field(default_factory=OmegaConfig, description="Optimiser of omega.")
    alpha: AlphaConfig = Field(default_factory=AlphaConfig, description="Optimiser of alpha.")

    @property
    def capturable(self) -> bool:
        """Whether every step pair does the same work, which a CUDA graph requires."""
        return False

    @model_validator(mode="after")
    def _check_execution(self) -> Self:
        if self.execution == "captured" and not self.capturable:
            reason = (
                "only darts of order 1 with nonfinite stop can be captured, because a CUDA graph repeats the "
                "same work in every step; use auto or eager"
            )
            raise field_error(type(self), "execution", self.execution, reason)
        return self

    def captured_on(self, device: torch.device) -> bool:
        """Whether the steps run from a CUDA graph on ``device``.

        Raises:
            AutoReIDError: ``execution`` is captured, but ``device`` has no CUDA graphs or several processes
                share the run.
        """
        available = device.type == "cuda" and current_shard().processes == 1
        if self.execution == "captured" and not available:
            raise AutoReIDError(
                "execution is captured: expected one process on CUDA, got "
                f"{current_shard().processes} on {device.type}; use auto or eager"
            )
        return available and self.execution != "eager" and self.capturable
