"""Progress on the console: a bar in a terminal, plain lines elsewhere."""

from io import StringIO

import pytest
import torch
from rich.console import Console

from autoreid_fast import progress


def output(monkeypatch: pytest.MonkeyPatch, terminal: bool, steps: int = 4) -> str:
    stream = StringIO()
    console = Console(file=stream, force_terminal=terminal, width=200, color_system=None)
    monkeypatch.setattr(progress, "console", console)
    with progress.epoch_progress("search", 2, 5, 32) as show:
        for step in range(1, steps + 1):
            show(step, steps, torch.tensor(step / 2))
    return stream.getvalue()


def test_a_long_epoch_prints_plain_lines_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    lines = output(monkeypatch, terminal=False).splitlines()
    assert len(lines) == 4
    for step, line in enumerate(lines, 1):
        assert line.startswith(f"search epoch 3/5, step {step}/4  loss {step / 2:.3f}  ")
        for part in ("images/s", "GiB", "left"):
            assert part in line


def test_a_short_epoch_prints_nothing_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert output(monkeypatch, terminal=False) == ""


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "REFRESH_EVERY", 0.0)
    text = output(monkeypatch, terminal=True)
    for part in ("search epoch 3/5", "4/4", "loss 2.000", "images/s", "GiB", "left"):
        assert part in text


def test_the_loss_is_read_only_when_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading it waits for the GPU."""

    class Unreadable:
        def __float__(self) -> float:
            raise AssertionError("the loss was read")

    monkeypatch.setattr(progress, "console", Console(file=StringIO(), force_terminal=True))
    monkeypatch.setattr(progress, "REFRESH_EVERY", 1e6)
    with progress.epoch_progress("train", 0, 1, 8) as show:
        show(1, 2, Unreadable())  # type: ignore[arg-type]


@pytest.mark.parametrize("terminal", [False, True])
def test_a_task_without_epochs_shows_how_much_is_done(
    monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    """Brackets in a name are not markup."""
    stream = StringIO()
    console = Console(file=stream, force_terminal=terminal, width=200, color_system=None)
    monkeypatch.setattr(progress, "console", console)
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    name = "decoding photos [2019]"
    with progress.progress_bar(name) as show:
        for done in (1000, 2000, 3000):
            show(done, 3000)
    if terminal:
        assert name in stream.getvalue() and "3000/3000" in stream.getvalue()
    else:
        assert stream.getvalue() == f"{name}: 1,000 of 3,000\n{name}: 2,000 of 3,000\n"
