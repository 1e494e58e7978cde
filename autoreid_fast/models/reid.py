"""The network that is trained: a backbone and the embedding head (Sec. 3.2)."""

from typing import NamedTuple

from torch import Tensor, nn

from autoreid_fast.models.head import EmbeddingHead
from autoreid_fast.nas.backbone import Backbone


class ReIDOutput(NamedTuple):
    """What Sec. 3.2 names f, g and h."""

    feature: Tensor
    """f (N, feature_dim): the triplet loss and retrieval use it."""
    embedding: Tensor
    """g (N, embedding_dim)."""
    logits: Tensor
    """h (N, num_classes): the cross entropy uses it."""


class ReIDNetwork(nn.Module):
    """Images (N, 3, H, W) -> f, g and h, for ``num_classes`` training identities.

    The paper gives neither the size of g nor the dropout rate: 512 and 0.5 are usual since PCB [30].
    """

    def __init__(
        self, backbone: Backbone, num_classes: int, embedding_dim: int = 512, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = EmbeddingHead(backbone.feature_dim, num_classes, embedding_dim, dropout)

    def forward(self, images: Tensor) -> ReIDOutput:
        feature = self.backbone(images)
        embedding, logits = self.head(feature)
        return ReIDOutput(feature, embedding, logits)
