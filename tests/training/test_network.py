"""Networks that start from a run: fine-tuning."""

from pathlib import Path

import pytest
import torch

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.runs.checkpoint import save_checkpoint
from autoreid_fast.runs.folder import RunFolder
from autoreid_fast.training.config import TrainConfig
from autoreid_fast.training.network import build_network, identities_of, initial_network


@pytest.mark.parametrize("tail", ["embedding", "hpm"])
def test_a_trained_run_gives_its_backbone(tmp_path: Path, tail: str) -> None:
    """The head is new: here are other people."""
    first = RunFolder(tmp_path / "first")
    config = TrainConfig(network="resnet18", channels=4, data={"height": 128, "width": 32})
    trained = build_network(config.model_copy(update={"tail": tail}), first, 3)
    first.record(config.model_dump(), "train")
    save_checkpoint(first.checkpoint, {"model": trained.state_dict(), "optimizer": {}, "epoch": 2})

    tuned = config.model_copy(update={"pretrained": first.path})
    network = initial_network(tuned, RunFolder(tmp_path / "second"), identities=9)
    expected, found = trained.backbone.state_dict(), network.backbone.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert identities_of(network.state_dict()) == 9

    first.checkpoint.unlink()
    with pytest.raises(AutoReIDError, match=r"no weights at .*last\.pt"):
        initial_network(tuned, RunFolder(tmp_path / "third"), identities=9)
