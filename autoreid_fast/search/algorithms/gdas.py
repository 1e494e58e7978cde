"""GDAS (Dong and Yang, CVPR 2019): one sampled candidate per edge, by the hard Gumbel softmax."""

import torch
from pydantic import Field

from autoreid_fast.nas.supernet.sampled import SampledSupernet
from autoreid_fast.schema import Config
from autoreid_fast.search.algorithm import SearchAlgorithm
from autoreid_fast.search.config import SearchConfig, register_search_algorithm
from autoreid_fast.training.schedule import linear


class GumbelConfig(Config):
    """Temperature of the Gumbel softmax, linear in the epoch."""

    tau: float = Field(10.0, gt=0, description="Temperature of the first epoch (GDAS: 10).")
    final_tau: float = Field(0.1, gt=0, description="Temperature of the last epoch (GDAS: 0.1).")


class GdasConfig(SearchConfig):
    """Search for a person re-identification architecture by GDAS (Algorithm 1)."""

    gumbel: GumbelConfig = Field(default_factory=GumbelConfig, description="Sampling.")


@register_search_algorithm("gdas")
class Gdas(SearchAlgorithm):
    """One sampled candidate per edge (GDAS in Table 4); omega first, then alpha, each with a new sample."""

    supernet: SampledSupernet

    def __init__(self, config: GdasConfig, identities: int, device: torch.device) -> None:
        super().__init__(config, identities, device)
        self._gumbel = config.gumbel

    @classmethod
    def build_supernet(cls, config: SearchConfig) -> SampledSupernet:
        return SampledSupernet(config.channels, config.cells_per_block, config.space)

    def set_epoch(self, epoch: int) -> None:
        """Set both learning rates and the temperature for ``epoch`` (from 0)."""
        super().set_epoch(epoch)
        gumbel = self._gumbel
        self.supernet.tau = linear(epoch, self.config.epochs, gumbel.tau, gumbel.final_tau)
