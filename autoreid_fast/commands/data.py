"""`data synth`, `data check`, `data cache`: make, check and decode data sets."""

from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import Field, create_model

from autoreid_fast.commands.forms import form_of
from autoreid_fast.commands.options import parse, show
from autoreid_fast.configs import from_values
from autoreid_fast.data.check import check_dataset
from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.load import decoded, load_dataset
from autoreid_fast.data.synthetic import SyntheticConfig, generate
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.progress import progress_bar

SyntheticOptions = Annotated[SyntheticConfig, tyro.conf.arg(name="")]  # options without a prefix
ACTIONS = ("synth", "check", "cache")


def run_data(arguments: list[str]) -> int:
    """Make, check or cache a data set."""
    action, arguments = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if action in ("-h", "--help"):
        show(
            "usage: autoreid-fast data ACTION ...\n\n"
            "  synth   write synthetic pedestrians as JPEG files in the layout of Market-1501\n"
            "  check   count the images of a data set and list its problems\n"
            "  cache   decode a data set once, as search and train do before their first epoch"
        )
        return 0
    if action not in ACTIONS:
        raise AutoReIDError(f"unknown action {action!r} of data: expected one of {', '.join(ACTIONS)}")
    {"synth": _synth, "check": _check, "cache": _cache}[action](arguments)
    return 0


def synthesize(out: Path, config: SyntheticConfig) -> None:
    """Generate with a progress bar."""
    with progress_bar("drawing pedestrians") as show_done:
        generate(out, config, show_done)


def _synth(arguments: list[str]) -> None:
    def command(out: Path, /, config: SyntheticOptions = SyntheticConfig()) -> None:  # noqa: B008 (immutable)
        """Write synthetic pedestrians as JPEG files in the layout of Market-1501.

        Args:
            out: Folder to write; one that is already complete is left as it is.
            config: What to draw.
        """
        synthesize(out, config)
        show(str(out))

    parse(command, "data synth", arguments)


def _check(arguments: list[str]) -> None:
    decode = (bool, Field(False, description="Decode every image, not only the first of each split."))
    about = "Count the images of a data set and list its problems."
    config, options = _parse_data(about, "check", arguments, {"decode": decode})
    with progress_bar("decoding") as show_done:
        report = check_dataset(config, options.decode, show_done)
    show(report.table())
    if report.failure:
        raise AutoReIDError(report.failure)


def _cache(arguments: list[str]) -> None:
    about = "Decode a data set once, as search and train do before their first epoch."
    config, _ = _parse_data(about, "cache", arguments, {})
    dataset = load_dataset(config)
    for records in (dataset.train, dataset.query, dataset.gallery):
        show(f"{len(records):8,} images: {decoded(dataset, records, config).path}")


def _parse_data(
    about: str, action: str, arguments: list[str], more: dict[str, Any]
) -> tuple[DataConfig, Any]:
    """Parse the fields of a data set as options (``--root FOLDER``), and ``more``."""
    form = form_of(DataConfig(), arguments)
    data = (Annotated[type(form), tyro.conf.arg(name="")], Field(form, description="The data set."))
    fields: dict[str, Any] = {"data": data, **more}
    options = parse(create_model("Options", __doc__=about, **fields), f"data {action}", arguments)
    return from_values(DataConfig, options.data.model_dump(), f"data {action}"), options
