"""Steps captured in a CUDA graph: one launch for thousands of kernels, no Python and no host in between."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from autoreid_fast.errors import AutoReIDError

WARM_UP = 3
"""Steps that run as they are before the capture: what libraries and optimisers make once is made by then."""

Outputs = tuple[Tensor, ...]


class CapturedStep:
    """``step``, a function of tensors, run from a CUDA graph.

    The first calls run it as it is, and are steps like any other; the next one captures it; from then on a
    call copies its inputs into the graph's own and replays. So ``step`` must do the same work each time: it
    may not ask for a tensor's value, and what it reads besides its inputs (weights, moments, learning rates)
    must be tensors that stay where they are. Random numbers are fresh in each replay. The outputs are the
    caller's to keep; nothing here waits for the GPU.

    Raises:
        AutoReIDError: inputs of another shape than the first ones.
    """

    def __init__(self, step: Callable[..., Outputs]) -> None:
        self._step = step
        self._calls = 0
        self._inputs: Outputs = ()
        self._outputs: Outputs = ()
        self._replay: Callable[[], None] | None = None

    def __call__(self, *inputs: Tensor) -> Outputs:
        self._take(inputs)
        self._calls += 1
        if self._calls <= WARM_UP:
            return run_aside(self._on_own_inputs)
        if self._replay is None:
            self._replay, self._outputs = capture(self._on_own_inputs)
        self._replay()
        return tuple(output.clone() for output in self._outputs)

    def _on_own_inputs(self) -> Outputs:
        return self._step(*self._inputs)

    def _take(self, inputs: Outputs) -> None:
        if not self._inputs:
            self._inputs = tuple(torch.empty_like(tensor) for tensor in inputs)
        for own, given in zip(self._inputs, inputs, strict=True):
            if own.shape != given.shape:
                raise AutoReIDError(
                    f"a captured step takes batches of one shape, {tuple(own.shape)}, and got "
                    f"{tuple(given.shape)}: use execution eager"
                )
            own.copy_(given, non_blocking=True)


def run_aside(step: Callable[[], Outputs]) -> Outputs:
    """Run ``step`` on a stream of its own, as what is to be captured has to be warmed up."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), warnings.catch_warnings():
        # the optimisers warn that they are capturable and not captured: not yet
        warnings.filterwarnings("ignore", message=".*constructed with capturable=True")
        outputs = step()
    torch.cuda.current_stream().wait_stream(stream)
    return outputs


def capture(step: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
    """Record ``step`` without running it: what replays it, and where its outputs will be."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = step()
    return graph.replay, outputs
