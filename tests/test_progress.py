"""What a run says while an epoch lasts: a bar in a terminal, plain lines elsewhere."""

from io import StringIO

import pytest
import torch
from rich.console import Console

from autoreid_fast import progress


def said(monkeypatch: pytest.MonkeyPatch, terminal: bool, steps: int = 4) -> str:
    stream = StringIO()
    monkeypatch.setattr(
        progress, "console", Console(file=stream, force_terminal=terminal, width=200, color_system=None)
    )
    with progress.epoch_progress("search", 2, 5, 32) as show:
        for step in range(1, steps + 1):
            show(step, steps, torch.tensor(step / 2))
    return stream.getvalue()


def test_a_long_epoch_says_plain_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    lines = said(monkeypatch, terminal=False).splitlines()
    assert len(lines) == 4
    for step, line in enumerate(lines, 1):
        assert line.startswith(f"search epoch 3/5, step {step}/4  loss {step / 2:.3f}  ")
        for word in ("images/s", "GiB", "left"):
            assert word in line


def test_a_short_one_says_nothing_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(monkeypatch, terminal=False) == ""


def test_a_terminal_has_a_bar_with_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOOK_EVERY", 0.0)
    text = said(monkeypatch, terminal=True)
    for word in ("search epoch 3/5", "4/4", "loss 2.000", "images/s", "GiB", "left"):
        assert word in text


def test_the_loss_is_looked_at_no_more_often_than_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading it waits for the GPU: a step that shows nothing must not."""

    class Untouchable:
        def __float__(self) -> float:
            raise AssertionError("the loss was read")

    monkeypatch.setattr(progress, "console", Console(file=StringIO(), force_terminal=True))
    monkeypatch.setattr(progress, "LOOK_EVERY", 1e6)
    with progress.epoch_progress("train", 0, 1, 8) as show:
        show(1, 2, Untouchable())  # type: ignore[arg-type]


@pytest.mark.parametrize("terminal", [False, True])
def test_what_has_no_epochs_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    """A name in brackets is no markup."""
    stream = StringIO()
    console = Console(file=stream, force_terminal=terminal, width=200, color_system=None)
    monkeypatch.setattr(progress, "console", console)
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    with progress.progress_bar("decoding photos [2019]") as show_done:
        for done in (1000, 2000, 3000):
            show_done(done, 3000)
    if terminal:
        assert "decoding photos [2019]" in stream.getvalue() and "3000/3000" in stream.getvalue()
    else:
        name = "decoding photos [2019]"
        assert stream.getvalue() == f"{name}: 1,000 of 3,000\n{name}: 2,000 of 3,000\n"
