"""The command line: help, exit status, one-line errors; `costs`, `models`, `data`, `doctor`."""

import json
import os
import re
import subprocess
import sys
from importlib import util
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import autoreid_fast.commands.search as search_command
from autoreid_fast import __version__, ops
from autoreid_fast.cli import COMMANDS, main
from autoreid_fast.models.registry import BACKBONES
from autoreid_fast.ops.library import LibraryStatus, OpStatus, Status

# Table 1 and the design: params in M, FLOPs in G
PUBLISHED = {
    "resnet18": (11.6, 1.7),
    "resnet34": (21.7, 3.4),
    "resnet50": (25.1, 3.8),
    "darts_v2": (9.1, 1.75),
    "gdas_v1": (13.5, 2.3),
    "autoreid_baseline": (11.9, 2.03),
    "autoreid_base_reid": (10.9, 1.7),
    "autoreid_retrieval": (11.4, 1.8),
}

Capture = pytest.CaptureFixture[str]


def refused(capsys: Capture, *arguments: str) -> str:
    """The last line of the error of an invalid command line."""
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[-1].startswith("autoreid-fast: ")
    assert "Traceback" not in captured.err
    return lines[-1]


def test_help_lists_every_command(capsys: Capture) -> None:
    for line in ([], ["--help"], ["-h"]):
        assert main(line) == 0
        out = capsys.readouterr().out
        for name, command in COMMANDS.items():
            assert f"  {name} " in out
            assert command.help in out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"autoreid-fast {__version__}\n"


@pytest.mark.parametrize("command", [*COMMANDS, "data synth", "data check", "data cache"])
def test_help_of_each_command_has_defaults(command: str, capsys: Capture) -> None:
    try:
        assert main([*command.split(), "--help"]) == 0
    except SystemExit as end:
        assert end.code == 0
    out = capsys.readouterr().out
    assert f"usage: autoreid-fast {command}" in out
    assert "(default:" in out or command in ("data", "doctor")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("search", ["--omega.learning-rate", "0.1", "(paper: 200)", "market1501-search", "--resume"]),
        ("train", ["--decay-epochs", "80 150", "(paper: 0.0035)", "market1501-train", "--pretrained"]),
    ],
)
def test_help_gives_the_papers_values(command: str, expected: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    out = capsys.readouterr().out
    for text in expected:
        assert text in out


def test_a_preset_changes_the_defaults_in_the_help(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["search", "--config", "pku-search", "--help"])
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Epochs (paper: 200). (default: 12)" in out
    assert "(paper: 0.1). (default: 0.05)" in out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "no command 'nonsense'; expected one of demo, search,"),
        ("serach", "no command 'serach'; did you mean search?"),
        ("data nonsense", "unknown action 'nonsense' of data"),
        ("data check", "data.root is not set"),
        ("data check --root nowhere", "nowhere"),
        ("search", "data.root is not set"),
        ("search --data.root nowhere", "nowhere"),
        ("search --epochs 0", "--epochs: expected a value greater than or equal to 1, got 0"),
        ("search --config nowhere.yaml", "nowhere.yaml"),
        ("search --config market1501-train", "a config of `train`, expected one of `search`"),
        ("search --data.height 64 --data.root x", "part_aware would get 2 rows"),
        ("search --channels 2 --data.root x", "at least 3 channels"),
        ("train --config demo-search", "a config of `search`, expected one of `train`"),
        ("train --data.root nowhere --network darts_v3", "nowhere"),
        ("derive nowhere", "nowhere holds no run"),
        ("eval", "eval needs --run"),
        ("eval --run nowhere", "nowhere holds no run"),
        ("eval --features nowhere", "nowhere"),
        ("costs darts_v3", "unknown backbone 'darts_v3': did you mean darts_v1 or darts_v2?"),
        ("costs nowhere.json", "nowhere.json"),
        ("costs autoreid_retrieval --height 32", "part_aware"),
        ("costs darts_v2 --channels 1", "channels 1"),
        ("costs resnet18 --height 0", "height 0: expected a number of at least 1"),
        ("costs darts_v2 --num-classes 0", "num_classes 0: expected a number of at least 1"),
        ("models --width 0", "width 0: expected a number of at least 1"),
        ("bench nonsense", "no benchmark case 'nonsense'"),
    ],
)
def test_invalid_input_is_one_line(line: str, message: str, capsys: Capture) -> None:
    assert message in refused(capsys, *line.split())


