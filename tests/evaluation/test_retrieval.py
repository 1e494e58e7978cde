"""The retrieval record for reports, against a sort of all distances."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from autoreid_fast.data.cache import ImageCache
from autoreid_fast.data.dataset import ImageRecord
from autoreid_fast.evaluation.evaluator import evaluate_features
from autoreid_fast.evaluation.features import LabeledFeatures
from autoreid_fast.evaluation.metrics import Evaluation
from autoreid_fast.evaluation.protocol import Protocol
from autoreid_fast.evaluation.retrieval import (
    ROWS_AT_ONCE,
    TOP,
    add_pictures,
    choose_queries,
    retrieval_record,
)
from autoreid_fast.models.reid import ReIDNetwork
from autoreid_fast.models.saliency import saliency_maps
from autoreid_fast.nas.backbone import Backbone


def labeled(count: int, pids: np.ndarray, seed: int, name: str) -> LabeledFeatures:
    random = np.random.default_rng(seed)
    features = random.integers(-3, 4, (count, 4)).astype(np.float32)  # exact distances, and ties
    return LabeledFeatures(
        features, pids, random.integers(1, 4, count), [f"{name}{i}.jpg" for i in range(count)]
    )


@pytest.fixture
def sets() -> tuple[LabeledFeatures, LabeledFeatures]:
    """12 queries of 12 identities; a gallery of matches, distractors (0) and junk (-1)."""
    random = np.random.default_rng(0)
    gallery = labeled(90, random.integers(-1, 13, 90), 1, "gallery")
    return labeled(12, np.arange(1, 13), 2, "query"), gallery


def by_sorting(query: LabeledFeatures, gallery: LabeledFeatures, index: int) -> list[int]:
    """Gallery indices that the query ranks, in order."""
    assert query.cameras is not None and gallery.cameras is not None
    squared = ((gallery.features - query.features[index]) ** 2).sum(1)
    excluded = (gallery.pids == query.pids[index]) & (gallery.cameras == query.cameras[index])
    order = np.lexsort((np.arange(len(squared)), squared))
    return [int(entry) for entry in order if gallery.pids[entry] != -1 and not excluded[entry]]


@pytest.mark.parametrize("rows", [ROWS_AT_ONCE, 7], ids=["whole", "shards"])
def test_lists_are_the_first_entries_of_the_ranking(
    sets: tuple[LabeledFeatures, LabeledFeatures], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoreid_fast.evaluation.retrieval.ROWS_AT_ONCE", rows)
    query, gallery = sets
    evaluation = evaluate_features(query, gallery)
    record = retrieval_record(query, gallery, evaluation)
    assert record.cmc[:10:9] == pytest.approx([evaluation.cmc[1], evaluation.cmc[10]], abs=1e-6)
    assert len(record.cmc) == 50 and len(record.lists) == 9
    late_matches = 0
    for ranked in record.lists:
        index = ranked.query.index
        order = by_sorting(query, gallery, index)
        matches = [rank for rank, entry in enumerate(order, 1) if gallery.pids[entry] == query.pids[index]]
        assert ranked.first_hit == matches[0] and ranked.matches == len(matches)
        expected = order[:TOP] + ([order[matches[0] - 1]] if matches[0] > TOP else [])
        late_matches += matches[0] > TOP
        assert [entry.index for entry in ranked.entries] == expected
        for entry in ranked.entries:
            assert entry.match == (gallery.pids[entry.index] == query.pids[index])
            assert entry.path == f"gallery{entry.index}.jpg"
    assert late_matches  # the data has this case


def test_values_per_query(sets: tuple[LabeledFeatures, LabeledFeatures]) -> None:
    query, gallery = sets
    query = query._replace(pids=np.where(query.pids == 5, 99, query.pids))  # without a match
    evaluation = evaluate_features(query, gallery)
    record = retrieval_record(query, gallery, evaluation, lists=False)
    assert record.lists == []
    assert record.first_hit == [hit if hit > 0 else None for hit in evaluation.first_hit.tolist()]
    assert record.first_hit[4] is None and record.average_precision[4] is None
    assert record.average_precision[:4] == pytest.approx(evaluation.average_precision[:4], abs=1e-6)
    assert record.average_precision[5:] == pytest.approx(evaluation.average_precision[5:], abs=1e-6)


def test_best_and_worst_queries_are_of_different_identities(
    sets: tuple[LabeledFeatures, LabeledFeatures],
) -> None:
    query, gallery = sets
    query = query._replace(pids=(query.pids + 1) // 2)  # two queries per identity
    evaluation = evaluate_features(query, gallery)
    lists = retrieval_record(query, gallery, evaluation).lists
    assert len({ranked.query.pid for ranked in lists}) == len(lists)
    precisions = {
        kind: [ranked.average_precision for ranked in lists if ranked.kind == kind]
        for kind in ("best", "worst")
    }
    valid = evaluation.average_precision[evaluation.first_hit > 0]
    assert precisions["best"][0] == pytest.approx(valid.max(), abs=1e-6)
    assert precisions["worst"][0] == pytest.approx(valid.min(), abs=1e-6)


def test_equal_precisions_go_by_matches_and_then_by_index() -> None:
    precision = np.array([1, 1, 0.9, 0.5, 0.5, 0.2, 0.2, 0.3, 0.6, np.nan])
    first_hit = np.array([1] * 9 + [-1])
    protocol = Protocol(9, 10, 20, 0, 0, None)
    evaluation = Evaluation({}, 0, 0, 0, 10, 9, protocol, {}, precision, first_hit)
    matches = np.array([1, 3, 2, 1, 1, 1, 4, 1, 1, 0])
    chosen = choose_queries(evaluation, np.arange(10), matches)
    assert chosen == {"best": [1, 0, 2], "typical": [3, 4, 8], "worst": [6, 5, 7]}


def test_without_cameras_every_image_is_ranked(sets: tuple[LabeledFeatures, LabeledFeatures]) -> None:
    query, gallery = (labeled._replace(cameras=None) for labeled in sets)
    record = retrieval_record(query, gallery, evaluate_features(query, gallery))
    for ranked in record.lists:
        squared = ((gallery.features - query.features[ranked.query.index]) ** 2).sum(1)
        order = [int(i) for i in np.argsort(squared, kind="stable") if gallery.pids[i] != -1]
        assert [entry.index for entry in ranked.entries][:TOP] == order[:TOP]
        assert ranked.query.camera is None


class Toy(Backbone):
    """Averages 8x8 pixels, mixes colours: (N, 3, H, W) -> (N, 5, H / 8, W / 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_dim = 5
        self.mix = torch.nn.Conv2d(3, 5, 1)

    def feature_map(self, images: Tensor) -> Tensor:
        return self.mix(torch.nn.functional.avg_pool2d(images, 8))


def test_saliency_is_the_contribution_of_a_pixel_to_the_feature() -> None:
    backbone, images = Toy(), torch.randn(3, 3, 24, 16)
    maps = saliency_maps(backbone, images)
    x, f = backbone.feature_map(images), backbone(images)
    assert maps.shape == (3, 3, 2)
    torch.testing.assert_close(maps.sum(dim=(1, 2)), torch.ones(3))
    for image in range(3):
        for row in range(3):
            for column in range(2):
                contribution = (x[image, :, row, column] * f[image]).sum() / 6 / f[image].square().sum()
                torch.testing.assert_close(maps[image, row, column], contribution.detach())


def test_pictures_are_small_jpegs_of_the_right_images(
    sets: tuple[LabeledFeatures, LabeledFeatures], tmp_path: Path
) -> None:
    query, gallery = sets

    def cache(images: LabeledFeatures) -> ImageCache:
        """Every pixel of image i is 2 i; images have 400 rows."""
        shape = (len(images.pids), 400, 160, 3)
        pixels = np.memmap(tmp_path / images.paths[0], np.uint8, "w+", 0, shape)
        pixels[:] = 2 * np.arange(len(images.pids)).reshape(-1, 1, 1, 1)
        records = tuple(ImageRecord(path, 1, 1) for path in images.paths)
        return ImageCache(tmp_path, pixels, records, ())

    record = retrieval_record(query, gallery, evaluate_features(query, gallery))
    model = ReIDNetwork(Toy(), num_classes=2, embedding_dim=4).train()
    add_pictures(record, cache(query), cache(gallery), model, torch.device("cpu"))
    assert model.training
    for ranked in record.lists:
        assert np.shape(ranked.query.saliency) == (50, 20)
        for image in (ranked.query, *ranked.entries):
            picture = Image.open(io.BytesIO(base64.b64decode(image.picture)))
            assert picture.format == "JPEG" and picture.height == 192
            assert np.abs(np.asarray(picture).astype(int) - 2 * image.index).max() <= 2


def test_the_record_as_json(sets: tuple[LabeledFeatures, LabeledFeatures]) -> None:
    """`retrieval.json` of earlier runs has these keys, in this order."""
    query, gallery = sets
    record = retrieval_record(query, gallery, evaluate_features(query, gallery)).to_dict()
    assert list(record) == ["cmc", "average_precision", "first_hit", "lists"]
    (ranked, *_) = record["lists"]
    assert list(ranked) == ["kind", "query", "average_precision", "first_hit", "matches", "entries"]
    assert list(ranked["query"]) == ["index", "path", "pid", "camera", "picture", "looks"]
    keys = ["index", "path", "pid", "camera", "distance", "match", "picture"]
    assert all(list(entry) == keys for entry in ranked["entries"])


def test_two_identities_give_a_best_and_a_worst_query(
    sets: tuple[LabeledFeatures, LabeledFeatures],
) -> None:
    query, gallery = sets
    two = LabeledFeatures(query.features[:2], query.pids[:2], np.array([7, 8]), query.paths[:2])
    lists = retrieval_record(two, gallery, evaluate_features(two, gallery)).lists
    assert [ranked.kind for ranked in lists] == ["best", "worst"]


def test_curves_count_every_query_with_a_match() -> None:
    def side(values: list[float], pids: list[int], camera: int) -> LabeledFeatures:
        features = np.array(values, np.float32)[:, None]
        return LabeledFeatures(features, np.array(pids), np.full(len(pids), camera), [""] * len(pids))

    query, gallery = side([0, 9.4, 20], [1, 2, 3], 1), side([0, 10.5, 9], [1, 2, 5], 2)
    record = retrieval_record(query, gallery, evaluate_features(query, gallery))
    assert record.first_hit == [1, 2, None]
    assert record.average_precision == [1.0, 0.5, None]
    assert record.cmc == [0.5, 1.0, 1.0]
