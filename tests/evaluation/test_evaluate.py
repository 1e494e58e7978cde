"""`evaluate` against a thirty-line evaluator, on random features and on ties; chance; wrong input."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.evaluation.evaluate import evaluate

Scores = dict[str, Any]


def sorted_scores(query: Any, gallery: Any, qp: Any, gp: Any, qc: Any = None, gc: Any = None) -> Scores:
    """Scores per query under the Market-1501 protocol, by sorting and loops; NaN and -1 without a match."""
    scores: dict[str, list[float]] = {name: [] for name in ("first", "ap", "trapezoid", "inp")}
    query, gallery = np.asarray(query, np.float64), np.asarray(gallery, np.float64)
    for i in range(len(query)):
        distance = ((gallery - query[i]) ** 2).sum(axis=1)
        hits, rank = [], 0
        for j in np.argsort(distance, kind="stable"):
            if gp[j] == -1 or (gp[j] == qp[i] and qc is not None and gc[j] == qc[i]):
                continue
            rank += 1
            if gp[j] == qp[i]:
                hits.append(rank)
        if not hits:
            for name, missing in (("first", -1), ("ap", np.nan), ("trapezoid", np.nan), ("inp", np.nan)):
                scores[name].append(missing)
            continue
        scores["first"].append(hits[0])
        scores["ap"].append(float(np.mean([(n + 1) / hit for n, hit in enumerate(hits)])))
        scores["inp"].append(len(hits) / hits[-1])
        # compute_AP.m of the Market-1501 baseline: walk the list, add a trapezoid at every entry
        area, old_recall, old_precision, matches = 0.0, 0.0, 1.0, 0
        for entries in range(1, hits[-1] + 1):
            matches += entries in hits
            recall, precision = matches / len(hits), matches / entries
            area += (recall - old_recall) * (old_precision + precision) / 2
            old_recall, old_precision = recall, precision
        scores["trapezoid"].append(area)
    return {name: np.array(values) for name, values in scores.items()}


def assert_scores(result: Any, expected: Scores) -> None:
    first = expected["first"]
    valid = first > 0
    np.testing.assert_array_equal(result.first_hit, first)
    np.testing.assert_allclose(result.average_precision, expected["ap"], rtol=0, atol=1e-9)
    assert (result.num_query, result.num_valid) == (len(first), valid.sum())
    for rank in (1, 5, 10):
        assert result.cmc[rank] == pytest.approx((first[valid] <= rank).mean(), abs=1e-6)
    assert result.mAP == pytest.approx(expected["ap"][valid].mean(), abs=1e-6)
    assert result.mAP_trapezoid == pytest.approx(expected["trapezoid"][valid].mean(), abs=1e-6)
    assert result.mINP == pytest.approx(expected["inp"][valid].mean(), abs=1e-6)


def random_case(seed: int, cameras: bool, queries: int = 30, entries: int = 400) -> tuple[Any, ...]:
    """12 identities seen by 4 cameras, junk, distractors, and queries of identities without a match."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(16, 8))
    qp, gp = random.integers(1, 15, queries), random.integers(-1, 13, entries)
    qp[0] = 14  # not in the gallery
    query = (centres[qp] + 1.5 * random.normal(size=(queries, 8))).astype(np.float32)
    gallery = (centres[np.maximum(gp, 0)] + 1.5 * random.normal(size=(entries, 8))).astype(np.float32)
    labels = (qp, gp, random.integers(0, 4, queries), random.integers(0, 4, entries))
    return query, gallery, *(labels if cameras else labels[:2])


@pytest.mark.parametrize("cameras", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_random_features(seed: int, cameras: bool) -> None:
    case = random_case(seed, cameras)
    expected = sorted_scores(*case)
    assert 0 < (expected["first"] > 0).sum() < len(expected["first"])
    with np.errstate(all="raise"):  # queries without a match are left out, not divided by zero
        assert_scores(evaluate(*case), expected)


def test_the_camera_rule_matters() -> None:
    query, gallery, *labels = random_case(0, True)
    with_rule, without = evaluate(query, gallery, *labels), evaluate(query, gallery, *labels[:2])
    assert with_rule.mAP != without.mAP


def test_other_metrics() -> None:
    query, gallery, *labels = random_case(4, True)
    euclidean = evaluate(query, gallery, *labels)
    squared = evaluate(query, gallery, *labels, metric="sqeuclidean")
    np.testing.assert_array_equal(euclidean.average_precision, squared.average_precision)
    cosine = evaluate(query, gallery, *labels, metric="cosine")

    def unit(rows: Any) -> Any:
        return rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)

    assert_scores(cosine, sorted_scores(unit(query), unit(gallery), *labels))


def test_tensors_half_precision_and_other_integers() -> None:
    query, gallery, *labels = random_case(5, True)
    query, gallery = query.astype(np.float16), gallery.astype(np.float16)
    expected = sorted_scores(query, gallery, *labels)
    assert_scores(evaluate(query, gallery, *labels), expected)
    tensors = [torch.from_numpy(array) for array in (query, gallery)]
    assert_scores(evaluate(*tensors, *(label.astype(np.int16) for label in labels)), expected)
    assert_scores(evaluate(*tensors, *(label.tolist() for label in labels)), expected)
    assert_scores(evaluate(query.astype(np.float32), gallery, *labels), expected)


