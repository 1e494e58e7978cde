"""Export a trained network: one file that other programs or `load` read, and its model card beside it."""

from pathlib import Path
from typing import Literal

from autoreid_fast.files import is_stream, write_text
from autoreid_fast.inference.embedder import Embedder
from autoreid_fast.inference.formats import export_onnx, export_torch

Format = Literal["onnx", "torch", "safetensors"]
SUFFIX: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors"}


def export(embedder: Embedder, format: Format, path: Path) -> float | None:
    """Write a network to ``path``, and its model card as JSON to ``path`` with the suffix .json.

    The file holds the card, too. Beside a pipe or a device there is no file for it.

    Returns:
        the largest difference between the features of the file and of PyTorch on random images; None for
        safetensors, which holds the weights themselves.

    Raises:
        AutoReIDError: as `export_onnx`.
    """
    card = embedder.card
    fields = card.model_dump(mode="json")
    difference = None
    match format:
        case "safetensors":
            embedder.save(path)
        case "onnx":
            difference = export_onnx(embedder.network, card.input.height, card.input.width, path, fields)
        case "torch":
            difference = export_torch(embedder.network, card.input.height, card.input.width, path, fields)
    if not is_stream(path):
        write_text(path.with_suffix(".json"), card.model_dump_json(indent=2) + "\n")
    return difference
