"""Network to train: a backbone and its head (``tail`` in the configs)."""

from typing import Literal, cast

from torch import Tensor, nn

from autoreid_fast.models.heads.embedding import EmbeddingHead, ReIDOutput
from autoreid_fast.models.heads.strips import StripHead
from autoreid_fast.nas.backbone import Backbone

Tail = Literal["embedding", "pcb", "hpm"]


class ReIDNetwork(nn.Module):
    """Images (N, 3, H, W) -> f, g and h (`ReIDOutput`).

    The paper gives neither the size of g nor the dropout rate: 512 and 0.5 are usual since PCB [30].

    Args:
        backbone: Extracts the feature map.
        num_classes: Training identities.
        embedding_dim: Size of g; ``pcb`` and ``hpm`` have 256 per strip.
        dropout: Dropout rate.
        tail: ``"embedding"``, the head of Sec. 3.2, or ``"pcb"`` or ``"hpm"``, strips (`StripHead`).

    Examples:
        >>> import torch
        >>> from autoreid_fast.models import ReIDNetwork, create_model
        >>> network = ReIDNetwork(create_model("resnet18", channels=8), num_classes=751)
        >>> output = network(torch.randn(4, 3, 128, 64))
        >>> output.feature.shape, output.embedding.shape, output.logits.shape
        (torch.Size([4, 64]), torch.Size([4, 512]), torch.Size([4, 751]))
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
        """Return what retrieval ranks by, (N, D), not normalised: f, or g for ``pcb`` and ``hpm``."""
        return self.head.descriptor(self.backbone.feature_map(images))
