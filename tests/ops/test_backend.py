"""`ops.backend`: one choice per thread and task, which compiled functions follow."""

import asyncio
import threading

import torch

from autoreid_fast import ops
from autoreid_fast.ops.contract import reference_forced


def test_a_block_that_outlives_another_threads_block() -> None:
    """In the order: first in, second in, first out, second out."""
    entered, left = threading.Event(), threading.Event()
    seen: list[bool] = []

    def second() -> None:
        with ops.backend("reference"):
            entered.set()
            left.wait(10)
            seen.append(reference_forced())

    thread = threading.Thread(target=second)
    with ops.backend("reference"):
        thread.start()
        entered.wait(10)
    seen.append(reference_forced())
    left.set()
    thread.join()
    assert seen == [False, True]
    assert not reference_forced()


def test_tasks_of_one_thread() -> None:
    seen: dict[str, list[bool]] = {"reference": [], "native": []}

    async def task(name: str, wait: int) -> None:
        with ops.backend(name):  # type: ignore[arg-type]
            for _ in range(wait):
                await asyncio.sleep(0)
                seen[name].append(reference_forced())

    async def both() -> None:
        await asyncio.gather(task("reference", 2), task("native", 4))

    asyncio.run(both())
    assert seen == {"reference": [True] * 2, "native": [False] * 4}
    assert not reference_forced()


def test_compiled_functions_follow_the_block_that_they_are_called_in() -> None:
    """The op appears in the graph of one backend, and not in that of the other."""
    graphs: list[str] = []

    def keep(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph.code)
        return graph

    compiled = torch.compile(
        lambda x: ops.stencil3x3(x, max_pool=True).max_pool, backend=keep, fullgraph=True
    )
    x = torch.randn(1, 2, 5, 4)
    native = compiled(x)
    with ops.backend("reference"):
        assert torch.equal(compiled(x), native)
    compiled(x)
    assert ["autoreid_fast" in graph for graph in graphs] == [True, False]
