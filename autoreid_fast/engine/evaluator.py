"""Evaluate networks: on a data set's query and gallery, and from a finished run."""

import logging

import torch

from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.dataset import Dataset
from autoreid_fast.engine.evaluate import evaluate
from autoreid_fast.engine.features import LabeledFeatures, extract_features
from autoreid_fast.engine.metrics import Evaluation
from autoreid_fast.engine.setup import decoded
from autoreid_fast.models.reid import ReIDNetwork

logger = logging.getLogger("autoreid_fast")


class Evaluator:
    """The query and gallery of a data set, decoded once, to evaluate networks on."""

    def __init__(self, dataset: Dataset, config: DataConfig, device: torch.device) -> None:
        self.device = device
        self.query = decoded(dataset, dataset.query, config)
        self.gallery = decoded(dataset, dataset.gallery, config)

    def features(self, model: ReIDNetwork) -> tuple[LabeledFeatures, LabeledFeatures]:
        """Features of the query and of the gallery."""
        query = extract_features(model, self.query, self.device)
        return query, extract_features(model, self.gallery, self.device)

    def __call__(self, model: ReIDNetwork) -> Evaluation:
        """Rank the gallery by ``model``'s features."""
        return rank_features(*self.features(model))


def rank_features(query: LabeledFeatures, gallery: LabeledFeatures) -> Evaluation:
    """Evaluate features; the camera rule applies where both sides know their cameras."""
    if query.cameras is None or gallery.cameras is None:
        return evaluate(query.features, gallery.features, query.pids, gallery.pids)
    return evaluate(
        query.features, gallery.features, query.pids, gallery.pids, query.cameras, gallery.cameras
    )
