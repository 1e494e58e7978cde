"""GDAS: a supernet of which one sampled network runs at a time (Dong and Yang, CVPR 2019, Sec. 3.2)."""

import torch
from torch import Tensor

from autoreid_fast.nas.space import search_space
from autoreid_fast.nas.supernet.edge_cell import Sampled
from autoreid_fast.nas.supernet.supernet import Supernet

SMALLEST_TAU = 1e-30
"""Smaller temperatures count as this one, which gives their limit; a division by them would overflow."""


def sample_edges(alpha: Tensor, tau: float, operations: tuple[str, ...]) -> list[Sampled]:
    """Draw one candidate per edge of alpha (E, |O|) by the hard Gumbel softmax.

    With Gumbel noise o, p = softmax((alpha + o) / tau) along each row and k the row's largest entry, the edge
    computes 1 * op_k(x). In the forward pass its weight is exactly 1, in the backward pass p_k (straight
    through), so every candidate of the edge has a gradient, d p_k / d alpha_j = p_k ((j = k) - p_j) / tau.

    The noise comes from torch's CPU generator on every device. The host needs one transfer to know which
    candidates to run.
    """
    noise = -torch.empty(alpha.shape, dtype=alpha.dtype).exponential_().log()
    noisy = alpha + noise.to(alpha.device)
    chosen = noisy.argmax(dim=1, keepdim=True)
    probability = torch.softmax(noisy / max(tau, SMALLEST_TAU), dim=1).gather(1, chosen).squeeze(1)
    weights = 1 + (probability - probability.detach())
    names = [operations[column] for column in chosen.squeeze(1).tolist()]
    return [Sampled(name, weight) for name, weight in zip(names, weights.unbind(), strict=True)]


class SampledSupernet(Supernet):
    """`Supernet` for GDAS: every forward pass draws one candidate per edge and runs only these.

    All normal cells share one sample and all reduction cells another. ``none`` may be drawn: the edge then
    adds zeros, whose weight has no effect, so the gradient of its alpha is zero.
    """

    tau = 10.0
    """Temperature: a large one gives all candidates similar gradients, a small one mostly the drawn one."""

    def weights(self, alpha: Tensor) -> list[Sampled]:
        """Return one sample per edge of alpha (14, |O|)."""
        return sample_edges(alpha, self.tau, search_space(self.space))
