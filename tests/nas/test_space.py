"""Search spaces: those of the paper, users' own, and the errors for malformed ones."""

import pytest
from pydantic import TypeAdapter, ValidationError
from torch import nn

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas import space as search_spaces
from autoreid_fast.nas.operations.registry import OPERATIONS
from autoreid_fast.nas.space import EDGES, Space, edge_index, register_search_space, search_space
from autoreid_fast.nas.supernet.source_supernet import SourceSupernet
from autoreid_fast.nas.supernet.supernet import Supernet


@pytest.fixture(autouse=True)
def _spaces_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    OPERATIONS.names()  # registers the built-in ones
    monkeypatch.setattr(OPERATIONS, "_entries", dict(OPERATIONS._entries))
    monkeypatch.setattr(search_spaces, "_SPACES", dict(search_spaces._SPACES))


def test_spaces_of_the_paper() -> None:
    standard, reid = search_space("standard"), search_space("reid")
    assert len(standard) == 6
    assert set(reid) - set(standard) == {"part_aware"}
    with pytest.raises(AutoReIDError, match=r"'reID': did you mean reid\?"):
        search_space("reID")


def test_a_field_of_type_space_accepts_registered_names_only() -> None:
    assert TypeAdapter(Space).validate_python("standard") == "standard"
    with pytest.raises(ValidationError, match="unknown search space 'darts'"):
        TypeAdapter(Space).validate_python("darts")


def test_edges_are_numbered_by_node_then_input() -> None:
    indices = [edge_index(node, source) for node in range(4) for source in range(2 + node)]
    assert indices == list(range(EDGES)) == list(range(14))


def test_a_space_without_none_and_with_an_operation_of_ones_own() -> None:
    OPERATIONS.register("same")(lambda channels, stride, affine: nn.AvgPool2d(stride))
    operations = [*search_space("standard")[1:], "same"]
    register_search_space("mine", operations)
    assert search_space("mine") == tuple(operations)
    assert SourceSupernet(3, (1, 1, 1, 1), "mine").alpha_normal.shape == (14, 6)
    register_search_space("mine", operations)  # a notebook's cell, run twice


def test_an_unknown_space_may_come_from_an_installed_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        register_search_space("installed", ["none", "skip_connect"])

    monkeypatch.setattr(search_spaces, "load_entry_points", load)
    assert len(search_space("reid")) == 7 and "installed" not in search_spaces._SPACES
    assert search_space("installed") == ("none", "skip_connect")


@pytest.mark.parametrize(
    ("name", "operations", "message"),
    [
        ("mine", ["none", "conv_7x7"], "unknown operation 'conv_7x7'"),
        ("mine", ["skip_connect", "none"], "'mine': expected different operations.*skip_connect, none"),
        ("mine", ["skip_connect", "skip_connect"], "'mine': expected different operations"),
        ("mine", ["none"], "'mine': expected different operations"),
        ("reid", ["none", "skip_connect"], "'reid' is registered twice"),
    ],
)
def test_malformed_spaces(name: str, operations: list[str], message: str) -> None:
    with pytest.raises(AutoReIDError, match=message):
        register_search_space(name, operations)
    assert "mine" not in search_spaces._SPACES and len(search_space("reid")) == 7


def test_the_supernet_by_source_needs_the_standard_candidates() -> None:
    register_search_space("pools", ["none", "max_pool_3x3", "avg_pool_3x3", "skip_connect"])
    assert Supernet(3, (1, 1, 1, 1), "pools").alpha_normal.shape == (14, 4)
    with pytest.raises(AutoReIDError, match=r"'pools'.*needs sep_conv_3x3, dil_conv_3x3.*reference"):
        SourceSupernet(3, (1, 1, 1, 1), "pools")
