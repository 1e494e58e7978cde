"""Print, as JSON, a digest of what each op, a search and a training give on this many threads.

python thread_worker.py THREADS FOLDER SEARCH_LINE TRAIN_LINE, the lines as JSON lists, but for --run.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from autoreid_fast import ops
from autoreid_fast.cli import main
from autoreid_fast.commands import search, train


def digest(tensors: Iterable[Tensor | None]) -> str:
    found = hashlib.sha256()
    for tensor in tensors:
        if tensor is not None:
            found.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def with_gradients(run: Callable[[], Tensor], leaves: list[Tensor]) -> list[Tensor]:
    """The output, and the gradients of its sum with fixed random weights."""
    for leaf in leaves:
        leaf.requires_grad_()
    output = run()
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    return [output, *torch.autograd.grad((output * weights).sum(), leaves)]


def of_ops() -> dict[str, str]:
    """Every op on shapes that keep several threads busy, forward and backward."""
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
        found = ops.stencil3x3(x, depthwise, (1, 2, 1), max_pool=True, avg_pool=True)
        return torch.cat([each.flatten() for each in found if each is not None])

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
        "rank_gallery": digest(ops.rank_gallery(query, gallery, *pids)),
        "separable_conv": digest(
            with_gradients(
                lambda: ops.separable_conv(x, depthwise, pointwise, (1, 2, 1)).z, [x, depthwise, pointwise]
            )
        ),
        "stencil3x3": digest(with_gradients(stencil, [x, depthwise])),
    }


def of_run(line: list[str], run: Path) -> str:
    search.draw_report = train.draw_report = lambda folder: None
    assert main([*line, "--run", str(run)]) == 0
    saved = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    found: list[Tensor] = []

    def collect(value: object) -> None:
        if isinstance(value, Tensor):
            found.append(value)
        for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            collect(each)

    collect(saved)
    assert len(found) > 20
    return digest(found)


if __name__ == "__main__":
    threads, folder, *lines = sys.argv[1:]
    torch.set_num_threads(int(threads))
    runs = {json.loads(line)[0]: json.loads(line) for line in lines}
    digests = {"ops": of_ops()}
    digests["runs"] = {name: of_run(line, Path(folder) / name) for name, line in runs.items()}
    Path(folder, "digests.json").write_text(json.dumps(digests))
