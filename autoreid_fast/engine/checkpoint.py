"""Checkpoints: everything that a run needs to go on exactly where it stopped."""

import io
from pathlib import Path
from typing import Any

import torch

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import atomic_path

FORMAT = 1


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, strings, containers of them) and the random states, atomically."""
    random = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random["cuda"] = torch.cuda.get_rng_state()
    stream = io.BytesIO()  # writing to a file, torch turns the error of a full disk into one of its own
    torch.save({"format": FORMAT, "random": random, **state}, stream)
    with atomic_path(path) as temporary:
        temporary.write_bytes(stream.getbuffer())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint as data, never as code.

    Raises:
        AutoReIDError: the file is missing, damaged, or of another format.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise AutoReIDError(
            f"{path}: no such checkpoint; its run has not finished an epoch: go on with it by --resume"
        ) from None
    except Exception as error:  # a damaged file fails in ways of its own
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise AutoReIDError(f"{path}: not a readable checkpoint ({reason})") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise AutoReIDError(f"{path}: not a checkpoint of this version of autoreid_fast (format {FORMAT})")
    return state


def misfit(error: Exception) -> str:
    """What does not fit, of an error that loading a state raised: its first line that names something."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(lines[1:2] or lines)[:200]


def restore_random_state(state: dict[str, Any]) -> None:
    """Set torch's random states to those of a loaded checkpoint."""
    torch.set_rng_state(state["random"]["cpu"])
    if "cuda" in state["random"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["random"]["cuda"])
