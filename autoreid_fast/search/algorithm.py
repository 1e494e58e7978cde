"""Base of search algorithms: a supernet with its head, two optimisers, and the pair of steps they make."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from autoreid_fast.devices import place
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.losses import LossTerms, build_loss
from autoreid_fast.models.heads.embedding import ReIDOutput
from autoreid_fast.models.reid import ReIDNetwork
from autoreid_fast.nas.backbone import Backbone
from autoreid_fast.nas.derivation import derive
from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.nas.supernet.supernet import Supernet
from autoreid_fast.search.captured import CapturedStep
from autoreid_fast.search.config import SEARCH_ALGORITHMS, AlphaConfig, OmegaConfig, SearchConfig
from autoreid_fast.training.checkpointing import Stateful
from autoreid_fast.training.joint_batch import average_gradients, join_model, joint_batch
from autoreid_fast.training.schedule import cosine, set_learning_rate, step_decay
from autoreid_fast.training.step import TrainStep

Batch = tuple[Tensor, Tensor]
"""Images (N, 3, H, W) float32 and labels (N,) int64."""


_SEARCHED = ("alpha_normal", "alpha_reduce", "architecture_parameters")


class SearchAlgorithm(ABC):
    """One step of omega on D_train and one of alpha on D_val in turn (Algorithm 1), first order.

    A search algorithm is a subclass, registered by ``@register_search_algorithm``. It defines
    `build_supernet` and may override `set_epoch`, `loss_of_omega`, `loss_of_alpha`, `alpha_gradients`, `step`
    and `genotype`.

    Args:
        config: Config of the search; a subclass with fields of its own annotates its own config class.
        identities: Number of training identities.
        device: Device of the model.

    Examples:
        A user's own algorithm, in a file that ``--import`` names:

        >>> from pydantic import Field
        >>> from torch import Tensor
        >>> from autoreid_fast.nas.supernet.source_supernet import SourceSupernet
        >>> from autoreid_fast.search import SearchAlgorithm, SearchConfig, register_search_algorithm
        >>> class ScaledConfig(SearchConfig):
        ...     scale: float = Field(2.0, description="Factor of alpha's loss.")
        >>> @register_search_algorithm("scaled")
        ... class Scaled(SearchAlgorithm):
        ...     "First-order DARTS with a scaled loss of alpha."
        ...
        ...     def __init__(self, config: ScaledConfig, identities: int, device: torch.device) -> None:
        ...         super().__init__(config, identities, device)
        ...         self.scale = config.scale
        ...
        ...     @classmethod
        ...     def build_supernet(cls, config: ScaledConfig) -> SourceSupernet:
        ...         return SourceSupernet(config.channels, config.cells_per_block, config.space)
        ...
        ...     def loss_of_alpha(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        ...         return self.scale * super().loss_of_alpha(batch)
        >>> SearchConfig(algorithm="scaled").scale
        2.0

    Attributes:
        supernet: Supernet, whose ``architecture_parameters()`` are alpha.
        model: Supernet with its head.
        alpha: Architecture parameters.
        omega: All other parameters of ``model``.
    """

    def __init__(self, config: SearchConfig, identities: int, device: torch.device) -> None:
        self.config = config
        self.supernet = _checked(self.build_supernet(config), config.algorithm)
        self.model = ReIDNetwork(self.supernet, identities, config.embedding_dim, config.dropout)
        place(self.model, device)
        join_model(self.model, config.distributed)
        self.alpha = list(self.supernet.architecture_parameters())
        alpha_ids = {id(parameter) for parameter in self.alpha}
        self.omega = [p for p in self.model.parameters() if id(p) not in alpha_ids]
        captured = config.captured_on(device)
        self.omega_optimizer = _omega_optimizer(self.omega, config.omega, captured)
        self.alpha_optimizer = _alpha_optimizer(self.alpha, config.alpha, captured)
        self._update_omega = TrainStep(
            self.model, self.omega_optimizer, config.nonfinite, clip=config.omega.gradient_clip
        )
        self._update_alpha = TrainStep(self.model, self.alpha_optimizer, config.nonfinite)
        objective = config.objective
        self._omega_criterion = build_loss(objective).to(device)
        if objective.loss == "retrieval" and config.alpha_loss == "triplet":
            objective = objective.model_copy(update={"loss": "triplet"})
        self._alpha_criterion = build_loss(objective).to(device)
        self._step_pair = CapturedStep(self._eager_step_pair) if captured else self._eager_step_pair

    @classmethod
    @abstractmethod
    def build_supernet(cls, config: SearchConfig) -> Supernet:
        """Build the supernet that the algorithm searches.

        Raises:
            AutoReIDError: channels or space do not allow it.
        """

    @property
    def checkpointed(self) -> dict[str, Stateful]:
        """Modules and optimisers that a checkpoint holds, by name."""
        return {
            "model": self.model,
            "omega_optimizer": self.omega_optimizer,
            "alpha_optimizer": self.alpha_optimizer,
        }

    def set_epoch(self, epoch: int) -> None:
        """Set both learning rates for ``epoch`` (from 0)."""
        omega, alpha = self.config.omega, self.config.alpha
        rate = cosine(epoch, self.config.epochs, omega.learning_rate, omega.final_learning_rate)
        set_learning_rate(self.omega_optimizer, rate)
        set_learning_rate(self.alpha_optimizer, step_decay(epoch, alpha.learning_rate, alpha.decay_epochs))

    def step(self, train: Batch, val: Batch) -> tuple[Tensor, Tensor]:
        """Update omega on a batch of D_train, then alpha on one of D_val (Algorithm 1, lines 2 to 5).

        Returns:
            Losses of omega and of alpha, detached scalars.
        """
        omega_loss, alpha_loss = self._step_pair(*train, *val)
        return omega_loss, alpha_loss

    def alpha_gradients(self, train: Batch, val: Batch) -> tuple[Tensor, Sequence[Tensor]]:
        """Return alpha's loss on ``val`` and its gradients, averaged over the processes."""
        self.require_gradients(self.alpha)
        loss = self.loss_of_alpha(val)
        gradients = torch.autograd.grad(loss, self.alpha, materialize_grads=True)
        return loss, average_gradients(gradients)

    def loss_of_omega(self, batch: Batch) -> Tensor:
        """Return the loss that omega minimises, a scalar."""
        return self._total(self._omega_criterion, batch)

    def loss_of_alpha(self, batch: Batch) -> Tensor:
        """Return the loss that alpha minimises, a scalar."""
        return self._total(self._alpha_criterion, batch)

    def require_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Compute gradients for ``parameters`` only: the others cost neither time nor memory."""
        for parameter in (*self.omega, *self.alpha):
            parameter.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)

    def genotype(self) -> Genotype:
        """Derive the architecture from the present alpha (Sec. 3.1)."""
        return derive(self.supernet.alpha_normal, self.supernet.alpha_reduce, self.config.space)

    def _eager_step_pair(
        self, images: Tensor, labels: Tensor, val_images: Tensor, val_labels: Tensor
    ) -> tuple[Tensor, ...]:
        train, val = (images, labels), (val_images, val_labels)
        return self._step_omega(train), self._step_alpha(train, val)

    def _step_omega(self, train: Batch) -> Tensor:
        self.require_gradients(self.omega)
        return self._update_omega(lambda: LossTerms(self.loss_of_omega(train), {})).total

    def _step_alpha(self, train: Batch, val: Batch) -> Tensor:
        def gradients() -> tuple[LossTerms, Sequence[Tensor]]:
            loss, values = self.alpha_gradients(train, val)
            return LossTerms(loss, {}), values

        return self._update_alpha.apply(gradients).total

    def _total(self, criterion: nn.Module, batch: Batch) -> Tensor:
        images, labels = batch
        low_precision = self.config.precision == "bfloat16"
        with torch.autocast(images.device.type, torch.bfloat16, enabled=low_precision):
            output = self.model(images)
        if low_precision:
            output = ReIDOutput(*(part.float() for part in output))
        losses: LossTerms = criterion(*joint_batch(output, labels, self.config.distributed))
        return losses.total


def build_algorithm(config: SearchConfig, identities: int, device: torch.device) -> SearchAlgorithm:
    """Build the algorithm that ``config`` names, initialised by torch's random state.

    Raises:
        AutoReIDError: config and device are incompatible.
    """
    algorithm_class(config)
    algorithm: SearchAlgorithm = SEARCH_ALGORITHMS[config.algorithm].build(config, identities, device)
    return algorithm


def build_supernet(config: SearchConfig) -> Supernet:
    """Build the supernet of the algorithm that ``config`` names, without the algorithm.

    Raises:
        AutoReIDError: as for `algorithm_class`; or it builds something else.
    """
    algorithm = algorithm_class(config)
    with SEARCH_ALGORITHMS[config.algorithm].naming_errors():
        return _checked(algorithm.build_supernet(config), config.algorithm)


def _checked(supernet: object, algorithm: str) -> Supernet:
    """Return ``supernet`` if it has what the search reads of one."""
    missing = [name for name in _SEARCHED if not hasattr(supernet, name)]
    if not isinstance(supernet, Backbone) or missing:
        lacks = f" without {', '.join(missing)}" if isinstance(supernet, Backbone) else ""
        raise AutoReIDError(
            f"search algorithm {algorithm}: build_supernet returned {type(supernet).__name__}{lacks}; "
            "expected a Supernet (autoreid_fast.nas)"
        )
    return cast(Supernet, supernet)


def algorithm_class(config: SearchConfig) -> type[SearchAlgorithm]:
    """Look up the algorithm that ``config`` names.

    Raises:
        AutoReIDError: nothing, or something that is no complete search algorithm, is registered under that
            name.
    """
    algorithm = SEARCH_ALGORITHMS[config.algorithm].builder
    if not (isinstance(algorithm, type) and issubclass(algorithm, SearchAlgorithm)):
        raise AutoReIDError(
            f"search algorithm {config.algorithm}: expected a subclass of SearchAlgorithm, got {algorithm!r}"
        )
    if inspect.isabstract(algorithm):
        raise AutoReIDError(
            f"search algorithm {config.algorithm}: {algorithm.__name__} does not define build_supernet"
        )
    return algorithm


def _omega_optimizer(
    parameters: list[nn.Parameter], config: OmegaConfig, captured: bool
) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(
        parameters,
        lr=_learning_rate(config.learning_rate, parameters, captured),
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=captured or None,
    )
    _load_moments_only(optimizer)
    return optimizer


def _alpha_optimizer(
    parameters: list[nn.Parameter], config: AlphaConfig, captured: bool
) -> torch.optim.Optimizer:
    optimizer = torch.optim.Adam(
        parameters,
        lr=_learning_rate(config.learning_rate, parameters, captured),
        weight_decay=config.weight_decay,
        capturable=captured,
        fused=captured or None,
    )
    _load_moments_only(optimizer)
    return optimizer


def _learning_rate(rate: float, parameters: list[nn.Parameter], captured: bool) -> float | Tensor:
    """Return a learning rate that a captured step can read: a tensor."""
    return torch.tensor(rate, device=parameters[0].device) if captured else rate


def _load_moments_only(optimizer: torch.optim.Optimizer) -> None:
    """Make ``optimizer`` load only the moments of a state, and keep its settings.

    Settings (rates as tensors or numbers, fused, capturable) depend on the device, and a checkpoint may come
    from another one. Learning rates are set in each epoch.
    """

    def keep_settings(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        groups = zip(optimizer.param_groups, state["param_groups"], strict=False)
        state["param_groups"] = [{**present, "params": saved["params"]} for present, saved in groups]

    optimizer.register_load_state_dict_pre_hook(keep_settings)
