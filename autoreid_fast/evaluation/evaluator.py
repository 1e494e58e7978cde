"""Evaluate networks on a data set, or features that are already on disk."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.dataset import Dataset
from autoreid_fast.data.load import decoded
from autoreid_fast.distributed.group import main_first, on_main
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.evaluation.evaluate import evaluate
from autoreid_fast.evaluation.extraction import extract_features
from autoreid_fast.evaluation.features import LabeledFeatures, load_features, save_features
from autoreid_fast.evaluation.metrics import Evaluation
from autoreid_fast.evaluation.protocol import Metric
from autoreid_fast.evaluation.reranking import RerankConfig
from autoreid_fast.evaluation.retrieval import add_pictures, retrieval_record
from autoreid_fast.files import write_json
from autoreid_fast.models.reid import ReIDNetwork
from autoreid_fast.progress import progress_bar


class Evaluator:
    """Query and gallery of a data set, decoded once, to evaluate networks on."""

    def __init__(self, dataset: Dataset, config: DataConfig, device: torch.device) -> None:
        self.name = dataset.name
        self._pid_names, self._camera_names = dataset.pid_names, dataset.camera_names
        self.device = device
        self.query = main_first(lambda: decoded(dataset, dataset.query, config))
        self.gallery = main_first(lambda: decoded(dataset, dataset.gallery, config))

    def features(
        self, model: ReIDNetwork, folder: Path | None = None
    ) -> tuple[LabeledFeatures, LabeledFeatures]:
        """Extract the features of query and gallery; save them in ``folder`` if it is given."""
        query = extract_features(model, self.query, self.device)
        gallery = extract_features(model, self.gallery, self.device)
        if folder is not None:
            on_main(lambda: save_features(folder, "query", self._named(query)))
            on_main(lambda: save_features(folder, "gallery", self._named(gallery)))
        return query, gallery

    def _named(self, labeled: LabeledFeatures) -> LabeledFeatures:
        """Add the names of people and cameras that the data set numbers."""
        return labeled._replace(
            pid_names=_names(labeled.pids, self._pid_names),
            camera_names=None if labeled.cameras is None else _names(labeled.cameras, self._camera_names),
        )

    def __call__(
        self,
        model: ReIDNetwork,
        folder: Path | None = None,
        retrieval: Path | None = None,
        rerank: RerankConfig | None = None,
    ) -> Evaluation:
        """Rank the gallery by the features of ``model``.

        Args:
            model: the network.
            folder: where to save the features.
            retrieval: file for the record that reports read; it has no ranked lists if ``rerank`` is given.
            rerank: re-rank by k-reciprocal neighbours.
        """
        query, gallery = self.features(model, folder)
        evaluation = evaluate_features(query, gallery, rerank=rerank, device=self.device)

        def write_record(path: Path) -> None:
            record = retrieval_record(query, gallery, evaluation, lists=rerank is None)
            add_pictures(record, self.query, self.gallery, model, self.device)
            write_json(path, record.to_dict())

        if retrieval is not None:
            on_main(lambda: write_record(retrieval))
        return evaluation


def _names(numbers: np.ndarray, names: Mapping[int, str]) -> list[str] | None:
    return [names.get(number, str(number)) for number in numbers.tolist()] if names else None


def evaluate_features(
    query: LabeledFeatures,
    gallery: LabeledFeatures,
    metric: Metric = "euclidean",
    rerank: RerankConfig | None = None,
    device: torch.device | None = None,
) -> Evaluation:
    """Evaluate features with a progress bar, on the CPU by default.

    Raises:
        AutoReIDError: only one side has cameras, or a value cannot be used.
    """
    with progress_bar("re-ranking" if rerank else "ranking") as show_done:
        return evaluate(
            query.features,
            gallery.features,
            query.pids,
            gallery.pids,
            query.cameras,
            gallery.cameras,
            metric=metric,
            rerank=rerank,
            device=device,
            show_done=show_done,
        )


def evaluate_folder(
    folder: Path,
    metric: Metric = "euclidean",
    rerank: RerankConfig | None = None,
    device: torch.device | None = None,
) -> Evaluation:
    """Evaluate the features in a folder (`load_features` describes its files).

    Raises:
        AutoReIDError: a file or a value in it cannot be used.
    """
    query, gallery = load_features(folder, "query"), load_features(folder, "gallery")
    if (query.cameras is None) != (gallery.cameras is None):
        lacking, other = ("query", "gallery") if query.cameras is None else ("gallery", "query")
        raise AutoReIDError(
            f"{folder}/{lacking}.csv has no column camera, and {other}.csv has one: give both, or neither to "
            "count every image of a query's person"
        )
    return evaluate_features(query, gallery, metric, rerank, device)
