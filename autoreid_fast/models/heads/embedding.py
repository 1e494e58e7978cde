"""Embedding head of Sec. 3.2: from the feature f to the embedding g and the logits h."""

from typing import NamedTuple

from torch import Tensor, nn


class ReIDOutput(NamedTuple):
    """Outputs f, g and h of Sec. 3.2."""

    feature: Tensor
    """f (N, feature_dim): mean of the feature map, for the triplet loss."""
    embedding: Tensor
    """g (N, embedding_dim)."""
    logits: Tensor
    """h (N, num_classes), or (N, num_classes, strips) where each strip has its own classifier."""


class EmbeddingHead(nn.Module):
    """Feature map (N, ``feature_dim``, H', W') -> f, g (N, ``embedding_dim``) and h (N, ``num_classes``).

    One dropout before each of the two linear layers (Sec. 3.2). The embedding is followed by a batch norm, as
    in [30], so it needs no bias. Retrieval ranks by f.
    """

    def __init__(self, feature_dim: int, num_classes: int, embedding_dim: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.embedding = nn.Sequential(
            nn.Linear(feature_dim, embedding_dim, bias=False), nn.BatchNorm1d(embedding_dim)
        )
        self.classifier = nn.Linear(embedding_dim, num_classes)

    def descriptor(self, feature_map: Tensor) -> Tensor:
        """Return f, by which retrieval ranks."""
        return feature_map.mean(dim=(2, 3))

    def forward(self, feature_map: Tensor) -> ReIDOutput:
        f = self.descriptor(feature_map)
        g = self.embedding(self.dropout(f))
        return ReIDOutput(f, g, self.classifier(self.dropout(g)))
