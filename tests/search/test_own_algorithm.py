"""A user's search algorithm in one file outside the package, from the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from autoreid_fast.cli import main
from autoreid_fast.search import register_search_algorithm
from autoreid_fast.search.config import SearchConfig

MODULE = '''
"""A search algorithm of one's own."""

import torch
from pydantic import Field

from autoreid_fast.nas.supernet.source_supernet import SourceSupernet
from autoreid_fast.search import SearchAlgorithm, SearchConfig, register_search_algorithm


class DecisiveConfig(SearchConfig):
    """Search with a loss that rewards decisions."""

    entropy_weight: float = Field(0.1, ge=0, description="Weight of alpha's entropy in its loss.")


@register_search_algorithm("decisive")
class Decisive(SearchAlgorithm):
    """First-order DARTS; alpha also minimises the entropy of its softmax."""

    def __init__(self, config: DecisiveConfig, identities: int, device: torch.device) -> None:
        super().__init__(config, identities, device)
        self.entropy_weight = config.entropy_weight

    @classmethod
    def build_supernet(cls, config: DecisiveConfig) -> SourceSupernet:
        return SourceSupernet(config.channels, config.cells_per_block, config.space)

    def loss_of_alpha(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        entropies = [torch.distributions.Categorical(logits=alpha).entropy().mean() for alpha in self.alpha]
        return super().loss_of_alpha(batch) + self.entropy_weight * sum(entropies)
'''
SIZES = ["--channels", "2", "--cells-per-block", "1", "1", "1", "1", "--space", "standard", "--device", "cpu"]
BATCH = ["--batch.identities", "2", "--batch.images", "2", "--embedding-dim", "4"]


def test_it_searches_and_resumes(
    own_module: Callable[[str], None], own_images: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoreid_fast.commands.search.draw_report", lambda folder: None)
    own_module(MODULE)
    line = ["search", "--import", "mine", *own_images, *SIZES, *BATCH, "--algorithm", "decisive"]
    entropies = {}
    for weight in ("0", "100"):
        run = Path(f"run{weight}")
        assert main([*line, "--epochs", "2", "--entropy-weight", weight, "--run", str(run)]) == 0
        entropies[weight] = json.loads((run / "history.json").read_text())[-1]["entropy_normal"]
    assert entropies["100"] < entropies["0"]
    recorded = yaml.safe_load(Path("run100/config.yaml").read_text())
    assert (recorded["algorithm"], recorded["entropy_weight"]) == ("decisive", 100)
    assert "order" not in recorded and "gumbel" not in recorded

    own_module(MODULE)
    config = Path("run100/config.yaml")
    config.write_text(config.read_text().replace("epochs: 2", "epochs: 3"))
    assert main(["search", "--resume", "--run", "run100"]) == 0
    assert len(json.loads(Path("run100/history.json").read_text())) == 3
    assert main(["derive", "run100"]) == 0


def test_its_options_are_explained_and_checked(
    own_module: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    own_module(MODULE)
    with pytest.raises(SystemExit) as end:
        main(["search", "--import", "mine", "--algorithm", "decisive", "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "--entropy-weight FLOAT" in shown
    assert "--order" not in shown and "--gumbel.tau" not in shown
    assert main(["search", "--import", "mine", "--algorithm", "decisve"]) == 2
    assert "unknown search algorithm 'decisve': did you mean decisive?" in capsys.readouterr().err


def test_each_algorithm_has_its_own_options(capsys: pytest.CaptureFixture[str]) -> None:
    for algorithm, own, other in (("darts", "--order", "--gumbel.tau"), ("gdas", "--gumbel.tau", "--order")):
        with pytest.raises(SystemExit):
            main(["search", "--algorithm", algorithm, "--help"])
        shown = capsys.readouterr().out
        assert own in shown and other not in shown


def test_the_public_names_are_those_of_the_modules() -> None:
    import autoreid_fast.search as search_package
    import autoreid_fast.training as training_package

    assert search_package.SearchConfig is SearchConfig
    assert search_package.register_search_algorithm is register_search_algorithm
    for package in (search_package, training_package):
        for name in package.__all__:
            assert callable(getattr(package, name))
    assert not torch.cuda.is_initialized()
