"""Evaluate networks on a data set, and features that are already there."""

from pathlib import Path

import torch

from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.dataset import Dataset
from autoreid_fast.data.decode import decoded
from autoreid_fast.distributed.group import main_first, on_main
from autoreid_fast.evaluation.evaluate import RerankConfig, evaluate
from autoreid_fast.evaluation.features import LabeledFeatures, extract_features, load_features, save_features
from autoreid_fast.evaluation.metrics import Evaluation
from autoreid_fast.evaluation.retrieval import add_pictures, retrieval_record
from autoreid_fast.files import write_json
from autoreid_fast.models.reid import ReIDNetwork
from autoreid_fast.ops.rank_gallery.reference import Metric
from autoreid_fast.progress import progress_bar


class Evaluator:
    """The query and gallery of a data set, decoded once, to evaluate networks on."""

    def __init__(self, dataset: Dataset, config: DataConfig, device: torch.device) -> None:
        self.name = dataset.name
        self.device = device
        self.query = main_first(lambda: decoded(dataset, dataset.query, config))
        self.gallery = main_first(lambda: decoded(dataset, dataset.gallery, config))

    def features(
        self, model: ReIDNetwork, folder: Path | None = None
    ) -> tuple[LabeledFeatures, LabeledFeatures]:
        """Features of the query and of the gallery, left in ``folder`` where it is given."""
        query = extract_features(model, self.query, self.device)
        gallery = extract_features(model, self.gallery, self.device)
        if folder is not None:
            on_main(lambda: save_features(folder, "query", query))
            on_main(lambda: save_features(folder, "gallery", gallery))
        return query, gallery

    def __call__(
        self,
        model: ReIDNetwork,
        folder: Path | None = None,
        retrieval: Path | None = None,
        rerank: RerankConfig | None = None,
    ) -> Evaluation:
        """Rank the gallery by ``model``'s features.

        The features are left in the folder ``folder``, and what people look at, the ranked lists with their
        pictures, in the file ``retrieval``, where these are given; re-ranked lists are not drawn.
        """
        query, gallery = self.features(model, folder)
        evaluation = rank_features(query, gallery, rerank=rerank, device=self.device)

        def leave_record(path: Path) -> None:
            record = retrieval_record(query, gallery, evaluation, lists=rerank is None)
            if record["lists"]:
                add_pictures(record, self.query, self.gallery, model, self.device)
            write_json(path, record)

        if retrieval is not None:
            on_main(lambda: leave_record(retrieval))
        return evaluation


def rank_features(
    query: LabeledFeatures,
    gallery: LabeledFeatures,
    metric: Metric = "euclidean",
    rerank: RerankConfig | None = None,
    device: torch.device | None = None,
) -> Evaluation:
    """Evaluate features with a bar, on the CPU unless told; cameras count where both sides know them."""
    cameras = (query.cameras, gallery.cameras)
    if query.cameras is None or gallery.cameras is None:
        cameras = (None, None)
    with progress_bar("re-ranking" if rerank else "ranking") as show_done:
        return evaluate(
            query.features,
            gallery.features,
            query.pids,
            gallery.pids,
            *cameras,
            metric=metric,
            rerank=rerank,
            device=device,
            show_done=show_done,
        )


def rank_folder(
    folder: Path,
    metric: Metric = "euclidean",
    rerank: RerankConfig | None = None,
    device: torch.device | None = None,
) -> Evaluation:
    """Evaluate the features of a folder (``load_features`` says which files).

    Raises:
        AutoReIDError: files or figures that cannot be used.
    """
    query, gallery = load_features(folder, "query"), load_features(folder, "gallery")
    return rank_features(query, gallery, metric, rerank, device)
