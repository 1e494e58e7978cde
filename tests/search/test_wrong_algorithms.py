"""A wrong search algorithm is named, before work starts where possible; so are configs of another command."""

from pathlib import Path
from typing import Any

import pytest
import torch

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.models.backbones.resnet import ResNet
from autoreid_fast.nas import SourceSupernet, Supernet
from autoreid_fast.search import SearchAlgorithm, SearchConfig, register_search_algorithm, search
from autoreid_fast.search.algorithm import algorithm_class, build_algorithm, build_supernet
from autoreid_fast.search.run import Search
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
    with pytest.raises(AutoReIDError, match=r"config is a TrainConfig; expected SearchConfig"):
        search(TrainConfig(), tmp_path)  # type: ignore[arg-type]
    for command, name in ((train, "TrainConfig"), (pretrain, "PretrainConfig")):
        with pytest.raises(AutoReIDError, match=f"config is a dict; expected {name}"):
            command({"epochs": 1}, tmp_path)  # type: ignore[operator]
    for folder in ("", None):
        with pytest.raises(AutoReIDError, match="expected the path of a run folder"):
            train(TrainConfig(), folder)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


CPU = torch.device("cpu")


class Plain(SearchAlgorithm):
    @classmethod
    def build_supernet(cls, config: SearchConfig) -> Supernet:
        return SourceSupernet(3, (1, 1, 1, 1), config.space)


def odd(**methods: Any) -> type[SearchAlgorithm]:
    """A class of this module with these methods."""
    return type(Plain)("Odd", (Plain,), {"__module__": __name__, **methods})


@pytest.mark.parametrize(
    ("supernet", "words"),
    [
        (lambda cls, config: None, "build_supernet returned NoneType; expected a Supernet"),
        (lambda cls, config: torch.nn.Linear(2, 2), "build_supernet returned Linear; expected"),
        (lambda cls, config: ResNet(18, 2), "build_supernet returned ResNet without alpha_normal, alpha_red"),
        (lambda cls, config: config.no_such_field, r"raises AttributeError.*test_wrong_algorithms\.py, line"),
        (lambda cls: None, "raises TypeError"),
    ],
)
def test_what_is_no_supernet(supernet: Any, words: str) -> None:
    register_search_algorithm("odd-net")(odd(build_supernet=classmethod(supernet)))
    with pytest.raises(AutoReIDError, match=f"search algorithm odd-net:? {words}"):
        build_supernet(SearchConfig(algorithm="odd-net"))


def test_parameters_that_the_package_does_not_give() -> None:
    @register_search_algorithm("bare")
    class Bare(Plain):
        def __init__(self, config: SearchConfig) -> None: ...

    words = r"algorithm bare \(.*\.py:\d+\): cannot be called with \(SearchConfig, int, device\): too many"
    with pytest.raises(AutoReIDError, match=words):
        build_algorithm(SearchConfig(algorithm="bare"), 4, CPU)


def searching(**methods: Any) -> Search:
    """A search on no data whose algorithm has these methods."""
    register_search_algorithm("odd")(odd(**methods))
    made = Search.__new__(Search)
    made.config = SearchConfig(algorithm="odd", embedding_dim=2)
    made.algorithm = build_algorithm(made.config, 2, CPU)
    return made


def raises(self: Any, train: Any, val: Any) -> Any:
    return [][1]


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (lambda self, train, val: None, "step returned NoneType; expected the losses of omega and of alpha"),
        (lambda self, train, val: (torch.zeros(()),), r"step returned Tensor \(\); expected"),
        (lambda self, train, val: (torch.zeros(()), 1.0), r"step returned Tensor \(\), float; expected"),
        (lambda self, train, val: (torch.zeros(3),) * 2, r"step returned Tensor \(3,\), Tensor \(3,\); exp"),
        (raises, r"raises IndexError: list index out of range in .*test_wrong_algorithms\.py, line"),
    ],
)
def test_steps_that_return_something_else(step: Any, words: str) -> None:
    with pytest.raises(AutoReIDError, match=f"search algorithm odd:? {words}"):
        searching(step=step)._step((), ())  # type: ignore[arg-type]


def test_what_is_no_genotype() -> None:
    with pytest.raises(AutoReIDError, match="algorithm odd: genotype returned dict; expected a Genotype"):
        searching(genotype=lambda self: {}).genotype()
    assert len(searching().genotype().normal) == 4
