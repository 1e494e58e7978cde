"""`export`: a trained network as ONNX, torch.export or safetensors."""

from pathlib import Path

from autoreid_fast.commands.options import parse, show
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.inference.embedder import load
from autoreid_fast.inference.export import SUFFIX, Format, export
from autoreid_fast.inference.model_card import LICENSE


def run_export(arguments: list[str]) -> int:
    """Write a trained network for other programs, and its card."""

    def command(
        run: Path, /, format: Format = "onnx", out: Path | None = None, license: str = LICENSE
    ) -> None:
        """Write a trained network for other programs, checked against PyTorch, and its card as JSON.

        ONNX and torch.export files take normalised images (batch, 3, height, width) float32 and give features
        (batch, D) of length 1, for any batch. safetensors is what `search-gallery` and `autoreid_fast.load`
        read.

        Args:
            run: Run folder of a training, or a .safetensors file of this command.
            format: onnx (needs `pip install 'autoreid_fast[export]'`), torch (a .pt2) or safetensors.
            out: File to write; default: RUN/export/model with the format's suffix. The card lies beside it.
            license: What the card says of the weights' licence; a file keeps its own.
        """
        path = out or (run if run.is_dir() else run.parent) / "export" / f"model{SUFFIX[format]}"
        if path.suffix != SUFFIX[format]:
            raise AutoReIDError(f"out {path}: a file of format {format} ends with {SUFFIX[format]}")
        difference = export(load(run, "cpu", license), format, path)
        if difference is not None:
            show(f"largest difference from PyTorch on random images: {difference:.1e}")
        show(f"{path} ({path.stat().st_size / 1e6:.1f} MB), {path.with_suffix('.json').name} beside it")

    parse(command, "export", arguments)
    return 0
