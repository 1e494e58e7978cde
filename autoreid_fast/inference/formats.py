"""Write a network as a file that other tools run: ONNX and `torch.export`.

Both are traced with the references of our ops, so that neither file needs this package. Stack traces, which
name folders of this machine, are removed. Both files are read back and compared with PyTorch on random images
before they get their final name.
"""

import io
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import torch
from torch import Tensor

from autoreid_fast import ops
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import atomic_path
from autoreid_fast.models.precision import in_float32
from autoreid_fast.models.retrieval import RetrievalNetwork

TOLERANCE = 1e-4
"""Largest difference from PyTorch that is accepted, of features of length 1."""
INPUT, OUTPUT, BATCH = "images", "features", "batch"
CARD = "autoreid_fast"
"""Name of the model card: in the metadata of ONNX and safetensors; with .json, an extra file of a .pt2."""


def export_onnx(
    network: RetrievalNetwork, height: int, width: int, path: Path, card: dict[str, Any] | None = None
) -> float:
    """Write a network as ONNX, and check the file with onnxruntime.

    The file maps ``images`` (batch, 3, ``height``, ``width``) float32, normalised, of any batch size, to
    ``features`` (batch, D) float32 of length 1.

    Returns:
        the largest difference from PyTorch.

    Raises:
        AutoReIDError: onnx, onnxruntime or onnxscript is not installed, an operation does not exist in ONNX,
            the file and PyTorch differ by more than `TOLERANCE`, or the file cannot be written.
    """
    _require_onnx()
    network = _prepared(network)
    with _tracing():
        try:
            program = torch.onnx.export(
                network,
                (_images(2, height, width),),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: BATCH},),
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            raise AutoReIDError(f"{path}: this network cannot be written as ONNX ({reason})") from error
        assert program is not None
        for node in program.model.graph.all_nodes():
            node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)
        if card is not None:
            program.model.metadata_props[CARD] = json.dumps(card)
        with atomic_path(path) as temporary:
            program.save(str(temporary))
            return _checked(network, _onnx_runner(temporary), height, width, path)


def export_torch(
    network: RetrievalNetwork, height: int, width: int, path: Path, card: dict[str, Any] | None = None
) -> float:
    """Write a network for ``torch.export.load``, and check the file.

    Input and output are those of `export_onnx`.

    Returns:
        the largest difference from PyTorch.

    Raises:
        AutoReIDError: the file and PyTorch differ by more than `TOLERANCE`, or the file cannot be written.
    """
    network = _prepared(network)
    with _tracing():
        batch = torch.export.Dim(BATCH)
        program = torch.export.export(network, (_images(2, height, width),), dynamic_shapes=({0: batch},))
        for module in program.graph_module.modules():
            for node in getattr(module, "graph", torch.fx.Graph()).nodes:
                node.meta.pop("stack_trace", None)
        stream = io.BytesIO()
        torch.export.save(program, stream, extra_files={f"{CARD}.json": json.dumps(card)} if card else None)
        with atomic_path(path) as temporary:
            temporary.write_bytes(stream.getbuffer())
            with temporary.open("rb") as file:
                runner = torch.export.load(io.BytesIO(file.read())).module()
            return _checked(network, runner, height, width, path)


def _require_onnx() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            import_module(package)
        except ImportError as error:
            raise AutoReIDError(
                f"ONNX export needs {package} ({error}): pip install 'autoreid_fast[export]'"
            ) from None


def _prepared(network: RetrievalNetwork) -> RetrievalNetwork:
    """The network in eval mode, on the CPU, with contiguous weights: files have no memory format."""
    return network.eval().to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def _images(batch: int, height: int, width: int) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(batch))


@contextmanager
def _tracing() -> Iterator[None]:
    """Trace the references of our ops in float32, without gradients or the exporter's log and warnings."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with ops.backend("reference"), in_float32(), torch.no_grad(), catch_warnings():
        simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def _onnx_runner(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])


def _checked(
    network: RetrievalNetwork, exported: Callable[[Tensor], Tensor], height: int, width: int, path: Path
) -> float:
    """Largest difference on random images, in batches of other sizes than the traced one."""
    largest = 0.0
    for batch in (1, 3):
        images = _images(batch, height, width)
        expected, features = network(images), exported(images)
        if features.shape != expected.shape:
            raise AutoReIDError(
                f"{path}: its features have shape {tuple(features.shape)}; expected {tuple(expected.shape)}, "
                "as in PyTorch: not written"
            )
        largest = max(largest, float((features - expected).abs().max()))
    if not largest <= TOLERANCE:
        raise AutoReIDError(
            f"{path}: differs from PyTorch by {largest:.1e}, more than {TOLERANCE:g}: not written; "
            "please report the network and the versions of torch, onnx and onnxruntime"
        )
    return largest