def test_copies_in_the_gallery_are_ordered_by_index() -> None:
    """Equal features are at equal distance, wherever in the gallery they are."""
    query, gallery, qp, gp, *_ = random_case(6, False, queries=7, entries=101)
    doubled = np.concatenate([gallery, gallery, gallery])
    pids = np.concatenate([np.zeros_like(gp), gp, gp])
    assert_scores(evaluate(query, doubled, qp, pids), sorted_scores(query, doubled, qp, pids))


@st.composite
def ties(draw: st.DrawFn) -> tuple[Any, ...]:
    """Features of small integers: many equal distances, and all of them exact."""
    queries, entries = draw(st.integers(1, 4)), draw(st.integers(1, 14))
    dimensions = draw(st.integers(1, 3))

    def table(rows: int) -> Any:
        row = st.lists(st.integers(-1, 1), min_size=dimensions, max_size=dimensions)
        return np.array(draw(st.lists(row, min_size=rows, max_size=rows)), np.float32)

    def labels(rows: int, low: int, high: int) -> Any:
        return np.array(draw(st.lists(st.integers(low, high), min_size=rows, max_size=rows)))

    case = table(queries), table(entries), labels(queries, 1, 3), labels(entries, -1, 3)
    return (*case, labels(queries, 0, 2), labels(entries, 0, 2)) if draw(st.booleans()) else case


@given(ties())
@settings(max_examples=150, deadline=None)
def test_ties(case: tuple[Any, ...]) -> None:
    expected = sorted_scores(*case)
    if (expected["first"] < 0).all():
        with pytest.raises(AutoReIDError, match="no query has a valid match"):
            evaluate(*case)
    else:
        assert_scores(evaluate(*case), expected)
        assert_scores(evaluate(*case, metric="sqeuclidean"), expected)


@pytest.mark.parametrize(("matches", "entries"), [(1, 1), (2, 2), (1, 6), (2, 5), (3, 3), (3, 7), (5, 6)])
def test_chance_is_the_mean_over_every_order(matches: int, entries: int) -> None:
    """All orders of the matches are equally likely; junk and the query's own camera do not count."""
    orders = list(combinations(range(1, entries + 1), matches))
    rank1 = np.mean([ranks[0] == 1 for ranks in orders])
    precision = np.mean([np.mean([(n + 1) / rank for n, rank in enumerate(ranks)]) for ranks in orders])
    gallery = np.arange(entries + 2, dtype=np.float32)[:, None]
    pids = [7] * matches + [0] * (entries - matches) + [-1, 7]
    cameras = [2] * (entries + 1) + [1]
    result = evaluate(np.zeros((1, 1), np.float32), gallery, [7], pids, [1], cameras)
    assert result.chance["rank1"] == pytest.approx(rank1, abs=1e-12)
    assert result.chance["mAP"] == pytest.approx(precision, abs=1e-12)


def test_chance_equals_the_mean_of_shuffles() -> None:
    query, gallery, *labels = random_case(7, True, queries=40, entries=60)
    expected = evaluate(query, gallery, *labels).chance
    random = np.random.default_rng(0)
    shuffled = [
        evaluate(random.normal(size=query.shape).astype(np.float32), random.permutation(gallery), *labels)
        for _ in range(200)
    ]
    assert np.mean([result.cmc[1] for result in shuffled]) == pytest.approx(expected["rank1"], abs=0.01)
    assert np.mean([result.mAP for result in shuffled]) == pytest.approx(expected["mAP"], abs=0.01)


QUERY, GALLERY = np.ones((2, 3), np.float32), np.arange(12, dtype=np.float32).reshape(4, 3)
VALID: dict[str, Any] = {
    "query_features": QUERY,
    "gallery_features": GALLERY,
    "query_pids": [1, 2],
    "gallery_pids": [1, 2, 0, -1],
    "query_cams": [1, 1],
    "gallery_cams": [2, 2, 2, 2],
}


