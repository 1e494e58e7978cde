"""Write digests of a search, a training, our ops and operations of torch on 1, 2 and 3 threads, as JSON.

python thread_worker.py FOLDER CORES SEARCH_LINE TRAIN_LINE, the lines as JSON lists without --run.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from autoreid_fast import ops
from autoreid_fast.cli import main
from autoreid_fast.commands import search, train
from autoreid_fast.evaluation.protocol import Labels
from autoreid_fast.evaluation.ranking import rank_gallery


def digest(tensors: Iterable[Tensor | None]) -> str:
    sha256 = hashlib.sha256()
    for tensor in tensors:
        if tensor is not None:
            sha256.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return sha256.hexdigest()[:16]


def with_gradients(run: Callable[[], Tensor], leaves: list[Tensor]) -> list[Tensor]:
    """The output, and the gradients of a randomly weighted sum of it."""
    for leaf in leaves:
        leaf.requires_grad_()
    output = run()
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    return [output, *torch.autograd.grad((output * weights).sum(), leaves)]


def of_ops() -> dict[str, str]:
    """Every op, forward and backward, on shapes large enough for several threads."""
    torch.manual_seed(0)
    x = torch.randn(6, 20, 33, 19).to(memory_format=torch.channels_last)
    depthwise, pointwise = torch.randn(3, 20, 3, 3), torch.randn(3, 24, 20)
    candidates = [torch.randn(6, 20, 33, 19) for _ in range(3)]
    part = [
        torch.randn(s) for s in ((2, 4, 6, 20), (2, 4, 6), (2, 6, 6), (2, 6), (2, 6, 6), (2, 6), (2, 9, 6))
    ]
    query, gallery = torch.randn(60, 48), torch.randn(900, 48)
    pids = torch.arange(60) % 30, torch.arange(900) % 40
    people = torch.arange(96) // 4
    images = torch.randint(0, 256, (9, 40, 20, 3), dtype=torch.uint8)
    index = torch.arange(9)
    features = torch.randn(96, 301)

    def stencil() -> Tensor:
        outputs = ops.stencil3x3(x, depthwise, (1, 2, 1), max_pool=True, avg_pool=True)
        return torch.cat([output.flatten() for output in outputs if output is not None])

    return {
        "batch_from_cache": digest(
            [ops.batch_from_cache(images, index, index - 4, index - 4, index % 2 == 0)]
        ),
        "batch_hard": digest(with_gradients(lambda: ops.batch_hard(features, people).loss, [features])),
        "k_reciprocal": digest([ops.k_reciprocal(query, gallery, 12, 4)]),
        "mixed_op_sum": digest(
            with_gradients(
                lambda: ops.mixed_op_sum(candidates, torch.ones(3), [True, False, True]), candidates
            )
        ),
        "nearest": digest(ops.nearest(query, gallery, 50)),
        "part_attention": digest(with_gradients(lambda: ops.part_attention(x, *part), [x, *part])),
        "rank_gallery": digest(rank_gallery(query, gallery, Labels(*pids))),
        "separable_conv": digest(
            with_gradients(
                lambda: ops.separable_conv(x, depthwise, pointwise, (1, 2, 1)).z, [x, depthwise, pointwise]
            )
        ),
        "stencil3x3": digest(with_gradients(stencil, [x, depthwise])),
    }


def of_torch() -> dict[str, str]:
    """Operations of torch that a search or a training uses, on small shapes."""
    torch.manual_seed(0)
    x = torch.randn(16, 32, 48, 16)
    last = x.to(memory_format=torch.channels_last)
    weight, depthwise = torch.randn(32, 32, 3, 3), torch.randn(32, 1, 3, 3)
    rows, logits = torch.randn(64, 512), torch.randn(64, 751)

    def convolved(weight: Tensor, groups: int = 1) -> list[Tensor]:
        leaves = [last.clone(), weight.clone()]
        return with_gradients(lambda: functional.conv2d(*leaves, padding=1, groups=groups), leaves)

    def normalised(x: Tensor) -> list[Tensor]:
        leaf = x.clone()
        return with_gradients(lambda: functional.batch_norm(leaf, None, None, training=True), [leaf])

    def pooled(pool: Callable[..., Tensor]) -> list[Tensor]:
        leaf = last.clone()
        return with_gradients(lambda: pool(leaf, 3, 1, 1), [leaf])

    def of_softmax() -> list[Tensor]:
        leaf = logits.clone()
        return with_gradients(lambda: leaf.log_softmax(1), [leaf])

    whole, single = convolved(weight), convolved(depthwise, groups=32)
    return {
        "batch norm, channels last": digest(normalised(last)),
        "batch norm, contiguous": digest(normalised(x)),
        "batch norm of (N, C)": digest(normalised(rows)),
        "convolution": digest([*whole[:2], *single[:2]]),
        "convolution, gradient of its weight": digest([whole[2], single[2]]),
        "matrix product": digest(
            [rows @ torch.randn(512, 512), torch.randn(7, 24576) @ torch.randn(24576, 33)]
        ),
        "mean over pixels": digest([last.mean((2, 3))]),
        "pools": digest([*pooled(functional.max_pool2d), *pooled(functional.avg_pool2d)]),
        "softmax": digest(of_softmax()),
        "sum of many": digest([x.sum()]),
    }


def of_run(line: list[str], run: Path) -> str:
    search.draw_report = train.draw_report = lambda folder: None
    assert main([*line, "--run", str(run)]) == 0
    saved = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    tensors: list[Tensor] = []

    def collect(value: object) -> None:
        if isinstance(value, Tensor):
            tensors.append(value)
        for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            collect(part)

    collect(saved)
    assert len(tensors) > 20
    return digest(tensors)


if __name__ == "__main__":
    folder, cores, *lines = sys.argv[1:]
    os.sched_setaffinity(0, map(int, cores.split(",")))
    runs = {json.loads(line)[0]: json.loads(line) for line in lines}
    digests = {"threads": {"torch": str(torch.get_num_threads())}}
    digests["runs"] = {name: of_run(line, Path(folder) / name) for name, line in runs.items()}
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        digests |= {f"ops on {threads}": of_ops(), f"torch on {threads}": of_torch()}
    Path(folder, "digests.json").write_text(json.dumps(digests))