def test_the_folder_of_a_refused_run_can_be_used_again(
    data: list[str], tmp_path: Path, capsys: Capture
) -> None:
    run = tmp_path / "run"
    assert "no such folder" in refused(capsys, "search", "--data.root", "nowhere", "--run", str(run)).lower()
    too_many = ["--batch.identities", "7", "--run", str(run)]
    assert "identities_per_batch (batch.identities) 7: expected at most 6" in refused(
        capsys, "search", *data, *too_many
    )
    assert not (run / "config.yaml").exists()


def test_an_invalid_network_is_found_before_images_are_decoded(
    data: list[str], tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "search").mkdir()
    for network, message in [
        ("darts_v3", "unknown backbone 'darts_v3'"),
        (str(tmp_path / "search"), "no genotype.json in it"),
        ("resnet50", "no weights at gone.pt"),
    ]:
        weights = ["--pretrained", "gone.pt"] if network == "resnet50" else []
        cache = ["--data.cache-dir", str(tmp_path / "cache")]
        assert message in refused(capsys, "train", *data, *cache, "--network", network, *weights)
    assert not (tmp_path / "cache").exists()


def test_an_unwritable_output_is_one_line(searched: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "found.json"
    assert main(["derive", str(searched), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / "file") in error
    assert error.count("\n") == 1


def test_an_unwritable_run_folder_is_one_line(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").write_text("")
    for run in ("file", "file/run"):
        assert "cannot write the run folder" in refused(capsys, "train", "--run", str(tmp_path / run))


@pytest.mark.parametrize(("command", "can_resume"), [("search", True), ("derive", False)])
def test_an_interrupt_says_how_to_resume(
    command: str, can_resume: bool, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(search_command, COMMANDS[command].function, interrupted)
    assert main([command]) == 130
    error = capsys.readouterr().err
    assert "interrupted" in error
    assert ("--resume" in error) == can_resume


@pytest.mark.parametrize("argument", ["--help", "a-command"])
def test_a_closed_pipe_is_not_an_error(argument: str) -> None:
    """A pipe whose reader has ended, as in `autoreid-fast --help | true`."""
    program = (
        "import sys; from autoreid_fast import cli; "
        "cli._run = lambda name, arguments, plugins: cli._print('output of a command'); "
        f"sys.exit(cli.main(['{argument}']))"
    )
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        [sys.executable, "-c", program], stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert (process.returncode, process.stderr) == (0, b"")


def test_a_run_records_the_values_of_options_preset_and_defaults(
    data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(search_command, "search", lambda config, run, observe: seen.append(config))
    line = ["search", "--config", "pku-search", *data, "--epochs", "5", "--omega.momentum", "0.5"]
    assert main([*line, "--run", str(tmp_path / "run")]) == 0
    recorded = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (recorded["command"], recorded["epochs"], recorded["omega"]["momentum"]) == ("search", 5, 0.5)
    assert recorded["omega"]["learning_rate"] == 0.05  # from the preset
    assert recorded["alpha"]["learning_rate"] == 0.02  # the default
    assert (seen[0].epochs, seen[0].data.kind, seen[0].data.max_unreadable_share) == (5, "synthetic", 0)


def test_data_synth_check_and_cache(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "set"
    line = ["data", "synth", str(out), "--train-identities", "2", "--test-identities", "2", "--cameras", "2"]
    assert main([*line, "--junk", "1", "--distractors", "2"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    options = ["--kind", "synthetic", "--root", str(out), "--height", "32", "--width", "16"]
    assert main(["data", "check", *options, "--decode"]) == 0
    found = capsys.readouterr().out
    folders = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
    images = {split: len(list((out / folder).glob("*.jpg"))) for split, folder in folders.items()}
    rows = {line.split()[0]: line.split()[1:] for line in found.splitlines()[2:5]}
    assert {split: int(row[0]) for split, row in rows.items()} == images
    assert rows["gallery"][3:] == ["2", "1"]
    assert "unreadable images: 0" in found
    assert main(["data", "cache", *options, "--cache-dir", str(tmp_path / "cache")]) == 0
    for line, count in zip(capsys.readouterr().out.splitlines(), images.values(), strict=True):
        number, path = line.split(" images: ")
        assert int(number) == count
        assert Path(path).stat().st_size > count * 32 * 16 * 3


@pytest.mark.parametrize("network", BACKBONES.names())
def test_costs_as_json(network: str, capsys: Capture) -> None:
    assert main(["costs", network, "--json"]) == 0
    counted = json.loads(capsys.readouterr().out)
    assert 5 < counted["params_M"] < 30
    assert 1 < counted["flops_G"] < 5
    assert counted["activation_MB"] > 0


def test_models_lists_every_network_with_its_costs(capsys: Capture) -> None:
    assert main(["models"]) == 0
    rows = {line.split()[0]: line.split()[1:3] for line in capsys.readouterr().out.splitlines()[3:]}
    assert list(rows) == list(BACKBONES.names())
    for name, (params, flops) in PUBLISHED.items():
        assert float(rows[name][0]) == pytest.approx(params, rel=0.01)
        assert float(rows[name][1]) == pytest.approx(flops, rel=0.08)
    options = ["--channels", "8", "--height", "128", "--json"]
    assert main(["models", *options]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert main(["costs", "autoreid_retrieval", *options]) == 0
    one = json.loads(capsys.readouterr().out)
    for figure in ("params_M", "flops_G", "activation_MB"):
        assert listed["autoreid_retrieval"][figure] == one[figure]


def test_costs_of_a_genotype_file(searched: Path, capsys: Capture) -> None:
    line = ["costs", str(searched / "genotype.json"), "--channels", "8"]
    assert main([*line, "--json"]) == 0
    counted = json.loads(capsys.readouterr().out)
    assert main(line) == 0
    assert f"{counted['params_M']:.3f}" in capsys.readouterr().out


def doctor(capsys: Capture) -> tuple[str, dict[str, list[str]]]:
    """The output, and the entries of each row by the row's name."""
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    rows = [re.split(r"  +", line.strip()) for line in out.splitlines()]
    return out, {row[0]: row[1:] for row in rows if len(row) > 1}


def test_doctor_shows_the_backend_of_each_op_and_gives_advice(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out, rows = doctor(capsys)
    names = {op.op.removesuffix("_backward") for op in ops.status().ops}
    assert names <= set(rows)
    assert all(rows[name][-1] == "-" for name in names), "no kernel runs where there is no device"
    assert len(out.splitlines()) < 60  # a screen
    with ops.backend("reference"):
        out, rows = doctor(capsys)
        assert rows["batch_hard"] == ["reference (asked for)"] * 2
        assert out.splitlines()[-1].startswith("AUTOREID_FAST_BACKEND makes all ops run on their PyTorch")
    missing = LibraryStatus("cpu", False, False, "not built")
    cuda = LibraryStatus("cuda", False, False, "not built")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    status = Status(
        (missing, cuda),
        (
            OpStatus("nearest", "cpu", "reference", "not built"),
            OpStatus("nearest", "cuda", "native", "", "Triton"),
        ),
    )
    monkeypatch.setattr(ops, "status", lambda: status)
    out, rows = doctor(capsys)
    assert rows["nearest"] == ["reference (not built)", "Triton"]
    assert "CPU kernels: " in out
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    out, _ = doctor(capsys)
    assert "For export, onnx, onnxruntime, onnxscript: pip install 'autoreid_fast[export]'" in out
    assert "CUDA kernels: with the CUDA toolkit's nvcc on PATH, AUTOREID_FAST_CUDA=1" in " ".join(out.split())


def test_doctor_shows_versions_and_libraries(capsys: Capture) -> None:
    out, rows = doctor(capsys)
    assert {"cpu", "cuda"} <= set(rows)
    for text in (
        f"autoreid_fast {__version__}",
        "torch ",
    ):
        assert text in out
