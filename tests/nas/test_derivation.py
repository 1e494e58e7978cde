"""`derive` compared with brute force, and the entropy of alpha."""

import itertools
import math

import pytest
import torch

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas.derivation import alpha_entropy, derive
from autoreid_fast.nas.space import search_space


def brute_force(alpha: torch.Tensor, operations: tuple[str, ...]) -> list[set[tuple[str, int]]]:
    """The pair of inputs with the greatest sum of strengths, per node, each with its best operation."""
    rows = iter(alpha.tolist())
    nodes = []
    for count in (2, 3, 4, 5):
        best = []
        for row in itertools.islice(rows, count):
            total = math.fsum(map(math.exp, row))
            weights = {op: math.exp(a) / total for op, a in zip(operations, row, strict=True) if op != "none"}
            best.append(max((weight, op) for op, weight in weights.items()))
        pairs = itertools.combinations(range(count), 2)
        chosen = max(pairs, key=lambda pair: best[pair[0]][0] + best[pair[1]][0])
        nodes.append({(best[source][1], source) for source in chosen})
    return nodes


@pytest.mark.parametrize("space", ["standard", "reid"])
def test_equals_brute_force(space: str) -> None:
    operations = search_space(space)
    for scale in (0.01, 1.0, 10.0):
        for _ in range(40):
            normal, reduce = scale * torch.randn(2, 14, len(operations), dtype=torch.float64)
            genotype = derive(normal, reduce, space)
            assert [set(node) for node in genotype.normal] == brute_force(normal, operations)
            assert [set(node) for node in genotype.reduce] == brute_force(reduce, operations)


def test_strength_is_a_softmax_weight_that_none_reduces() -> None:
    """Node 1: input 0 has the largest alpha of a real operation, but none takes nearly all the weight."""
    operations = search_space("standard")
    alpha = torch.zeros(14, len(operations))
    alpha[2, operations.index("none")] = 9
    alpha[2, operations.index("sep_conv_3x3")] = 5
    alpha[3, operations.index("skip_connect")] = 1
    alpha[4, operations.index("dil_conv_3x3")] = 2
    genotype = derive(alpha, alpha, "standard")
    assert genotype.normal[1] == (("dil_conv_3x3", 2), ("skip_connect", 1))


def test_the_first_wins_a_tie() -> None:
    genotype = derive(torch.zeros(14, 7), torch.zeros(14, 7), "reid")
    assert genotype.normal == ((("max_pool_3x3", 0), ("max_pool_3x3", 1)),) * 4


def test_weights_that_round_to_the_same_number_are_no_tie() -> None:
    """In float64 the weights of node 0 are both 1, those of node 1 all 0: the logits still differ."""
    operations = search_space("standard")
    alpha = torch.zeros(14, len(operations))
    alpha[0, 2], alpha[1, 3] = 60, 61
    alpha[2:5, operations.index("none")] = torch.tensor([1000.0, 1000.0, 999.0])
    alpha[4, 4] = -1
    alpha[3, 5] = 2
    genotype = derive(alpha, alpha, "standard")
    assert genotype.normal[0] == ((operations[3], 1), (operations[2], 0))
    assert genotype.normal[1] == ((operations[5], 1), (operations[1], 2))


def test_equal_logits_in_another_order_are_a_tie() -> None:
    """Summed in another order, softmax weights differ in the last bit, and a later input could win."""
    operations = search_space("reid")
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        row = torch.randn(len(operations) - 1, generator=generator)
        orders = [torch.randperm(len(row), generator=generator) for _ in range(14)]
        alpha = torch.stack([torch.cat([torch.zeros(1), row[order]]) for order in orders])  # none is first
        alpha[:, 1:] += 3
        columns = alpha.argmax(dim=1).tolist()
        genotype = derive(alpha, alpha, "reid")
        starts = (0, 2, 5, 9)
        expected = tuple(
            ((operations[columns[start]], 0), (operations[columns[start + 1]], 1)) for start in starts
        )
        assert genotype.normal == expected


def test_malformed_alpha() -> None:
    good = torch.zeros(14, 7)
    with pytest.raises(AutoReIDError, match=r"alpha_reduce has shape \(14, 6\).*\(14, 7\)"):
        derive(good, torch.zeros(14, 6), "reid")
    bad = good.clone()
    bad[3, 3] = math.nan
    with pytest.raises(AutoReIDError, match="alpha_normal has NaN or infinite values"):
        derive(bad, good, "reid")


def test_entropy() -> None:
    assert alpha_entropy(torch.zeros(14, 7)) == pytest.approx(math.log(7))
    decided = torch.zeros(14, 7)
    decided[:, 2] = 1e4
    assert alpha_entropy(decided) == pytest.approx(0)
    half_decided = decided.clone()
    half_decided[:7, 3] = 1e4
    assert alpha_entropy(half_decided) == pytest.approx(math.log(2) / 2)
