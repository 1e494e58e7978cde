"""k-reciprocal re-ranking: ranks in blocks equal those of the dense distances; its config and its limits."""

import numpy as np
import pytest

from autoreid_fast import RerankConfig, evaluate, k_reciprocal
from autoreid_fast.distributed.processes import Shard
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.evaluation import reranking


def test_reranked_blocks_rank_as_the_dense_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    query, gallery = (random.normal(size=(count, 8)).astype(np.float32) for count in (19, 83))
    query_pids, gallery_pids = random.integers(1, 9, 19), random.integers(1, 9, 83)
    monkeypatch.setattr(reranking, "BLOCK_BYTES", 4 * 83 * 3)  # three queries per block
    result = evaluate(query, gallery, query_pids, gallery_pids, rerank=RerankConfig(k1=7, k2=3))
    order = k_reciprocal(query, gallery, k1=7, k2=3).argsort(axis=1, kind="stable")
    for row in range(19):
        ranks = np.flatnonzero(gallery_pids[order[row]] == query_pids[row]) + 1
        assert result.first_hit[row] == ranks[0]
        assert result.average_precision[row] == pytest.approx((np.arange(1, len(ranks) + 1) / ranks).mean())


def test_rerank_defaults_are_zhongs() -> None:
    assert RerankConfig().model_dump() == {"k1": 20, "k2": 6, "lambda_value": 0.3}
    random = np.random.default_rng(4)
    query, gallery = (random.normal(size=(count, 5)).astype(np.float32) for count in (9, 60))
    np.testing.assert_array_equal(k_reciprocal(query, gallery), k_reciprocal(query, gallery, 20, 6, 0.3))
    for name, least in (("k1", 1), ("k2", 1), ("lambda_value", 0)):
        assert getattr(RerankConfig(**{name: least}), name) == least
        with pytest.raises(ValueError, match=name):
            RerankConfig(**{name: least - 1})
    assert RerankConfig(lambda_value=1).lambda_value == 1
    with pytest.raises(ValueError, match="lambda_value"):
        RerankConfig(lambda_value=1.01)


def test_rerank_refuses_cosine_and_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32), [1, 2, 3], [1, 2, 3])
    with pytest.raises(AutoReIDError, match="rerank needs a Euclidean metric"):
        evaluate(*arguments, rerank=RerankConfig(), metric="cosine")
    monkeypatch.setattr("autoreid_fast.evaluation.evaluate.current_shard", lambda: Shard(1, 2))
    with pytest.raises(AutoReIDError, match="rerank runs in a single process"):
        evaluate(*arguments, rerank=RerankConfig())
