"""Every search algorithm finds the best candidate of a toy, which is known by construction.

The identities have the same four colored bands in different order on black, so far apart that no 3x3 window
of any candidate covers two of them, or one and the border. Averaged over all pixels, an operation that treats
all positions alike gives the same feature for all identities. Only part_aware, whose strips have projections
of their own, can tell them apart.
"""

from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autoreid_fast.nas.backbone import Backbone
from autoreid_fast.nas.space import EDGES, search_space
from autoreid_fast.nas.supernet.edge_cell import MixedOp
from autoreid_fast.nas.supernet.sampled import sample_edges
from autoreid_fast.search.algorithm import Batch, build_algorithm
from autoreid_fast.search.algorithms.darts import Darts
from autoreid_fast.search.algorithms.gdas import Gdas
from autoreid_fast.search.config import SearchConfig

REID = search_space("reid")
CHANNELS, IDENTITIES, IMAGES = 6, 4, 4
NOISE = 0.3
BAND_COLOURS = torch.randn(4, CHANNELS, generator=torch.Generator().manual_seed(9))
ORDERS = list(permutations(range(4)))[:: 24 // IDENTITIES]


class Toy(Backbone):
    """One edge on the image: f is the average of its output, plus noise that it must exceed."""

    def __init__(self, *_: Any) -> None:
        super().__init__()
        self.feature_dim = CHANNELS
        self.alpha_normal = nn.Parameter(1e-3 * torch.randn(EDGES, len(REID)))
        self.alpha_reduce = nn.Parameter(1e-3 * torch.randn(EDGES, len(REID)))
        self.edge = MixedOp(REID, CHANNELS, stride=1)

    def architecture_parameters(self) -> list[nn.Parameter]:
        return [self.alpha_normal, self.alpha_reduce]

    def weights(self, alpha: Tensor) -> Any:
        return torch.softmax(alpha, dim=1)

    def feature_map(self, images: Tensor) -> Tensor:
        of_edge = self.edge(images, next(iter(self.weights(self.alpha_normal))))
        return of_edge + NOISE * torch.randn(*of_edge.shape[:2], 1, 1)


class SampledToy(Toy):
    tau = 10.0

    def weights(self, alpha: Tensor) -> Any:
        return sample_edges(alpha, self.tau, REID)


def people() -> Batch:
    """Images (16, 6, 48, 3) and labels: each strip of 12 rows has its band in rows 4 to 7."""
    labels = torch.arange(IDENTITIES).repeat_interleave(IMAGES)
    images = torch.zeros(len(labels), CHANNELS, 48, 3)
    for image, label in zip(images, labels.tolist(), strict=True):
        gain = 1 + 0.3 * torch.randn(CHANNELS, 1, 1)
        for strip, colour in enumerate(ORDERS[label]):
            image[:, 12 * strip + 4 : 12 * strip + 8] = BAND_COLOURS[colour][:, None, None] * gain
    return images, labels


@pytest.mark.parametrize("operation", REID[1:])
def test_only_part_aware_tells_the_identities_apart(operation: str) -> None:
    edge = MixedOp(REID, CHANNELS, stride=1).double()
    torch.manual_seed(0)
    images, labels = people()
    one_gain = torch.stack([images[labels == 0][0].double()] * IDENTITIES)
    for image, order in zip(one_gain, ORDERS, strict=True):
        bands = [one_gain[0, :, 12 * strip + 4 : 12 * strip + 8].clone() for strip in range(4)]
        first = {colour: bands[strip] for strip, colour in enumerate(ORDERS[0])}
        for strip, colour in enumerate(order):
            image[:, 12 * strip + 4 : 12 * strip + 8] = first[colour]
    features = edge.operations[operation](one_gain).mean(dim=(2, 3))
    spread = (features - features[0]).abs().max()
    assert spread > 1e-3 if operation == "part_aware" else spread < 1e-12


@pytest.mark.parametrize("loss", ["retrieval", "ce"])
@pytest.mark.parametrize(
    ("how", "steps"),
    [({}, 5), ({"order": 2}, 5), ({"algorithm": "gdas"}, 20)],
    ids=["darts", "second order", "gdas"],
)
def test_the_search_finds_part_aware(
    how: dict[str, Any], steps: int, loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Darts, "build_supernet", Toy)
    monkeypatch.setattr(Gdas, "build_supernet", SampledToy)
    settings = {
        "epochs": 10,
        "dropout": 0.0,
        "embedding_dim": 8,
        "objective": {"loss": loss},
        "omega": {"learning_rate": 0.05},
        "alpha": {"learning_rate": 0.1},
    }
    torch.manual_seed(2)
    search = build_algorithm(SearchConfig.model_validate(settings | how), IDENTITIES, torch.device("cpu"))
    for epoch in range(search.config.epochs):
        search.set_epoch(epoch)
        for _ in range(steps):
            search.step(people(), people())
    weights = torch.softmax(search.supernet.alpha_normal[0], dim=0)
    assert weights[REID.index("part_aware")] > 0.6
