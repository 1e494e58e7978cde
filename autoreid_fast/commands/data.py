"""`data synth`, `data check`, `data cache`: make, look through and decode data sets."""

from pathlib import Path
from typing import Annotated

import tyro

from autoreid_fast.commands.options import parse, show
from autoreid_fast.data.check import check_dataset
from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.decode import decoded
from autoreid_fast.data.load import load_dataset
from autoreid_fast.data.synthetic import SyntheticConfig, generate
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.progress import progress_bar

ACTIONS = ("synth", "check", "cache")

# no prefix: the fields are the options themselves, --root FOLDER
DataOptions = Annotated[DataConfig, tyro.conf.arg(name="")]
SyntheticOptions = Annotated[SyntheticConfig, tyro.conf.arg(name="")]


def run_data(arguments: list[str]) -> int:
    """Make, check or cache a data set."""
    action = arguments[0] if arguments else "--help"
    if action in ("-h", "--help"):
        show(
            "usage: autoreid-fast data ACTION ...\n\n"
            "  synth   write synthetic pedestrians as JPEG files in the layout of Market-1501\n"
            "  check   count what a data set holds and name what is wrong with it\n"
            "  cache   decode a data set once, as search and train would at their start"
        )
        return 0
    if action not in ACTIONS:
        raise AutoReIDError(f"no action {action!r} of data; there are {', '.join(ACTIONS)}")
    parse({"synth": synth, "check": check, "cache": cache}[action], f"data {action}", arguments[1:])
    return 0


def synth(out: Path, /, config: SyntheticOptions = SyntheticConfig()) -> None:  # noqa: B008 (immutable)
    """Write synthetic pedestrians as JPEG files in the layout of Market-1501.

    Args:
        out: Folder to write; one that is complete already is left as it is.
        config: What to draw.
    """
    synthesize(out, config)
    show(str(out))


def synthesize(out: Path, config: SyntheticConfig) -> None:
    """Generate with a bar."""
    with progress_bar("drawing pedestrians") as show_done:
        generate(out, config, show_done)


def check(data: DataOptions = DataConfig(), decode: bool = False) -> None:  # noqa: B008 (immutable)
    """Count what a data set holds and name what is wrong with it.

    Args:
        data: The data set.
        decode: Decode every image too.
    """
    with progress_bar("decoding") as show_done:
        report = check_dataset(data, decode, show_done)
    show(report.table())


def cache(data: DataOptions = DataConfig()) -> None:  # noqa: B008 (immutable)
    """Decode a data set once, as search and train would at their start.

    Args:
        data: The data set.
    """
    dataset = load_dataset(data)
    for records in (dataset.train, dataset.query, dataset.gallery):
        show(f"{len(records):8,} images: {decoded(dataset, records, data).path}")
