"""Algorithm 1's step pair, omega and alpha: the supernet by source against the supernet edge by edge.

Both optimisers step with a learning rate of 0, so that every pair starts from the same weights.
"""

import functools
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas.macro import HEAD_STRIDE, block_shapes
from autoreid_fast.nas.space import EDGES, search_space
from autoreid_fast.nas.supernet.edge_cell import MixedOp
from autoreid_fast.nas.supernet.supernet import Supernet
from autoreid_fast.search.algorithm import SearchAlgorithm, build_algorithm
from autoreid_fast.search.captured import WARM_UP
from autoreid_fast.search.config import SearchConfig
from autoreid_fast.training.schedule import set_learning_rate

from .harness.case import Case, Variant, Work
from .harness.support.limit import within

CELLS = (2, 2, 2, 2)
IMAGES = 4
"""Images per identity."""
COMPILE_SECONDS = 300


def inputs(variant: Variant) -> tuple[Tensor, ...]:
    """Two batches of normal images (N, 3, H, W), channels_last, and labels (N,); a tensor (C, 0) for C."""
    channels, batch, height, width = (variant.sizes[name] for name in "CNHW")
    labels = torch.arange(batch) // IMAGES
    images = [torch.randn(batch, 3, height, width).to(memory_format=torch.channels_last) for _ in range(2)]
    return images[0], labels, images[1], labels.roll(1), torch.empty(channels, 0)


def pair(
    supernet: str, execution: str = "eager", compiled: bool = False
) -> Callable[..., tuple[Tensor, ...]]:
    """Step pair of a supernet: losses, and gradients of alpha and of the first and last weights."""

    @functools.cache
    def searcher_for(
        channels: int, identities: int, dtype: torch.dtype, device: torch.device
    ) -> SearchAlgorithm:
        config = SearchConfig.model_validate(
            {"channels": channels, "supernet": supernet, "execution": execution, "dropout": 0.0}
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            searcher = build_algorithm(config, identities, device)
        searcher.model.to(dtype).train()
        if compiled:
            compile_edges(searcher.supernet)
        for optimizer in (searcher.omega_optimizer, searcher.alpha_optimizer):
            set_learning_rate(optimizer, 0.0)
        return searcher

    captured: set[SearchAlgorithm] = set()

    def both_steps(images: Tensor, labels: Tensor, *val: Tensor) -> tuple[Tensor, ...]:
        val_images, val_labels, channels = val
        if compiled and images.device.type == "cpu":
            raise AutoReIDError("measured on CUDA only: it compiles for minutes on a CPU")
        searcher = searcher_for(len(channels), len(labels) // IMAGES, images.dtype, images.device)
        # A step is captured after its warm-up; outputs and times must be those of replays.
        turns = WARM_UP + 2 if execution == "captured" and searcher not in captured else 1
        captured.add(searcher)
        with within(COMPILE_SECONDS, "compiled") if compiled else nullcontext():
            for _ in range(turns):
                losses = searcher.step((images, labels), (val_images, val_labels))
        first = searcher.supernet.head[0]
        last = searcher.model.head.classifier
        assert isinstance(first, nn.Conv2d) and isinstance(last, nn.Linear)
        read = (*searcher.alpha, first.weight, last.weight)
        return (*losses, *(parameter.grad for parameter in read if parameter.grad is not None))

    return both_steps


def compile_edges(supernet: nn.Module) -> None:
    """Compile every edge of a `Supernet`; equal edges share a graph.

    Whole cells would fuse more, but compile for too long.
    """
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    for module in supernet.modules():
        if isinstance(module, MixedOp):
            module.compile(fullgraph=True, dynamic=False)


def work(variant: Variant) -> Work:
    """FLOPs: those of three forward passes for the omega step, of two for the alpha step (no filter
    gradients).

    Bytes: every candidate of every edge is written and read, as is its gradient, in both steps.
    """
    channels, batch, height, width = (variant.sizes[name] for name in "CNHW")
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        Supernet(channels, CELLS)(torch.empty(batch, 3, height, width))
    candidates = EDGES * (len(search_space("reid")) - 1)
    elements = 0
    for block, shapes in enumerate(block_shapes(channels, CELLS)):
        stride = HEAD_STRIDE * 2**block
        pixels = batch * -(-height // stride) * -(-width // stride)
        elements += sum(candidates * shape.channels * pixels for shape in shapes)
    return Work(bytes=8 * elements * variant.dtype.itemsize, flops=5 * counter.get_total_flops())


def size(channels: int, batch: int, height: int, width: int) -> dict[str, int]:
    return {"C": channels, "N": batch, "H": height, "W": width}


PAPER = tuple(size(channels, batch, 384, 128) for channels, batch in ((16, 16), (32, 4), (32, 16)))

CASE = Case(
    name="supernet_step",
    variants=(
        Variant(size(8, 8, 128, 64)),
        *(Variant(sizes, large="384x128") for sizes in PAPER),
        Variant(PAPER[-1], device="cuda"),
    ),
    inputs=inputs,
    ours=pair("source"),
    reference=pair("reference"),
    work=work,
    tolerance=5e-3,  # the stem's gradient has passed 8 cells of batch norms: float32 is 1e-3 off
    peers={
        "captured": lambda: pair("source", "captured"),
        "compiled by edge": lambda: pair("reference", compiled=True),
    },
    kernel="mixed_op_sum",
    compiles=False,
)
