"""The embedding head of Sec. 3.2: from the feature f to the embedding g and the logits h."""

from torch import Tensor, nn


class EmbeddingHead(nn.Module):
    """f (N, ``feature_dim``) -> g (N, ``embedding_dim``), h (N, ``num_classes``).

    One dropout before each of the two linear layers (Sec. 3.2); the embedding is followed by a batch norm,
    as in [30], which makes a bias of its own idle.
    """

    def __init__(self, feature_dim: int, num_classes: int, embedding_dim: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.embedding = nn.Sequential(
            nn.Linear(feature_dim, embedding_dim, bias=False), nn.BatchNorm1d(embedding_dim)
        )
        self.classifier = nn.Linear(embedding_dim, num_classes)

    def forward(self, f: Tensor) -> tuple[Tensor, Tensor]:
        g = self.embedding(self.dropout(f))
        return g, self.classifier(self.dropout(g))
