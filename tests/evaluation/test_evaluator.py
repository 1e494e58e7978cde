"""`Evaluator` against its steps one by one: read images, extract features, rank, record."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from autoreid_fast.data.batches import normalized
from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.dataset import Dataset, ImageRecord
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.evaluation.evaluate import evaluate
from autoreid_fast.evaluation.evaluator import Evaluator, evaluate_features, evaluate_folder
from autoreid_fast.evaluation.features import LabeledFeatures, load_features, save_features
from autoreid_fast.evaluation.metrics import Evaluation
from autoreid_fast.evaluation.reranking import RerankConfig
from autoreid_fast.models.reid import ReIDNetwork
from autoreid_fast.nas.backbone import Backbone

CPU = torch.device("cpu")
RERANK = RerankConfig(k1=4, k2=2)


class Colours(Backbone):
    """Averages 8x8 pixels and mixes their colours, with dropout in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_dim = 6
        self.mix = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 1), torch.nn.Dropout(0.5))

    def feature_map(self, images: Tensor) -> Tensor:
        return self.mix(torch.nn.functional.avg_pool2d(images, 8))


class Overflowing(Colours):
    """Its features of some images are infinite: of the fourth and the sixth that it sees."""

    seen = 0

    def feature_map(self, images: Tensor) -> Tensor:
        numbers = torch.arange(self.seen, self.seen + len(images))
        self.seen += len(images)
        overflows = torch.where((numbers == 3) | (numbers == 5), torch.inf, 0.0)
        return super().feature_map(images) + overflows.view(-1, 1, 1, 1)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Random images of 5 identities by 3 cameras, 7 queries and a gallery of 70: more than one batch."""
    random = np.random.default_rng(0)

    def write(split: str, count: int) -> tuple[ImageRecord, ...]:
        records = []
        for number in range(count):
            record = ImageRecord(f"{split}{number}.png", number % 5 + 1, number % 3)
            Image.fromarray(random.integers(0, 256, (16, 8, 3), dtype=np.uint8)).save(tmp_path / record.path)
            records.append(record)
        return tuple(records)

    query, gallery = write("query", 7), write("gallery", 70)
    return Dataset("noise", tmp_path, (), query, gallery, lambda record: Image.open(tmp_path / record.path))


@pytest.fixture
def evaluator(dataset: Dataset, tmp_path: Path) -> Evaluator:
    config = DataConfig(root=dataset.root, height=16, width=8, cache_dir=tmp_path / "cache")
    return Evaluator(dataset, config, CPU)


@pytest.fixture
def model() -> ReIDNetwork:
    return ReIDNetwork(Colours(), num_classes=2, embedding_dim=4).train()


def extracted(dataset: Dataset, records: tuple[ImageRecord, ...], model: ReIDNetwork) -> LabeledFeatures:
    pixels = np.stack([np.asarray(dataset.read_image(record)) for record in records])
    was_training = model.training
    with torch.no_grad():
        descriptors = model.eval().descriptor(normalized(torch.from_numpy(pixels)))
    model.train(was_training)
    features = torch.nn.functional.normalize(descriptors).numpy()
    pids, cameras = (np.array([getattr(record, name) for record in records]) for name in ("pid", "camera"))
    return LabeledFeatures(features, pids, cameras, [record.path for record in records])


def equal(actual: LabeledFeatures, expected: LabeledFeatures) -> bool:
    labels = all(np.array_equal(ours, theirs) for ours, theirs in zip(actual[1:], expected[1:], strict=True))
    return labels and np.allclose(actual.features, expected.features, atol=1e-6)


@pytest.mark.parametrize("rerank", [None, RERANK])
def test_scores_and_files(
    evaluator: Evaluator, dataset: Dataset, model: ReIDNetwork, tmp_path: Path, rerank: RerankConfig | None
) -> None:
    query, gallery = (extracted(dataset, records, model) for records in (dataset.query, dataset.gallery))
    features, record = tmp_path / "features", tmp_path / "retrieval.json"
    features.mkdir()
    evaluation = evaluator(model, features, record, rerank)
    assert model.training
    assert evaluator.name == "noise"
    saved = [load_features(features, split) for split in ("query", "gallery")]  # type: ignore[arg-type]
    assert equal(saved[0], query) and equal(saved[1], gallery)
    expected = evaluate(
        *(labeled.features for labeled in saved),
        *(query.pids, gallery.pids, query.cameras, gallery.cameras),
        rerank=rerank,
    )
    assert evaluation.to_dict() == expected.to_dict()
    lists = json.loads(record.read_text())["lists"]
    assert bool(lists) == (rerank is None)
    for ranked in lists:
        assert ranked["query"]["path"].startswith("query") and {"picture", "looks"} <= ranked["query"].keys()
        assert all(entry["path"].startswith("gallery") and entry["picture"] for entry in ranked["entries"])


def test_the_first_image_without_a_finite_feature_is_named(evaluator: Evaluator) -> None:
    network = ReIDNetwork(Overflowing(), num_classes=2, embedding_dim=4)
    with pytest.raises(AutoReIDError, match=r"query3\.png: the network's feature of this image is NaN"):
        evaluator.features(network)


def test_no_files_unless_asked(evaluator: Evaluator, model: ReIDNetwork, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    evaluator(model.eval())
    assert not model.training
    assert sorted(tmp_path.rglob("*")) == before


def test_cameras_of_one_side_are_refused(dataset: Dataset, model: ReIDNetwork, tmp_path: Path) -> None:
    query, gallery = (extracted(dataset, records, model) for records in (dataset.query, dataset.gallery))
    arrays = (query.features, gallery.features, query.pids, gallery.pids)
    with_cameras = evaluate(*arrays, query.cameras, gallery.cameras).to_dict()
    without = evaluate(*arrays).to_dict()
    assert with_cameras != without
    assert evaluate_features(query, gallery).to_dict() == with_cameras
    blind = query._replace(cameras=None), gallery._replace(cameras=None)
    assert evaluate_features(*blind).to_dict() == without
    for pair in ((blind[0], gallery), (query, blind[1])):
        with pytest.raises(AutoReIDError, match="give both or neither"):
            evaluate_features(*pair)


def test_features_of_a_folder_are_ranked_with_the_given_options(
    dataset: Dataset, model: ReIDNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, gallery = (extracted(dataset, records, model) for records in (dataset.query, dataset.gallery))
    save_features(tmp_path, "query", query)
    save_features(tmp_path, "gallery", gallery)
    assert evaluate_folder(tmp_path).to_dict() == evaluate_features(query, gallery).to_dict()
    recorded: list[dict[str, Any]] = []

    def record_options(*arrays: Any, show_done: Any, **options: Any) -> Evaluation:
        show_done(1, 2)
        recorded.append(options)
        return evaluate(*arrays, **options)

    monkeypatch.setattr("autoreid_fast.evaluation.evaluator.evaluate", record_options)
    reranked = evaluate_folder(tmp_path, "sqeuclidean", RERANK, CPU)
    assert recorded == [{"metric": "sqeuclidean", "rerank": RERANK, "device": CPU}]
    assert reranked.to_dict() != evaluate_folder(tmp_path).to_dict()
    assert recorded[1] == {"metric": "euclidean", "rerank": None, "device": None}
