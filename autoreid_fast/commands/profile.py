"""`profile`: where the time of a search step goes."""

import os
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import Field, create_model

from autoreid_fast.commands.options import parse, show
from autoreid_fast.files import write_json
from autoreid_fast.report.step_table import step_table
from autoreid_fast.report.text_tables import plain_text
from autoreid_fast.search.profile import ProfileConfig, profile_step


def run_profile(arguments: list[str]) -> int:
    """Print a step pair's operations; with --out also write them as JSON and as a bar picture."""
    fields: dict[str, Any] = {
        "out": (
            Path | None,
            Field(None, description="Folder for profile.json, step.svg and step.png; default: only printed."),
        ),
        "fields": (Annotated[ProfileConfig, tyro.conf.arg(name="")], ProfileConfig()),
    }
    parsed: Any = parse(
        create_model("Options", __doc__=ProfileConfig.__doc__, **fields), "profile", arguments
    )
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or torch's profiler logs its own start and stop
    profiled = profile_step(parsed.fields)
    show(plain_text(step_table(profiled)))
    if parsed.out is not None:
        from autoreid_fast.report.plots.step_profile import step_figure
        from autoreid_fast.report.plots.theme import Drawing

        parsed.out.mkdir(parents=True, exist_ok=True)
        config = parsed.fields.model_dump(mode="json")
        write_json(parsed.out / "profile.json", {"config": config, **profiled.to_dict()})
        Drawing(step_figure(profiled)).save(parsed.out, "step")
        show(f"written to {parsed.out}")
    return 0