def with_value(array: Any, row: int, value: float) -> Any:
    array = array.copy()
    array[row, 1] = value
    return array


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"query_features": with_value(QUERY, 1, np.nan)}, "query.*NaN.*row 1"),
        ({"gallery_features": with_value(GALLERY, 2, np.inf)}, "gallery.*infinit.*row 2"),
        ({"query_features": QUERY[0]}, r"query_features must be a 2-d float array.*shape \(3,\)"),
        ({"gallery_features": GALLERY.astype(np.int64)}, "gallery_features must be a 2-d float.*int64"),
        ({"query_features": [[1.0, 2.0, 3.0], [1.0]]}, "query_features must be an array.*different lengths"),
        ({"query_features": torch.ones(2, 3).to(torch.float8_e5m2)}, "query_features must be.*float8_e5m2"),
        ({"query_features": torch.ones(2, 3).to_sparse()}, "query_features must be a dense.*sparse_coo"),
        ({"gallery_pids": torch.ones(4, device="meta")}, "gallery_pids must be a dense.*meta"),
        ({"device": "bogus"}, "device.*bogus"),
        ({"query_features": QUERY[:0], "query_pids": [], "query_cams": []}, "query_features is empty"),
        ({"gallery_features": GALLERY[:, :2]}, "query_features have 3 dimensions and gallery_features 2"),
        ({"query_pids": [1]}, "query_pids has 1 entries for 2 features"),
        ({"gallery_pids": [1, 2, 0]}, "gallery_pids has 3 entries for 4 features"),
        ({"query_cams": [1, 1, 1]}, "query_cams has 3 entries for 2 features"),
        ({"gallery_cams": [1]}, "gallery_cams has 1 entries for 4 features"),
        ({"query_pids": np.array([1.0, 2.0])}, "query_pids must be a 1-d array.*float64"),
        ({"gallery_pids": [[1, 2, 0, -1]]}, r"gallery_pids must be a 1-d array.*shape \(1, 4\)"),
        ({"query_cams": None}, "query_cams and gallery_cams: give both or neither"),
        ({"gallery_cams": None}, "query_cams and gallery_cams: give both or neither"),
        ({"metric": "manhattan"}, "manhattan.*euclidean, sqeuclidean.*cosine"),
        ({"ranks": (1, 0)}, r"ranks is \(1, 0\); expected whole numbers from 1"),
        ({"ranks": (1, 2.5)}, r"ranks is \(1, 2\.5\); expected whole numbers"),
        ({"ranks": ("1",)}, r"ranks is \('1',\); expected whole numbers"),
        ({"ranks": 5}, "ranks is 5; expected whole numbers"),
        ({"rerank": True}, "rerank is True; expected a RerankConfig"),
        ({"query_pids": [3, 4]}, "no query has a valid match"),
        ({"gallery_cams": [1, 1, 1, 1]}, "no query has a valid match.*more than one camera"),
    ],
)
def test_wrong_input_is_refused_in_one_line(wrong: dict[str, Any], message: str) -> None:
    evaluate(**VALID)
    with pytest.raises(AutoReIDError, match=message) as error:
        evaluate(**(VALID | wrong))
    assert "\n" not in str(error.value)


def test_results_as_json_and_as_text() -> None:
    query, gallery, *labels = random_case(1, True)
    result = evaluate(query, gallery, *labels, ranks=(1, 3))
    scores = {"rank1": result.cmc[1], "rank3": result.cmc[3], "mAP": result.mAP}
    scores |= {"mAP_trapezoid": result.mAP_trapezoid, "mINP": result.mINP}
    counts = {"num_query": 30, "num_valid": result.num_valid, "chance": result.chance}
    counts["protocol"] = result.protocol.to_dict()
    assert result.to_dict() == scores | counts
    assert set(evaluate(**VALID).cmc) == {1, 5, 10}
    assert str(result).splitlines() == [
        *str(result.protocol).splitlines(),
        f"rank-1          {100 * result.cmc[1]:6.2f} %",
        f"rank-3          {100 * result.cmc[3]:6.2f} %",
        f"mAP             {100 * result.mAP:6.2f} %",
        f"mAP (trapezoid) {100 * result.mAP_trapezoid:6.2f} %",
        f"mINP            {100 * result.mINP:6.2f} %",
        f"queries         {result.num_valid:6d} of 30 with a valid match",
    ]
    assert "array" not in repr(result)


def test_the_protocol_is_counted() -> None:
    """People, junk, distractors and cameras; the rule in words; names as good as numbers."""
    query, gallery = np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2]]
    cameras = ["door", "lift", "door"], ["lift", "door", "hall", "door", "hall", "lift"]
    result = evaluate(query, gallery, ["ann", "bo", "ann"], ["ann", "bo", "-1", "0", "0", "cy"], *cameras)
    assert result.protocol[:] == (2, 3, 6, 1, 2, 3, 2)
    assert "own person and camera are left out" in str(result)
    assert result.to_dict()["protocol"]["people"] == 2  # type: ignore[index]
    numbers = evaluate(query, gallery, [5, 6, 5], [5, 6, -1, 0, 0, 7], [1, 2, 1], [2, 1, 3, 1, 3, 2])
    assert numbers.to_dict() == result.to_dict()
    without = evaluate(query, gallery, [5, 6, 5], [5, 6, -1, 0, 0, 7])
    assert without.protocol.cameras is None
    assert "cameras not known" in str(without)


def test_cameras_that_no_side_shares_are_said() -> None:
    """Cameras written in two ways are other cameras: nothing is left out, and the protocol says so."""
    gallery = np.arange(6, dtype=np.float32).reshape(3, 2)
    labels = [4, 5], [4, 5, 4], ["cam1", "cam2"]
    apart = evaluate(gallery[:2], gallery, *labels, [1, 2, 3])
    assert apart.protocol.rule.startswith("query and gallery have no camera in common")
    assert apart.to_dict()["protocol"]["shared_cameras"] == 0  # type: ignore[index]
    together = evaluate(gallery[:2], gallery, *labels, ["cam2", "cam1", "cam3"])
    assert "are left out" in together.protocol.rule
