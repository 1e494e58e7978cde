"""bfloat16: the network under autocast; alpha, statistics, losses and optimisers in float32."""

import pytest
import torch
from torch import Tensor, nn

from autoreid_fast.search.algorithm import SearchAlgorithm, build_algorithm
from autoreid_fast.search.config import SearchConfig

SMALL = {"channels": 4, "cells_per_block": (1, 1, 1, 1), "embedding_dim": 8, "dropout": 0.0}


SUPERNETS = pytest.mark.parametrize("supernet", ["source", "reference"])


def searcher(supernet: str, precision: str) -> SearchAlgorithm:
    torch.manual_seed(7)
    changes = {"precision": precision, "supernet": supernet}
    return build_algorithm(SearchConfig.model_validate(SMALL | changes), 3, torch.device("cpu"))


def batch() -> tuple[Tensor, Tensor]:
    images = torch.randn(12, 3, 128, 32, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(3).repeat_interleave(4)
    return images + 2 * torch.randn(3, 3, 1, 1, generator=torch.Generator().manual_seed(2))[labels], labels


def gradients(search: SearchAlgorithm) -> tuple[Tensor, list[Tensor]]:
    loss = search.loss_of_omega(batch())
    return loss.detach(), list(torch.autograd.grad(loss, [*search.alpha, *search.omega]))


@SUPERNETS
def test_loss_and_gradients_are_close_to_those_in_float32(supernet: str) -> None:
    (low_loss, low), (full_loss, full) = (
        gradients(searcher(supernet, name)) for name in ("bfloat16", "float32")
    )
    assert low_loss.dtype == torch.float32
    assert torch.isfinite(low_loss)
    assert low_loss != full_loss, "autocast did nothing"
    torch.testing.assert_close(low_loss, full_loss, rtol=0.05, atol=0.02)
    assert all(gradient.dtype == torch.float32 for gradient in low)
    for name, one, other in (
        ("alpha", low[:2], full[:2]),
        ("omega", low[2:], full[2:]),
    ):
        flat = [torch.cat([gradient.flatten() for gradient in part]) for part in (one, other)]
        assert torch.cosine_similarity(*flat, dim=0) > 0.95, name


@SUPERNETS
def test_a_step_leaves_everything_in_float32(supernet: str) -> None:
    search = searcher(supernet, "bfloat16")
    dtypes: list[torch.dtype] = []
    weights = search.supernet.weights

    def spy(alpha: Tensor) -> Tensor:
        softmax = weights(alpha)
        assert isinstance(softmax, Tensor)
        dtypes.append(softmax.dtype)
        return softmax

    search.supernet.weights = spy  # type: ignore[method-assign]
    narrow: set[type] = set()
    for module in search.model.modules():
        module.register_forward_hook(
            lambda module, _, out: (
                narrow.add(type(module)) if isinstance(out, Tensor) and out.dtype == torch.bfloat16 else None
            )
        )
    losses = search.step(batch(), batch())
    assert nn.Conv2d in narrow
    assert set(dtypes) == {torch.float32}
    tensors = [*search.model.state_dict().values(), *losses]
    for optimizer in (search.omega_optimizer, search.alpha_optimizer):
        tensors += [tensor for state in optimizer.state.values() for tensor in state.values()]
    assert {tensor.dtype for tensor in tensors} <= {torch.float32, torch.int64}
    assert all(torch.isfinite(tensor).all() for tensor in tensors)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="precision"):
        SearchConfig.model_validate({"precision": "float16"})
