"""``evaluate`` against a thirty-line evaluator, on random features and on ties; chance; the guards."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.evaluation.evaluate import evaluate

Twin = dict[str, Any]


def twin(query: Any, gallery: Any, qp: Any, gp: Any, qc: Any = None, gc: Any = None) -> Twin:
    """The Market-1501 protocol by sorting and plain loops; per valid query, NaN and -1 for the others."""
    found: dict[str, list[float]] = {name: [] for name in ("first", "ap", "trapezoid", "inp")}
    query, gallery = np.asarray(query, np.float64), np.asarray(gallery, np.float64)
    for i in range(len(query)):
        distance = ((gallery - query[i]) ** 2).sum(axis=1)
        hits, place = [], 0
        for j in np.argsort(distance, kind="stable"):
            if gp[j] == -1 or (gp[j] == qp[i] and qc is not None and gc[j] == qc[i]):
                continue
            place += 1
            if gp[j] == qp[i]:
                hits.append(place)
        if not hits:
            for name, nothing in (("first", -1), ("ap", np.nan), ("trapezoid", np.nan), ("inp", np.nan)):
                found[name].append(nothing)
            continue
        found["first"].append(hits[0])
        found["ap"].append(float(np.mean([(n + 1) / hit for n, hit in enumerate(hits)])))
        found["inp"].append(len(hits) / hits[-1])
        # compute_AP.m of the Market-1501 baseline: walk the list, add a trapezoid at every entry
        area, old_recall, old_precision, good = 0.0, 0.0, 1.0, 0
        for walked in range(1, hits[-1] + 1):
            good += walked in hits
            recall, precision = good / len(hits), good / walked
            area += (recall - old_recall) * (old_precision + precision) / 2
            old_recall, old_precision = recall, precision
        found["trapezoid"].append(area)
    return {name: np.array(values) for name, values in found.items()}


def assert_equal_to_twin(result: Any, expected: Twin) -> None:
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
    """12 identities seen by 4 cameras, junk, distractors, and queries of identities that are not there."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(16, 8))
    qp, gp = random.integers(1, 15, queries), random.integers(-1, 13, entries)
    qp[0] = 14  # seen by nobody
    query = (centres[qp] + 1.5 * random.normal(size=(queries, 8))).astype(np.float32)
    gallery = (centres[np.maximum(gp, 0)] + 1.5 * random.normal(size=(entries, 8))).astype(np.float32)
    labels = (qp, gp, random.integers(0, 4, queries), random.integers(0, 4, entries))
    return query, gallery, *(labels if cameras else labels[:2])


@pytest.mark.parametrize("cameras", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_random_features(seed: int, cameras: bool) -> None:
    case = random_case(seed, cameras)
    expected = twin(*case)
    assert 0 < (expected["first"] > 0).sum() < len(expected["first"])
    with np.errstate(all="raise"):  # queries without a match are left out, not divided by nothing
        assert_equal_to_twin(evaluate(*case), expected)


def test_the_camera_rule_matters() -> None:
    query, gallery, *labels = random_case(0, True)
    with_rule, without = evaluate(query, gallery, *labels), evaluate(query, gallery, *labels[:2])
    assert with_rule.mAP != without.mAP


def test_other_metrics_order_as_they_should() -> None:
    query, gallery, *labels = random_case(4, True)
    euclidean = evaluate(query, gallery, *labels)
    squared = evaluate(query, gallery, *labels, metric="sqeuclidean")
    np.testing.assert_array_equal(euclidean.average_precision, squared.average_precision)
    cosine = evaluate(query, gallery, *labels, metric="cosine")

    def unit(rows: Any) -> Any:
        return rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)

    assert_equal_to_twin(cosine, twin(unit(query), unit(gallery), *labels))


def test_tensors_half_precision_and_other_integers_are_taken() -> None:
    query, gallery, *labels = random_case(5, True)
    query, gallery = query.astype(np.float16), gallery.astype(np.float16)
    expected = twin(query, gallery, *labels)
    assert_equal_to_twin(evaluate(query, gallery, *labels), expected)
    tensors = [torch.from_numpy(array) for array in (query, gallery)]
    assert_equal_to_twin(evaluate(*tensors, *(label.astype(np.int16) for label in labels)), expected)
    assert_equal_to_twin(evaluate(*tensors, *(label.tolist() for label in labels)), expected)
    assert_equal_to_twin(evaluate(query.astype(np.float32), gallery, *labels), expected)


def test_copies_in_the_gallery_are_ordered_by_index() -> None:
    """Equal features are equally far, wherever in the gallery they stand."""
    query, gallery, qp, gp, *_ = random_case(6, False, queries=7, entries=101)
    doubled = np.concatenate([gallery, gallery, gallery])
    pids = np.concatenate([np.zeros_like(gp), gp, gp])
    assert_equal_to_twin(evaluate(query, doubled, qp, pids), twin(query, doubled, qp, pids))


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
    expected = twin(*case)
    if (expected["first"] < 0).all():
        with pytest.raises(AutoReIDError, match="no query has a valid match"):
            evaluate(*case)
    else:
        assert_equal_to_twin(evaluate(*case), expected)
        assert_equal_to_twin(evaluate(*case, metric="sqeuclidean"), expected)


