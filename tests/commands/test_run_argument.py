"""Every command names a run alike: by ``--run`` or as the first argument, with ``~`` for the home folder."""

from pathlib import Path

import pytest

from autoreid_fast.cli import main
from autoreid_fast.configs import load_config
from autoreid_fast.runs.folder import RunFolder
from autoreid_fast.training.config import TrainConfig

WAYS = [
    "{command} RUN {more}",
    "{command} --run RUN {more}",
    "{command} --run=RUN {more}",
    "{command} {more} --run RUN",
]
COMMANDS = {
    "export": "--format torch",
    "report": "--beside other",
    "derive": "--out genotype.json",
    "eval": "--rerank",
    "extract": "--device cpu",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_is_named_in_one_way(
    command: str,
    way: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    line = way.format(command=command, more=COMMANDS[command]).replace("RUN", "nowhere")
    assert main(line.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("autoreid-fast: nowhere") and error.count("\n") == 1


@pytest.mark.parametrize("command", ["export", "report", "derive", "eval", "extract"])
def test_the_home_folder(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for words in (["~/lost"], ["--run", "~/lost"], ["--run=~/lost"]):
        assert main([command, *words]) == 2
        assert f"autoreid-fast: {tmp_path}/lost" in capsys.readouterr().err


def test_the_home_folder_in_yaml_and_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "my.yaml"
    file.write_text(
        "data:\n  kind: market1501\n  root: ~/Market\n  distractors: ~/more\npretrained: ~/resnet.pth\n"
    )
    config = load_config(TrainConfig, str(file), "train")
    assert config.data.root == tmp_path / "Market"
    assert config.data.model_dump()["distractors"] == tmp_path / "more"
    assert config.pretrained == tmp_path / "resnet.pth"
    assert TrainConfig(data={"root": "~/a~b/~"}).data.root == tmp_path / "a~b" / "~"  # type: ignore[arg-type]
    assert RunFolder("~/run").config == tmp_path / "run" / "config.yaml"
    assert RunFolder.of("~/run/checkpoints/best.pt").chosen == tmp_path / "run" / "checkpoints" / "best.pt"
