"""Scores on an NVIDIA GPU equal those on the CPU."""

import numpy as np
import pytest
import torch

from autoreid_fast import RerankConfig, evaluate
from autoreid_fast.evaluation import ranking

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


@pytest.mark.parametrize("cameras", [True, False])
@pytest.mark.parametrize("block", [2048, 17])
def test_scores_equal_the_cpus(cameras: bool, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "QUERIES_AT_ONCE", block)
    pids = torch.randint(0, 30, (60,)), torch.randint(-1, 28, (900,))  # queries without a match among them
    cams = (torch.randint(0, 3, (60,)), torch.randint(0, 3, (900,))) if cameras else (None, None)
    features = torch.randn(60, 48), torch.randn(900, 48)
    expected = evaluate(*features, *pids, *cams)
    for actual in (
        evaluate(*features, *pids, *cams, device="cuda"),
        evaluate(*(x.cuda() for x in features), *pids, *cams),
    ):
        for name, value in expected.to_dict().items():
            assert actual.to_dict()[name] == pytest.approx(value, rel=1e-12), name
        assert np.array_equal(actual.first_hit, expected.first_hit)
        np.testing.assert_allclose(actual.average_precision, expected.average_precision, rtol=1e-12)


def test_reranked_scores_equal_the_cpus() -> None:
    centres = torch.randn(25, 32)
    pids = torch.arange(25).repeat_interleave(2), torch.arange(25).repeat_interleave(12)
    features = [centres[labels] + 0.7 * torch.randn(len(labels), 32) for labels in pids]
    expected = evaluate(*features, *pids, rerank=RerankConfig())
    actual = evaluate(*features, *pids, rerank=RerankConfig(), device="cuda")
    assert actual.mAP == pytest.approx(expected.mAP, abs=1e-3)  # rounding may decide who is a neighbour
    assert actual.cmc == pytest.approx(expected.cmc, abs=0.03)
