"""The network that is trained: a backbone and its tail."""

from typing import Literal, cast

from torch import Tensor, nn

from autoreid_fast.models.head import EmbeddingHead, ReIDOutput
from autoreid_fast.models.strips import StripHead
from autoreid_fast.nas.backbone import Backbone

Tail = Literal["embedding", "pcb", "hpm"]


class ReIDNetwork(nn.Module):
    """Images (N, 3, H, W) -> f, g and h, for ``num_classes`` training identities.

    ``tail``: the embedding head of Sec. 3.2, or PCB or HPM on any backbone (`StripHead`), whose strips have
    a size of their own. The paper gives neither the size of g nor the dropout rate: 512 and 0.5 are usual
    since PCB [30].
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        embedding_dim: int = 512,
        dropout: float = 0.5,
        tail: Tail = "embedding",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head: EmbeddingHead | StripHead
        match tail:
            case "embedding":
                self.head = EmbeddingHead(backbone.feature_dim, num_classes, embedding_dim, dropout)
            case "pcb":
                self.head = StripHead(backbone.feature_dim, num_classes, (6,), False, dropout)
            case "hpm":
                self.head = StripHead(backbone.feature_dim, num_classes, (1, 2, 4, 8), True, dropout)

    def forward(self, images: Tensor) -> ReIDOutput:
        return cast(ReIDOutput, self.head(self.backbone.feature_map(images)))

    def descriptor(self, images: Tensor) -> Tensor:
        """(N, D): what retrieval ranks by, not yet normalised; f, or g where the tail looks at strips."""
        return self.head.descriptor(self.backbone.feature_map(images))
