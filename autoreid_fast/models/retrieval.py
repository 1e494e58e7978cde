"""Trained network in use: images in, features for ranking a gallery out."""

import torch
from torch import Tensor, nn

from autoreid_fast.models.reid import ReIDNetwork


class RetrievalNetwork(nn.Module):
    """Normalised images (N, 3, H, W) -> L2-normalised features (N, D) float32, by a trained ``network``."""

    def __init__(self, network: ReIDNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return torch.nn.functional.normalize(self.network.descriptor(images).float())
