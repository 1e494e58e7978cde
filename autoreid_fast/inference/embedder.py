"""A trained network that embeds images: images of any kind in, features out."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from autoreid_fast.data.batches import normalized
from autoreid_fast.data.images import resized
from autoreid_fast.devices import place
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import atomic_path
from autoreid_fast.inference.formats import CARD
from autoreid_fast.inference.model_card import ModelCard
from autoreid_fast.inference.pictures import Picture, as_sequence, read_all
from autoreid_fast.models.reid import ReIDNetwork
from autoreid_fast.models.retrieval import RetrievalNetwork


class Embedder:
    """A trained network, ready to embed images; `autoreid_fast.load` makes one.

    Attributes:
        network: the module: normalised images in, features of length 1 out.
        card: the model card: training data, input and output of the network.
        device: the device that it runs on.

    Examples:
        >>> import autoreid_fast
        >>> model = autoreid_fast.load("runs/train")  # doctest: +SKIP
        >>> features = model.embed(["person_1.jpg", "person_2.jpg"])  # doctest: +SKIP
        >>> distance = (features[0] - features[1]).norm()  # doctest: +SKIP
    """

    def __init__(self, model: ReIDNetwork, card: ModelCard, device: torch.device) -> None:
        place(model.float(), device)  # torch's default dtype may be another
        self.network = RetrievalNetwork(model).eval()
        self.card = card
        self.device = device

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Compute features (N, D) of normalised images (N, 3, height, width) in one batch; on the CPU."""
        features: Tensor = self.network(images.to(self.device)).cpu()
        return features

    def embed(self, images: Picture | Sequence[Picture] | Tensor, batch_size: int = 64) -> Tensor:
        """Compute the features of images.

        Args:
            images: one or more files, PIL images or uint8 arrays (H, W, 3), of any size; a uint8 array
                (N, H, W, 3); or a float tensor (N, 3, height, width) that is already normalised with the
                mean and deviation of ``card.input``, as `preprocess` returns it.
            batch_size: images per batch.

        Returns:
            (N, D) float32 of length 1, on the CPU.

        Raises:
            AutoReIDError: not an image, or one that cannot be read; the message names it.
        """
        if batch_size < 1:
            raise AutoReIDError(f"embed: `batch_size` is {batch_size}; expected at least 1")
        if isinstance(images, Tensor):
            parts = [self.features(part) for part in self._checked(images).split(batch_size)]
        else:
            pictures = as_sequence(images)
            starts = range(0, len(pictures), batch_size)
            parts = [self.features(self._pixels(pictures[i : i + batch_size], i)) for i in starts]
        return torch.cat(parts) if parts else torch.empty(0, self.card.output.dimensions, dtype=torch.float32)

    def preprocess(self, images: Picture | Sequence[Picture]) -> Tensor:
        """Resize and normalise images to the network's input, which is also that of an exported file.

        Returns:
            (N, 3, height, width) float32 on ``device``.
        """
        return self._pixels(as_sequence(images), 0)

    def _pixels(self, pictures: Sequence[Picture], first: int) -> Tensor:
        """Preprocess a batch, whose first image is number ``first`` of those that the user gave."""
        height, width = self.card.input.height, self.card.input.width
        if not pictures:
            return torch.empty(0, 3, height, width, device=self.device, dtype=torch.float32)
        pixels = [resized(image, height, width) for image in read_all(pictures, first)]
        return normalized(torch.from_numpy(np.stack(pixels)).to(self.device))

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of the weights and the input size: tells which cached features are stale."""
        digest = hashlib.sha256(f"{self.card.input.height} {self.card.input.width}".encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write weights and model card as one safetensors file, which `autoreid_fast.load` reads."""
        state = {
            name: tensor.cpu().contiguous() for name, tensor in self.network.network.state_dict().items()
        }
        with atomic_path(path) as temporary:
            temporary.write_bytes(save(state, {CARD: self.card.model_dump_json()}))

    def _checked(self, images: Tensor) -> Tensor:
        size = (3, self.card.input.height, self.card.input.width)
        if images.ndim != 4 or images.shape[1:] != size or not images.is_floating_point():
            raise AutoReIDError(
                f"embed: a tensor is {tuple(images.shape)} {images.dtype}; expected normalised images "
                f"(N, {', '.join(map(str, size))}) float32. Pixels go in as uint8 arrays (N, H, W, 3)"
            )
        return images.float()
