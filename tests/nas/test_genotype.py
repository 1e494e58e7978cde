"""Genotypes: the published ones, JSON, and the errors for malformed ones."""

import json

import numpy as np
import pytest

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas.genotype import Edge, Genotype
from autoreid_fast.nas.published import GENOTYPES

NODES = [[["sep_conv_3x3", 0], ["skip_connect", 1]]] * 4


def genotype_json(**cells: object) -> str:
    return json.dumps({"normal": NODES, "reduce": NODES} | cells)


def test_published_genotypes() -> None:
    assert set(GENOTYPES) == {
        "darts_v1",
        "darts_v2",
        "gdas_v1",
        "autoreid_baseline",
        "autoreid_base_reid",
        "autoreid_retrieval",
    }
    retrieval = GENOTYPES["autoreid_retrieval"]
    assert retrieval.normal[0] == (("sep_conv_3x3", 0), ("skip_connect", 1))
    assert retrieval.reduce[0] == (Edge("max_pool_3x3", 0), Edge("part_aware", 1))
    assert GENOTYPES["gdas_v1"].reduce[2] == (Edge("dil_conv_5x5", 2), Edge("sep_conv_3x3", 1))


@pytest.mark.parametrize("name", GENOTYPES)
def test_json_round_trip(name: str, tmp_path) -> None:
    genotype = GENOTYPES[name]
    assert Genotype.from_json(genotype.to_json()) == genotype
    genotype.save(tmp_path / "genotype.json")
    loaded = Genotype.load(tmp_path / "genotype.json")
    assert loaded == genotype
    assert hash(loaded) == hash(genotype)
    assert isinstance(loaded.normal[0][0], Edge)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "keys"),
        ('{"normal": []}', "keys"),
        (genotype_json(extra=1), "keys"),
        (genotype_json(normal=NODES[:3]), "normal cell: expected a list of 4 nodes, got 3"),
        (genotype_json(reduce=5), "reduce cell: expected a list of 4 nodes, got int"),
        (genotype_json(normal=[*NODES[:3], NODES[0][:1]]), "normal cell, node 3: expected 2 edges"),
        (genotype_json(normal=[*NODES[:3], [["skip_connect", 0], "x"]]), "node 3: expected an edge"),
        (
            genotype_json(normal=[*NODES[:3], [["skip_connect", 0, 1], ["skip_connect", 0]]]),
            "node 3: expected an edge",
        ),
        (
            genotype_json(normal=[*NODES[:3], [["skip_connect", 0], ["sep_conv", 0]]]),
            "node 3: unknown operation 'sep_conv': did you mean sep_conv_",
        ),
        (
            genotype_json(normal=[*NODES[:3], [["skip_connect", 0], [["skip_connect"], 0]]]),
            r"node 3: expected an edge \[op, input\], got \[\[",
        ),
        (
            genotype_json(reduce=[[["none", 0], ["skip_connect", 1]], *NODES[1:]]),
            "reduce cell, node 0: unknown operation 'none'",
        ),
        (
            genotype_json(reduce=[NODES[0], [["skip_connect", 3], ["skip_connect", 1]], *NODES[2:]]),
            r"reduce cell, node 1: input 3 of skip_connect is out of range: use an integer 0 \.\. 2",
        ),
        (genotype_json(normal=[[["skip_connect", -1], ["skip_connect", 1]], *NODES[1:]]), "input -1"),
        (genotype_json(normal=[[["skip_connect", True], ["skip_connect", 1]], *NODES[1:]]), "input True"),
        (genotype_json(normal=[[["skip_connect", 0.0], ["skip_connect", 1]], *NODES[1:]]), "input 0.0"),
    ],
)
def test_malformed_json(text: str, message: str, tmp_path) -> None:
    with pytest.raises(AutoReIDError, match=message):
        Genotype.from_json(text)
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(AutoReIDError, match=r"broken\.json"):
        Genotype.load(path)


def test_unreadable_files(tmp_path) -> None:
    with pytest.raises(AutoReIDError, match=r"cannot read genotype .*absent\.json"):
        Genotype.load(tmp_path / "absent.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AutoReIDError, match=r"cannot read genotype .*binary\.json"):
        Genotype.load(tmp_path / "binary.json")


def test_inputs_may_be_numpy_integers(tmp_path) -> None:
    cell = [[("sep_conv_3x3", np.int64(0)), ("skip_connect", np.uint8(1))]] * 4
    genotype = Genotype(cell, cell)
    assert type(genotype.normal[0][1].input) is int
    genotype.save(tmp_path / "genotype.json")
    assert Genotype.load(tmp_path / "genotype.json") == genotype
    with pytest.raises(AutoReIDError, match="is out of range"):
        Genotype([[("skip_connect", np.float64(0)), ("skip_connect", 1)]] * 4, cell)
