"""`Evaluator` against the same steps taken one by one: read, describe, rank, write down."""

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
from autoreid_fast.evaluation.evaluate import RerankConfig, evaluate
from autoreid_fast.evaluation.evaluator import Evaluator, rank_features, rank_folder
from autoreid_fast.evaluation.features import LabeledFeatures, load_features, save_features
from autoreid_fast.evaluation.metrics import Evaluation
from autoreid_fast.models.reid import ReIDNetwork
from autoreid_fast.nas.backbone import Backbone

CPU = torch.device("cpu")
RERANK = RerankConfig(k1=4, k2=2)


class Colours(Backbone):
    """Averages 8x8 pixels and mixes their colours; what it learnt by drops out in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_dim = 6
        self.mix = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 1), torch.nn.Dropout(0.5))

    def feature_map(self, images: Tensor) -> Tensor:
        return self.mix(torch.nn.functional.avg_pool2d(images, 8))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Noise of 5 people by 3 cameras, 7 queries in a gallery of 70: more than a batch."""
    random = np.random.default_rng(0)

    def records(split: str, count: int) -> tuple[ImageRecord, ...]:
        made = []
        for number in range(count):
            record = ImageRecord(f"{split}{number}.png", number % 5 + 1, number % 3)
            Image.fromarray(random.integers(0, 256, (16, 8, 3), dtype=np.uint8)).save(tmp_path / record.path)
            made.append(record)
        return tuple(made)

    query, gallery = records("query", 7), records("gallery", 70)
    return Dataset("noise", tmp_path, (), query, gallery, lambda record: Image.open(tmp_path / record.path))


@pytest.fixture
def evaluator(dataset: Dataset, tmp_path: Path) -> Evaluator:
    config = DataConfig(root=dataset.root, height=16, width=8, cache_dir=tmp_path / "cache")
    return Evaluator(dataset, config, CPU)


@pytest.fixture
def model() -> ReIDNetwork:
    return ReIDNetwork(Colours(), num_classes=2, embedding_dim=4).train()


def described(dataset: Dataset, records: tuple[ImageRecord, ...], model: ReIDNetwork) -> LabeledFeatures:
    pixels = np.stack([np.asarray(dataset.read_image(record)) for record in records])
    training = model.training
    with torch.no_grad():
        rows = model.eval().descriptor(normalized(torch.from_numpy(pixels)))
    model.train(training)
    features = torch.nn.functional.normalize(rows).numpy()
    pids, cameras = (np.array([getattr(each, name) for each in records]) for name in ("pid", "camera"))
    return LabeledFeatures(features, pids, cameras, [record.path for record in records])


def same(found: LabeledFeatures, expected: LabeledFeatures) -> bool:
    labels = all(np.array_equal(ours, theirs) for ours, theirs in zip(found[1:], expected[1:], strict=True))
    return labels and np.allclose(found.features, expected.features, atol=1e-6)


@pytest.mark.parametrize("rerank", [None, RERANK])
def test_what_it_says_and_what_it_leaves(
    evaluator: Evaluator, dataset: Dataset, model: ReIDNetwork, tmp_path: Path, rerank: RerankConfig | None
) -> None:
    query, gallery = (described(dataset, records, model) for records in (dataset.query, dataset.gallery))
    features, record = tmp_path / "features", tmp_path / "retrieval.json"
    features.mkdir()
    found = evaluator(model, features, record, rerank)
    assert model.training
    assert evaluator.name == "noise"
    left = [load_features(features, split) for split in ("query", "gallery")]  # type: ignore[arg-type]
    assert same(left[0], query) and same(left[1], gallery)
    expected = evaluate(
        *(each.features for each in left),
        *(query.pids, gallery.pids, query.cameras, gallery.cameras),
        rerank=rerank,
    )
    assert found.to_dict() == expected.to_dict()
    lists = json.loads(record.read_text())["lists"]
    assert bool(lists) == (rerank is None)
    for ranked in lists:
        assert ranked["query"]["path"].startswith("query") and {"picture", "looks"} <= ranked["query"].keys()
        assert all(entry["path"].startswith("gallery") and entry["picture"] for entry in ranked["entries"])


def test_it_leaves_nothing_where_it_was_not_asked(
    evaluator: Evaluator, model: ReIDNetwork, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    evaluator(model.eval())
    assert not model.training
    assert sorted(tmp_path.rglob("*")) == before


def test_cameras_count_where_both_sides_know_them(
    dataset: Dataset, model: ReIDNetwork, tmp_path: Path
) -> None:
    query, gallery = (described(dataset, records, model) for records in (dataset.query, dataset.gallery))
    arrays = (query.features, gallery.features, query.pids, gallery.pids)
    with_cameras = evaluate(*arrays, query.cameras, gallery.cameras).to_dict()
    without = evaluate(*arrays).to_dict()
    assert with_cameras != without
    assert rank_features(query, gallery).to_dict() == with_cameras
    assert rank_features(query._replace(cameras=None), gallery).to_dict() == without
    assert rank_features(query, gallery._replace(cameras=None)).to_dict() == without


def test_the_features_of_a_folder_are_ranked_as_told(
    dataset: Dataset, model: ReIDNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, gallery = (described(dataset, records, model) for records in (dataset.query, dataset.gallery))
    save_features(tmp_path, "query", query)
    save_features(tmp_path, "gallery", gallery)
    assert rank_folder(tmp_path).to_dict() == rank_features(query, gallery).to_dict()
    told: list[dict[str, Any]] = []

    def note(*arrays: Any, show_done: Any, **options: Any) -> Evaluation:
        show_done(1, 2)
        told.append(options)
        return evaluate(*arrays, **options)

    monkeypatch.setattr("autoreid_fast.evaluation.evaluator.evaluate", note)
    found = rank_folder(tmp_path, "sqeuclidean", RERANK, CPU)
    assert told == [{"metric": "sqeuclidean", "rerank": RERANK, "device": CPU}]
    assert found.to_dict() != rank_folder(tmp_path).to_dict()
    assert told[1] == {"metric": "euclidean", "rerank": None, "device": None}
