"""One turn of Algorithm 1: a supernet with its head, both optimisers, and the pair of steps they take."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from autoreid_fast.devices import place
from autoreid_fast.losses import objective
from autoreid_fast.models.heads.embedding import ReIDOutput
from autoreid_fast.models.reid import ReIDNetwork
from autoreid_fast.nas.derivation import derive
from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.nas.supernet.sampled import SampledSupernet
from autoreid_fast.nas.supernet.source_supernet import SourceSupernet
from autoreid_fast.nas.supernet.supernet import Supernet
from autoreid_fast.search.config import SearchConfig
from autoreid_fast.search.second_order import unrolled_gradients
from autoreid_fast.training.captured import CapturedStep
from autoreid_fast.training.joint_batch import average_gradients, join_model, joint_batch
from autoreid_fast.training.schedule import cosine, keep_settings, linear, set_learning_rate, step_decay
from autoreid_fast.training.update import Updates

Batch = tuple[Tensor, Tensor]
"""Images (N, 3, H, W) float32 and labels (N,) int64."""


def build_supernet(config: SearchConfig) -> Supernet:
    """The supernet that the config's algorithm searches.

    Raises:
        AutoReIDError: channels or space do not allow it.
    """
    if config.algorithm == "gdas":
        kind: type[Supernet] = SampledSupernet
    else:
        kind = SourceSupernet if config.supernet == "source" else Supernet
    return kind(config.channels, config.cells_per_block, config.space)


class Searcher:
    """A supernet with its head and both optimisers; ``step`` is one turn of Algorithm 1's loop."""

    def __init__(self, config: SearchConfig, identities: int, device: torch.device) -> None:
        self.config = config
        self.supernet = build_supernet(config)
        self.model = ReIDNetwork(self.supernet, identities, config.embedding_dim, config.dropout)
        place(self.model, device)
        join_model(self.model, config.distributed)
        self.alpha = list(self.supernet.architecture_parameters())
        alpha_ids = {id(parameter) for parameter in self.alpha}
        self.omega = [p for p in self.model.parameters() if id(p) not in alpha_ids]
        captured = config.captured_on(device)
        # what a captured step reads is a tensor, learning rates too
        omega_rate, alpha_rate = (
            torch.tensor(part.learning_rate, device=device) if captured else part.learning_rate
            for part in (config.omega, config.alpha)
        )
        self.omega_optimizer = torch.optim.SGD(
            self.omega,
            lr=omega_rate,
            momentum=config.omega.momentum,
            weight_decay=config.omega.weight_decay,
            fused=captured or None,
        )
        self.alpha_optimizer = torch.optim.Adam(
            self.alpha,
            lr=alpha_rate,
            weight_decay=config.alpha.weight_decay,
            capturable=captured,
            fused=captured or None,
        )
        for optimizer in (self.omega_optimizer, self.alpha_optimizer):
            keep_settings(optimizer)
        self._updates = Updates(self.model, config.nonfinite)
        self._both_steps = CapturedStep(self._eager_steps) if captured else self._eager_steps

    def set_epoch(self, epoch: int) -> None:
        """Set both learning rates, and the temperature of GDAS, for ``epoch`` (from 0)."""
        omega, alpha, gumbel = self.config.omega, self.config.alpha, self.config.gumbel
        rate = cosine(epoch, self.config.epochs, omega.learning_rate, omega.final_learning_rate)
        set_learning_rate(self.omega_optimizer, rate)
        set_learning_rate(self.alpha_optimizer, step_decay(epoch, alpha.learning_rate, alpha.decay_epochs))
        if isinstance(self.supernet, SampledSupernet):
            self.supernet.tau = linear(epoch, self.config.epochs, gumbel.tau, gumbel.final_tau)

    def step(self, train: Batch, val: Batch) -> tuple[Tensor, Tensor]:
        """Algorithm 1, lines 2 to 5: update omega on a batch of D_train, then alpha on one of D_val.

        Returns the two losses, detached.
        """
        omega_loss, alpha_loss = self._both_steps(*train, *val)
        return omega_loss, alpha_loss

    def _eager_steps(self, images: Tensor, labels: Tensor, *val: Tensor) -> tuple[Tensor, ...]:
        train = (images, labels)
        val_images, val_labels = val
        return self._step_omega(train), self._step_alpha(train, (val_images, val_labels))

    def _step_omega(self, train: Batch) -> Tensor:
        self._require_gradients(self.omega)
        self._updates.begin()
        loss = self._loss(train, None)
        # a parameter out of the loss's reach (a candidate that GDAS did not draw) has no gradient, and its
        # optimiser leaves it alone
        gradients = torch.autograd.grad(loss, self.omega, allow_unused=True)
        self._set_gradients(self.omega, average_gradients(gradients))
        nn.utils.clip_grad_norm_(self.omega, self.config.omega.gradient_clip)
        return self._updates.take(self.omega_optimizer, loss)

    def _step_alpha(self, train: Batch, val: Batch) -> Tensor:
        self._updates.begin()
        terms = self.config.alpha_loss if self.config.objective.loss == "retrieval" else None
        if self.config.order == 2:
            self._require_gradients(self.omega + self.alpha)
            loss, gradients = unrolled_gradients(
                lambda: self._loss(train, None),
                lambda: self._loss(val, terms),
                self.alpha,
                self.omega_optimizer,
                self.model.buffers(),
            )
        else:
            self._require_gradients(self.alpha)
            loss = self._loss(val, terms)
            gradients = average_gradients(torch.autograd.grad(loss, self.alpha, materialize_grads=True))
        self._set_gradients(self.alpha, gradients)
        return self._updates.take(self.alpha_optimizer, loss)

    def _loss(self, batch: Batch, terms: Literal["ce", "ret", "triplet"] | None) -> Tensor:
        images, labels = batch
        low_precision = self.config.precision == "bfloat16"
        with torch.autocast(images.device.type, torch.bfloat16, enabled=low_precision):
            output = self.model(images)
        if low_precision:
            output = ReIDOutput(*(part.float() for part in output))
        seen = joint_batch(output, labels, self.config.distributed)
        return objective(*seen, self.config.objective, terms).total

    def _require_gradients(self, wanted: list[nn.Parameter]) -> None:
        """What needs no gradient in a step computes none, and keeps nothing that it would need for it."""
        for parameter in (*self.omega, *self.alpha):
            parameter.requires_grad_(False)
        for parameter in wanted:
            parameter.requires_grad_(True)

    @staticmethod
    def _set_gradients(parameters: list[nn.Parameter], gradients: Sequence[Tensor | None]) -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None and gradient.stride() != parameter.stride():
                gradient = torch.empty_like(parameter).copy_(gradient)  # fused optimisers want one layout
            parameter.grad = gradient

    def genotype(self) -> Genotype:
        """What alpha says now (Sec. 3.1)."""
        return derive(self.supernet.alpha_normal, self.supernet.alpha_reduce, self.config.space)
