"""GDAS: a supernet of which one sampled network runs at a time (Dong and Yang, CVPR 2019, Sec. 3.2)."""

import torch
from torch import Tensor

from autoreid_fast.nas.cell import Sampled
from autoreid_fast.nas.genotype import search_space
from autoreid_fast.nas.supernet import Supernet


def sample_edges(alpha: Tensor, tau: float, operations: tuple[str, ...]) -> list[Sampled]:
    """Draw one candidate for every edge of alpha (E, |O|) by the hard Gumbel softmax.

    With Gumbel noise o, p = softmax((alpha + o) / tau) row by row and k the largest entry of a row, the edge
    gives 1 * op_k(x): forward its weight is exactly 1, backward it is p_k (straight through), so that every
    candidate of the edge has its gradient, d p_k / d alpha_j = p_k ((j = k) - p_j) / tau. The noise comes
    from torch's CPU generator on every device. One transfer tells the host which candidates to run.
    """
    noise = -torch.empty(alpha.shape, dtype=alpha.dtype).exponential_().log()
    noisy = alpha + noise.to(alpha.device)
    chosen = noisy.argmax(dim=1, keepdim=True)
    share = torch.softmax(noisy / tau, dim=1).gather(1, chosen).squeeze(1)
    weights = 1 + (share - share.detach())
    names = [operations[column] for column in chosen.squeeze(1).tolist()]
    return [Sampled(name, weight) for name, weight in zip(names, weights.unbind(), strict=True)]


class SampledSupernet(Supernet):
    """The supernet's parameters, run as GDAS does: every forward pass draws one candidate for each edge.

    All normal cells share one sample and all reduction cells another. ``none`` may be drawn: the edge adds
    zeros, and as nothing changes with the weight of zeros, its alpha has the gradient zero. ``tau`` is the
    temperature: large, and the gradient hardly knows what was drawn; small, and that candidate alone counts.
    """

    tau = 10.0

    def weights(self, alpha: Tensor) -> list[Sampled]:
        """A sample for each edge of alpha (14, |O|)."""
        return sample_edges(alpha, self.tau, search_space(self.space))
