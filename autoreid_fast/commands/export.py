"""`export`: write a trained network as ONNX, torch.export or safetensors."""

import logging
from pathlib import Path

from autoreid_fast.commands.options import parse, run_as_argument, show
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import is_stream, require_file
from autoreid_fast.inference.export import SUFFIX, Format, export
from autoreid_fast.inference.loading import load
from autoreid_fast.inference.model_card import LICENSE
from autoreid_fast.runs.folder import RunFolder

logger = logging.getLogger("autoreid_fast")


def run_export(arguments: list[str]) -> int:
    """Parse and run `export`."""
    parse(export_network, "export", run_as_argument(arguments))
    return 0


def export_network(
    run: Path, /, format: Format = "onnx", out: Path | None = None, license: str = LICENSE
) -> None:
    """Export a trained network, check it against PyTorch, and write its model card as JSON.

    ONNX and torch.export files map normalised images (batch, 3, height, width) in float32 to features
    (batch, D) of length 1, for any batch size. safetensors files are for `search-gallery` and
    `autoreid_fast.load`.

    Args:
        run: --run or the first argument: run folder of a training, one of its checkpoints
            (RUN/checkpoints/best.pt), or a .safetensors file written by this command.
        format: onnx (needs `pip install 'autoreid_fast[export]'`), torch (a .pt2 file) or safetensors.
        out: File to write, with the model card next to it; default: RUN/export/model (of a checkpoint:
            model-best) plus the suffix of the format. A pipe or a device, such as /dev/stdout, receives the
            file only, which holds the model card, too.
        license: Licence of the weights, for the model card; a .safetensors file keeps its own.
    """
    path = out or _default_output(run).with_suffix(SUFFIX[format])
    to_file = not is_stream(path)
    if to_file and path.suffix != SUFFIX[format]:
        raise AutoReIDError(f"out {path}: a file of format {format} must end in {SUFFIX[format]}")
    require_file(path)
    difference = export(load(run, "cpu", license), format, path)
    tell = show if to_file else logger.info  # standard output may be the file
    if difference is not None:
        tell(f"largest difference from PyTorch on random images: {difference:.1e}")
    if to_file:
        tell(f"{path} ({path.stat().st_size / 1e6:.1f} MB) and {path.with_suffix('.json').name}")


def _default_output(source: Path) -> Path:
    run = RunFolder.of(source)
    folder = run.path if run.path.is_dir() else source.parent
    return folder / "export" / ("model" if run.chosen is None else f"model-{run.chosen.stem}")
