"""Extract the features of cached images with a network."""

import numpy as np
import torch

from autoreid_fast.data.batches import EvalBatches
from autoreid_fast.data.cache import ImageCache
from autoreid_fast.distributed.collectives import gather_from_processes
from autoreid_fast.distributed.processes import current_shard
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.evaluation.features import LabeledFeatures
from autoreid_fast.models.reid import ReIDNetwork
from autoreid_fast.models.retrieval import RetrievalNetwork
from autoreid_fast.progress import progress_bar


@torch.no_grad()
def extract_features(
    model: ReIDNetwork, cache: ImageCache, device: torch.device, batch_size: int = 64
) -> LabeledFeatures:
    """Extract L2-normalised features (f; g with a strip tail) of every cached image, in eval mode.

    Several processes share the batches, and each gets the features of all images.

    Raises:
        AutoReIDError: a feature is NaN or infinite.
    """
    was_training = model.training
    network = RetrievalNetwork(model).eval()
    batches = EvalBatches(cache, batch_size, device, current_shard())
    features: list[torch.Tensor] = []
    with progress_bar("extracting features") as show_done:
        for images in batches:
            features.append(network(images).cpu())
            show_done(len(features), len(batches))
    model.train(was_training)
    all_batches = [batch for process in gather_from_processes(features) for batch in process]
    joined = torch.cat(all_batches)
    _require_finite(joined, cache)
    return LabeledFeatures(
        features=joined.numpy(),
        pids=np.array([record.pid for record in cache.records], dtype=np.int64),
        cameras=np.array([record.camera for record in cache.records], dtype=np.int64),
        paths=[record.path for record in cache.records],
    )


def _require_finite(features: torch.Tensor, cache: ImageCache) -> None:
    finite = features.isfinite().all(dim=1)
    if not finite.all():
        path = cache.records[int((~finite).nonzero()[0])].path
        raise AutoReIDError(
            f"{path}: the network's feature of this image is NaN or infinite, as weights of a training that "
            "diverged give; use an earlier checkpoint, or other pre-trained weights"
        )
