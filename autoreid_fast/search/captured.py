"""Steps captured in a CUDA graph: one launch replays thousands of kernels, without Python in between."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from autoreid_fast.errors import AutoReIDError

WARM_UP = 3
"""Steps that run eagerly before the capture, in which libraries and optimisers allocate what they keep."""

Tensors = tuple[Tensor, ...]


class CapturedStep:
    """Run ``step``, a function of tensors, from a CUDA graph.

    The first `WARM_UP` calls run it eagerly, the next one captures it; from then on a call copies its inputs
    to those of the graph and replays it. Random numbers are fresh in each replay. Nothing waits for the GPU.

    Args:
        step: Function that does the same work in every call. It must not read a tensor's value on the host,
            and what it reads besides its inputs (weights, moments, learning rates) must be tensors that stay
            in place.

    Raises:
        AutoReIDError: inputs of another shape than in the first call.
    """

    def __init__(self, step: Callable[..., Tensors]) -> None:
        self._step = step
        self._calls = 0
        self._inputs: Tensors = ()
        self._outputs: Tensors = ()
        self._replay: Callable[[], None] | None = None

    def __call__(self, *inputs: Tensor) -> Tensors:
        self._copy_inputs(inputs)
        self._calls += 1
        if self._calls <= WARM_UP:
            return run_on_side_stream(self._step_on_static_inputs)
        if self._replay is None:
            self._replay, self._outputs = capture(self._step_on_static_inputs)
        self._replay()
        return tuple(output.clone() for output in self._outputs)

    def _step_on_static_inputs(self) -> Tensors:
        return self._step(*self._inputs)

    def _copy_inputs(self, inputs: Tensors) -> None:
        if not self._inputs:
            self._inputs = tuple(torch.empty_like(tensor) for tensor in inputs)
        for static, given in zip(self._inputs, inputs, strict=True):
            if static.shape != given.shape:
                raise AutoReIDError(
                    f"captured step: expected a batch of shape {tuple(static.shape)}, as in the first step, "
                    f"got {tuple(given.shape)}: use execution eager"
                )
            static.copy_(given, non_blocking=True)


def run_on_side_stream(step: Callable[[], Tensors]) -> Tensors:
    """Run ``step`` on a stream of its own, as the warm-up of a capture requires."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), warnings.catch_warnings():
        # capturable optimisers warn when they are not captured, which they are not yet
        warnings.filterwarnings("ignore", message=".*constructed with capturable=True")
        outputs = step()
    torch.cuda.current_stream().wait_stream(stream)
    return outputs


def capture(step: Callable[[], Tensors]) -> tuple[Callable[[], None], Tensors]:
    """Record ``step`` without running it; return the function that replays it, and its static outputs."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = step()
    return graph.replay, outputs