@pytest.mark.parametrize(("matches", "entries"), [(1, 1), (2, 2), (1, 6), (2, 5), (3, 3), (3, 7), (5, 6)])
def test_chance_is_the_mean_over_every_order(matches: int, entries: int) -> None:
    """All placements of the matches among the entries, each as likely; junk and the query's camera apart."""
    placements = list(combinations(range(1, entries + 1), matches))
    rank1 = np.mean([places[0] == 1 for places in placements])
    precision = np.mean([np.mean([(n + 1) / r for n, r in enumerate(places)]) for places in placements])
    gallery = np.arange(entries + 2, dtype=np.float32)[:, None]
    pids = [7] * matches + [0] * (entries - matches) + [-1, 7]
    cameras = [2] * (entries + 1) + [1]
    result = evaluate(np.zeros((1, 1), np.float32), gallery, [7], pids, [1], cameras)
    assert result.chance["rank1"] == pytest.approx(rank1, abs=1e-12)
    assert result.chance["mAP"] == pytest.approx(precision, abs=1e-12)


def test_chance_is_what_shuffling_gives() -> None:
    query, gallery, *labels = random_case(7, True, queries=40, entries=60)
    expected = evaluate(query, gallery, *labels).chance
    random = np.random.default_rng(0)
    shuffled = [
        evaluate(random.normal(size=query.shape).astype(np.float32), random.permutation(gallery), *labels)
        for _ in range(200)
    ]
    assert np.mean([one.cmc[1] for one in shuffled]) == pytest.approx(expected["rank1"], abs=0.01)
    assert np.mean([one.mAP for one in shuffled]) == pytest.approx(expected["mAP"], abs=0.01)


QUERY, GALLERY = np.ones((2, 3), np.float32), np.arange(12, dtype=np.float32).reshape(4, 3)
VALID: dict[str, Any] = {
    "query_features": QUERY,
    "gallery_features": GALLERY,
    "query_pids": [1, 2],
    "gallery_pids": [1, 2, 0, -1],
    "query_cams": [1, 1],
    "gallery_cams": [2, 2, 2, 2],
}


def spoiled(array: Any, row: int, value: float) -> Any:
    array = array.copy()
    array[row, 1] = value
    return array


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"query_features": spoiled(QUERY, 1, np.nan)}, "query.*NaN.*row 1"),
        ({"gallery_features": spoiled(GALLERY, 2, np.inf)}, "gallery.*infinit.*row 2"),
        ({"query_features": QUERY[0]}, r"query_features must be a 2-d float array.*shape \(3,\)"),
        ({"gallery_features": GALLERY.astype(np.int64)}, "gallery_features must be a 2-d float.*int64"),
        ({"query_features": [[1.0, 2.0, 3.0], [1.0]]}, "query_features must be an array.*several lengths"),
        ({"query_features": torch.ones(2, 3).to(torch.float8_e5m2)}, "query_features must be.*float8_e5m2"),
        ({"query_features": torch.ones(2, 3).to_sparse()}, "query_features must be dense.*sparse_coo"),
        ({"gallery_pids": torch.ones(4, device="meta")}, "gallery_pids must be dense and hold.*meta"),
        ({"device": "bogus"}, "device.*bogus"),
        ({"query_features": QUERY[:0], "query_pids": [], "query_cams": []}, "query_features is empty"),
        ({"gallery_features": GALLERY[:, :2]}, "query_features have 3 dimensions and gallery_features 2"),
        ({"query_pids": [1]}, "query_pids has 1 entries for 2 features"),
        ({"gallery_pids": [1, 2, 0]}, "gallery_pids has 3 entries for 4 features"),
        ({"query_cams": [1, 1, 1]}, "query_cams has 3 entries for 2 features"),
        ({"gallery_cams": [1]}, "gallery_cams has 1 entries for 4 features"),
        ({"query_pids": [1.0, 2.0]}, "query_pids must be a 1-d integer array.*float64"),
        ({"gallery_pids": [[1, 2, 0, -1]]}, r"gallery_pids must be a 1-d integer array.*shape \(1, 4\)"),
        ({"query_cams": None}, "query_cams and gallery_cams: give both or neither"),
        ({"gallery_cams": None}, "query_cams and gallery_cams: give both or neither"),
        ({"metric": "manhattan"}, "manhattan.*euclidean, sqeuclidean.*cosine"),
        ({"ranks": (1, 0)}, r"ranks are \(1, 0\): they start at 1"),
        ({"query_pids": [3, 4]}, "no query has a valid match"),
        ({"gallery_cams": [1, 1, 1, 1]}, "no query has a valid match.*more than one camera"),
    ],
)
def test_input_that_cannot_be_ranked_is_refused_in_a_line(wrong: dict[str, Any], message: str) -> None:
    evaluate(**VALID)
    with pytest.raises(AutoReIDError, match=message) as error:
        evaluate(**(VALID | wrong))
    assert "\n" not in str(error.value)


def test_results_as_json_and_as_text() -> None:
    query, gallery, *labels = random_case(1, True)
    result = evaluate(query, gallery, *labels, ranks=(1, 3))
    shares = {"rank1": result.cmc[1], "rank3": result.cmc[3], "mAP": result.mAP}
    shares |= {"mAP_trapezoid": result.mAP_trapezoid, "mINP": result.mINP}
    counts = {"num_query": 30, "num_valid": result.num_valid, "chance": result.chance}
    assert result.to_dict() == shares | counts
    assert set(evaluate(**VALID).cmc) == {1, 5, 10}
    assert str(result).splitlines() == [
        f"rank-1          {100 * result.cmc[1]:6.2f} %",
        f"rank-3          {100 * result.cmc[3]:6.2f} %",
        f"mAP             {100 * result.mAP:6.2f} %",
        f"mAP (trapezoid) {100 * result.mAP_trapezoid:6.2f} %",
        f"mINP            {100 * result.mINP:6.2f} %",
        f"queries         {result.num_valid:6d} of 30 with a valid match",
    ]
    assert "array" not in repr(result)
