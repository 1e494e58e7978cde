"""What is no complete search algorithm is named before work starts; so are configs of another command."""

from pathlib import Path

import pytest

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.search import SearchAlgorithm, SearchConfig, register_search_algorithm, search
from autoreid_fast.search.algorithm import algorithm_class
from autoreid_fast.training import TrainConfig, pretrain, train


def test_without_build_supernet() -> None:
    @register_search_algorithm("incomplete")
    class Incomplete(SearchAlgorithm):
        pass

    with pytest.raises(AutoReIDError, match="incomplete: Incomplete does not define build_supernet"):
        algorithm_class(SearchConfig(algorithm="incomplete"))


def test_another_class() -> None:
    @register_search_algorithm("another")
    class Another:
        def __init__(self, config: SearchConfig) -> None: ...

    with pytest.raises(AutoReIDError, match="algorithm another: expected a subclass of SearchAlgorithm"):
        algorithm_class(SearchConfig(algorithm="another"))


def test_configs_and_folders_of_another_type(tmp_path: Path) -> None:
    with pytest.raises(AutoReIDError, match=r"config is a TrainConfig; expected a SearchConfig"):
        search(TrainConfig(), tmp_path)  # type: ignore[arg-type]
    for command, name in ((train, "TrainConfig"), (pretrain, "PretrainConfig")):
        with pytest.raises(AutoReIDError, match=f"config is a dict; expected a {name}"):
            command({"epochs": 1}, tmp_path)  # type: ignore[operator]
    for folder in ("", None):
        with pytest.raises(AutoReIDError, match="expected the path of a run folder"):
            train(TrainConfig(), folder)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
