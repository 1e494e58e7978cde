"""Export a trained network: one file that other programs run or `load` reads, and its card beside it."""

from pathlib import Path
from typing import Literal

from autoreid_fast.files import write_text
from autoreid_fast.inference.embedder import Embedder
from autoreid_fast.inference.formats import export_onnx, export_torch

Format = Literal["onnx", "torch", "safetensors"]
SUFFIX: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors"}


def export(embedder: Embedder, format: Format, path: Path) -> float | None:
    """Write ``embedder`` to ``path``, and its card as JSON to ``path`` with the suffix .json.

    Returns the largest difference from PyTorch of an ONNX or torch.export file's features on random images;
    None for safetensors, which holds the weights themselves.

    Raises:
        AutoReIDError: as `export_onnx`.
    """
    card = embedder.card
    difference = None
    if format == "safetensors":
        embedder.save(path)
    else:
        write = export_onnx if format == "onnx" else export_torch
        size = (card.input.height, card.input.width)
        difference = write(embedder.network, *size, path, card.model_dump(mode="json"))
    write_text(path.with_suffix(".json"), card.model_dump_json(indent=2) + "\n")
    return difference
