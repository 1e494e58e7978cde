"""A wrong command line ends with status 2 and one line that says what is wrong and what was expected."""

from pathlib import Path

import pytest

from autoreid_fast.cli import main


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train --epochs no", "train: --epochs: expected INT, got 'no'"),
        ("train --epochs", "train: --epochs: expected INT, got nothing"),
        ("train --epochs=many", "train: --epochs: expected INT, got 'many'"),
        ("train --epochs 0", "train: --epochs: expected a value greater than or equal to 1, got 0"),
        ("train --cells-per-block 1 2", "train: --cells-per-block: expected INT INT INT INT, got '1 2'"),
        ("train --cells_per_block 1 2", "train: --cells-per-block: expected INT INT INT INT, got '1 2'"),
        ("train --data.root", "train: --data.root: expected PATH, got nothing"),
        (
            "train --objective.triplet x",
            "train: --objective.triplet: expected one of hinge, printed, got",
        ),
        ("train --epoch 3", "train: unknown option --epoch, did you mean --epochs?"),
        ("train --data.hight=3", "train: unknown option --data.hight, did you mean --data.height?"),
        ("train --zzz", "train: unknown option --zzz, --help lists the options"),
        ("search --space Reid", "search: --space: unknown search space 'Reid': did you mean reid?\n"),
        (
            "search --space wide",
            "search: --space: unknown search space 'wide': expected one of standard, reid, or",
        ),
        ("train --lr 0.1", "train: unknown option --lr, did you mean --learning-rate?"),
        ("search --lr 1", "search: unknown option --lr, did you mean --omega.learning-rate or --alpha.learn"),
        ("train --batch-size 64", "train: unknown option --batch-size, did you mean --batch.images?"),
        (
            "train --batch.size 64",
            "train: unknown option --batch.size, expected one of --batch.identities, --b",
        ),
        (
            "train --data.workers 4",
            "train: unknown option --data.workers, expected one of --data.kind, --data.root, ",
        ),
        ("train --root x", "train: unknown option --root, did you mean --data.root?"),
        ("costs ResNet50", "unknown backbone 'ResNet50': did you mean resnet50?"),
        ("train --config Market1501-tran", "config Market1501-tran: No such file or directory; did you mean"),
        ("Train", "no command 'Train'; did you mean train?"),
        ("train market", "train: unexpected argument 'market'"),
        ("train --data.kind flat", "--data.kind: unknown data set 'flat': expected one of"),
        ("train --data.kind foldr", "--data.kind: unknown data set 'foldr': did you mean folder?"),
        ("train --data.boxes labeled", "--data.boxes: not an option of --data.kind market1501"),
        ("data check --kind folder --distractors=x", "--distractors: not an option of --kind folder"),
        ("derive", "derive: missing RUN (PATH): see autoreid-fast derive --help"),
        ("tables 9", "tables: NUMBER: expected one of 1, 2, 3, 4, 5, 6, got '9'"),
        ("train --config demo-train --config=x.yaml", "train: --config is given twice"),
        ("train --device mps", "train: --device: expected auto, cpu, cuda, or cuda:N"),
        ("tables 1 --jobs x", "tables: --jobs: expected INT, got 'x'"),
    ],
)
def test_one_line_says_what_is_wrong(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"autoreid-fast: {message}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_flags_can_be_set_and_unset_whatever_the_preset_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = tmp_path / "my.yaml"
    preset.write_text("amp: true\ndistributed: {sync_bn: false}\n", encoding="utf-8")
    for base in ([], ["--config", str(preset)]):
        for flags in (["--amp", "--distributed.sync-bn"], ["--no-amp", "--distributed.no-sync-bn"]):
            assert main(["pretrain", *base, *flags, "--epochs", "0"]) == 2
            assert "pretrain: --epochs: expected a value" in capsys.readouterr().err
