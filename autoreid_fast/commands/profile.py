"""`profile`: profile a search step."""

import os
from pathlib import Path
from typing import Annotated

import tyro

from autoreid_fast.commands.options import parse, show
from autoreid_fast.files import require_writable, write_json
from autoreid_fast.report.step_table import step_table
from autoreid_fast.report.text_tables import plain_text
from autoreid_fast.search.profile import ProfileConfig, StepProfile, profile_step

Fields = Annotated[ProfileConfig, tyro.conf.arg(name="")]


def run_profile(arguments: list[str]) -> int:
    """Parse and run `profile`."""
    parse(profile, "profile", arguments)
    return 0


def profile(config: Fields = ProfileConfig(), out: Path | None = None) -> None:  # noqa: B008 (immutable)
    """Profile a search step pair on random images: seconds, memory, and the time of each operation.

    Args:
        config: What to profile.
        out: Folder for profile.json, step.svg and step.png; default: print only.
    """
    if out is not None:
        require_writable(out)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silence the profiler's own log
    profiled = profile_step(config)
    show(plain_text(step_table(profiled)))
    if out is not None:
        _write(out, config, profiled)
        show(f"written to {out}")


def _write(out: Path, config: ProfileConfig, profiled: StepProfile) -> None:
    from autoreid_fast.report.plots.step_profile import step_figure  # imports matplotlib
    from autoreid_fast.report.plots.theme import Drawing

    write_json(out / "profile.json", {"config": config.model_dump(mode="json"), **profiled.to_dict()})
    Drawing(step_figure(profiled)).save(out, "step")
