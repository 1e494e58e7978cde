"""One turn of Algorithm 1: a supernet with its head, both optimisers, and the pair of steps they take."""

from typing import Literal

import torch
from torch import nn

from autoreid_fast.engine.schedule import cosine, set_learning_rate, step_decay
from autoreid_fast.engine.search_config import SearchConfig
from autoreid_fast.engine.setup import place
from autoreid_fast.losses import objective
from autoreid_fast.models.reid import ReIDNetwork
from autoreid_fast.nas.derive import derive
from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.nas.supernet import Supernet


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
            self.alpha, self.alpha_optimizer, val, self.config.alpha_loss if retrieval else None
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
