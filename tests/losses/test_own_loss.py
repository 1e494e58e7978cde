"""A user's loss in one file outside the package, from the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from autoreid_fast.cli import main

MODULE = '''
"""A loss of one's own."""

from pydantic import Field
from torch import Tensor, nn

from autoreid_fast.losses import BatchHardTriplet, LossTerms, ObjectiveConfig, register_loss


class SmoothConfig(ObjectiveConfig):
    """Cross entropy with label smoothing, plus batch-hard."""

    smoothing: float = Field(0.1, ge=0, lt=1, description="Label smoothing.")


@register_loss("smooth")
class SmoothLoss(nn.Module):
    """Cross entropy with label smoothing, plus batch-hard."""

    def __init__(self, config: SmoothConfig) -> None:
        super().__init__()
        self.identity = nn.CrossEntropyLoss(label_smoothing=config.smoothing)
        self.triplet = BatchHardTriplet()

    def forward(self, feature: Tensor, logits: Tensor, labels: Tensor) -> LossTerms:
        identity, triplet = self.identity(logits, labels), self.triplet(feature, labels)
        return LossTerms(identity + triplet, {"smooth": identity, "triplet": triplet})
'''


def test_it_trains(
    own_module: Callable[[str], None],
    own_images: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("autoreid_fast.commands.train.draw_report", lambda folder: None)
    own_module(MODULE)
    line = ["train", "--import", "mine", *own_images, "--network", "resnet18", "--channels", "2"]
    line += ["--objective.loss", "smooth", "--objective.smoothing", "0.2", "--device", "cpu"]
    line += ["--epochs", "2", "--batch.identities", "2", "--batch.images", "2", "--run", "run"]
    assert main(line) == 0
    recorded = yaml.safe_load(Path("run/config.yaml").read_text(encoding="utf-8"))
    assert recorded["objective"] == {"loss": "smooth", "smoothing": 0.2}
    for epoch in json.loads(Path("run/history.json").read_text(encoding="utf-8")):
        assert epoch["loss"] == pytest.approx(epoch["smooth"] + epoch["triplet"])


def test_its_options_are_explained_and_checked(
    own_module: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    own_module(MODULE)
    with pytest.raises(SystemExit) as end:
        main(["train", "--import", "mine", "--objective.loss", "smooth", "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "--objective.smoothing FLOAT" in shown
    assert "--objective.margin" not in shown
    assert main(["train", "--import", "mine", "--objective.loss", "smoth"]) == 2
    assert "unknown loss 'smoth': did you mean smooth?" in capsys.readouterr().err
