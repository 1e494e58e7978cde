"""DARTS (Liu et al., ICLR 2019): all candidates at once, weighted by softmax(alpha); the paper's search."""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from autoreid_fast.nas.supernet.source_supernet import SourceSupernet
from autoreid_fast.nas.supernet.supernet import Supernet
from autoreid_fast.search.algorithm import Batch, SearchAlgorithm
from autoreid_fast.search.algorithms.second_order import unrolled_gradients
from autoreid_fast.search.config import SearchConfig, register_search_algorithm


class DartsConfig(SearchConfig):
    """Search for a person re-identification architecture by DARTS (Algorithm 1)."""

    order: Literal[1, 2] = Field(
        1,
        description="1: alpha's gradient at the present omega; 2: at omega after one more step, and through "
        "that step, for 2.5 times the work (paper: first order, since it refers to DARTS).",
    )

    @property
    def capturable(self) -> bool:
        # the second order resets the random state between its passes; a skipped step reads its loss
        return self.order == 1 and self.nonfinite == "stop"


@register_search_algorithm("darts")
class Darts(SearchAlgorithm):
    """All candidates at once, weighted by softmax(alpha), as in the paper; of first or second order."""

    def __init__(self, config: DartsConfig, identities: int, device: torch.device) -> None:
        super().__init__(config, identities, device)
        self.order = config.order

    @classmethod
    def build_supernet(cls, config: SearchConfig) -> Supernet:
        supernet = SourceSupernet if config.supernet == "source" else Supernet
        return supernet(config.channels, config.cells_per_block, config.space)

    def alpha_gradients(self, train: Batch, val: Batch) -> tuple[Tensor, Sequence[Tensor]]:
        if self.order == 1:
            return super().alpha_gradients(train, val)
        self.require_gradients(self.omega + self.alpha)
        return unrolled_gradients(
            lambda: self.loss_of_omega(train),
            lambda: self.loss_of_alpha(val),
            self.alpha,
            self.omega_optimizer,
            self.model.buffers(),
        )
