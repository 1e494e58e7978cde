"""Inputs of the gallery benchmarks, and peers loaded from single files."""

import sys
from pathlib import Path

import pytest
import torch

from autoreid_fast.benchmarks import k_reciprocal as case_k_reciprocal
from autoreid_fast.benchmarks import rank_gallery as case_rank_gallery
from autoreid_fast.benchmarks.harness.case import Variant
from autoreid_fast.benchmarks.harness.support import galleries
from autoreid_fast.benchmarks.harness.support.peers import cython_module, load_file, package_file

MARKET = Variant({"Q": 3368, "G": 19732, "D": 8, "cameras": 6}, large="market1501")


def test_drawn_labels_have_the_counts_of_the_real_ones(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = galleries.labels(MARKET)
    assert (galleries.about(MARKET) or "").startswith("the true")
    monkeypatch.setattr(galleries, "TRUE_LABELS", shared_data / "absent.npz")
    drawn = galleries.labels(MARKET)
    assert (galleries.about(MARKET) or "").startswith("synthetic")
    for ours, theirs in zip(drawn, true, strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype == torch.int64
    for pid in (-1, 0):
        assert (drawn.gallery_pids == pid).sum() == (true.gallery_pids == pid).sum()
    assert len(drawn.query_pids.unique()) == pytest.approx(len(true.query_pids.unique()), rel=0.02)
    assert len(drawn.gallery_cams.unique()) == len(true.gallery_cams.unique()) == 6


def test_features_rank_neither_perfectly_nor_at_random() -> None:
    variant = Variant({"Q": 100, "G": 2000, "D": 256, "cameras": 6})
    scores = case_rank_gallery.reference(*case_rank_gallery.inputs(variant))
    rank1, *_, mean, inverse_penalty = (float(score) for score in scores if score is not None)
    assert 0.3 < mean < 0.99
    assert inverse_penalty < mean < rank1
    query, gallery, *_ = case_rank_gallery.inputs(variant)
    assert torch.allclose(torch.cat([query, gallery]).norm(dim=1), torch.ones(2100))


def test_no_rounding_decides_the_rank_of_a_match() -> None:
    labels = galleries.drawn_labels(40, 3000, cameras=3, identities=60)
    drawn = galleries.features(torch.cat([labels.query_pids, labels.gallery_pids]), 32)
    query = case_rank_gallery.decided(drawn[:40], drawn[40:], labels)
    assert not torch.equal(query, drawn[:40])
    gaps = []
    for row in range(40):
        squared = (query[row].double() - drawn[40:].double()).square().sum(1)
        ordered, index = squared.sort()
        close = ordered.diff()
        same = labels.gallery_pids[index] == labels.query_pids[row]
        gaps += [close[same[1:]].min(), close[same[:-1]].min()]
    assert min(gaps) >= case_rank_gallery.GAP * 0.99


def test_no_rounding_decides_who_is_near() -> None:
    images = torch.nn.functional.normalize(torch.randn(400, 16))
    images[7] = images[3]  # a tie in the list of every image
    settled = case_k_reciprocal.settled(images.clone())
    assert not torch.equal(settled, images)
    exact = settled.double()
    squared = (2 - 2 * exact @ exact.T).sort(dim=1).values
    for size in (6, 11, 21):
        assert (squared[:, size] - squared[:, size - 1]).min() > case_k_reciprocal.GAP / 2


def test_a_module_is_loaded_from_its_file_without_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "heavy_peer"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('needs everything')")
    (package / "light.py").write_text(
        "try:\n    import json.tool\n    has_json = True\nexcept ImportError:\n    has_json = False\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    light = package_file("heavy_peer", "light.py")
    assert load_file(light).has_json
    assert not load_file(light, without=["json.tool"]).has_json
    assert "heavy_peer" not in sys.modules
    assert sys.modules.get("json.tool", True)  # not left blocked
    with pytest.raises(ImportError, match=r"heavy_peer has no rank\.pyx"):
        package_file("heavy_peer", "rank.pyx")
    with pytest.raises(ImportError, match="No module named 'peer_that_is_absent'"):
        cython_module("peer_that_is_absent", "rank.pyx")
