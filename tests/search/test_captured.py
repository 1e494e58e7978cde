"""Captured steps on a machine without a GPU: a double stands for the CUDA graph.

The double's capture runs nothing, and its replay runs the captured function on the graph's own inputs and
writes into the graph's own outputs, as a CUDA graph does. The fused, capturable optimisers with rates that
are tensors run on the CPU too.
"""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from autoreid_fast import ops
from autoreid_fast.configs import from_values
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.runs.checkpoint import load_checkpoint, save_checkpoint
from autoreid_fast.search import captured
from autoreid_fast.search.algorithm import Batch, SearchAlgorithm, build_algorithm
from autoreid_fast.search.captured import WARM_UP, CapturedStep
from autoreid_fast.search.config import SearchConfig

SMALL = {
    "channels": 3,
    "cells_per_block": (1, 1, 1, 1),
    "space": "standard",
    "embedding_dim": 8,
    "dropout": 0.0,
    "epochs": 4,
}
CPU = torch.device("cpu")
Outputs = tuple[Tensor, ...]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Install the double; return what it did, in order."""
    done: list[str] = []

    def run_on_side_stream(step: Callable[[], Outputs]) -> Outputs:
        done.append("aside")
        return step()

    def capture(step: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
        done.append("capture")
        outputs = (torch.zeros(()), torch.zeros(()))

        def replay() -> None:
            done.append("replay")
            for own, new in zip(outputs, step(), strict=True):
                own.copy_(new)

        return replay, outputs

    monkeypatch.setattr(captured, "run_on_side_stream", run_on_side_stream)
    monkeypatch.setattr(captured, "capture", capture)
    monkeypatch.setattr(SearchConfig, "captured_on", lambda config, _: config.execution != "eager")
    return done


def searcher(**changes: Any) -> SearchAlgorithm:
    torch.manual_seed(7)
    search = build_algorithm(SearchConfig.model_validate(SMALL | changes), 3, CPU)
    search.set_epoch(0)
    return search


def batches(count: int, height: int = 48) -> Iterator[tuple[Batch, Batch]]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    for _ in range(count):
        images = torch.randn(2, 6, 3, height, 32, generator=generator)
        yield (images[0], labels), (images[1], labels.roll(2))


def parts(search: SearchAlgorithm) -> dict[str, Any]:
    return {"model": search.model, "omega": search.omega_optimizer, "alpha": search.alpha_optimizer}


def test_calls_warm_up_then_capture_once_then_replay(graphs: list[str]) -> None:
    seen = []

    def step(x: Tensor, y: Tensor) -> Outputs:
        seen.append((x.data_ptr(), y.data_ptr()))
        return x.sum() + y.sum(), x.sum() - y.sum()

    run = CapturedStep(step)
    results = []
    for call in range(WARM_UP + 3):
        inputs = torch.full((3,), float(call)), torch.ones(3)
        results.append(run(*inputs))
        for tensor in inputs:
            tensor.fill_(99)  # the caller may reuse its inputs
    assert graphs == ["aside"] * WARM_UP + ["capture"] + ["replay"] * 3
    assert len(set(seen)) == 1, "the inputs of a graph stay where they are"
    expected = [(3.0 * call + 3, 3.0 * call - 3) for call in range(WARM_UP + 3)]
    assert [(a.item(), b.item()) for a, b in results] == expected  # and the caller may keep the results
    with pytest.raises(
        AutoReIDError, match=r"expected a batch of shape \(3,\), as in the first step, got \(4,\)"
    ):
        run(torch.ones(4), torch.ones(3))


def test_captured_steps_equal_eager_steps_while_the_rates_change(graphs: list[str]) -> None:
    """A rate of 0.1 as float32 is the only difference."""
    fused, eager = searcher(), searcher(execution="eager")
    losses = []
    for search in (fused, eager):
        losses_of_search = []
        for step, (train, val) in enumerate(batches(6)):
            search.set_epoch(step // 2)
            losses_of_search.append(torch.stack(search.step(train, val)))
        losses.append(torch.stack(losses_of_search))
    assert graphs == ["aside"] * WARM_UP + ["capture"] + ["replay"] * 3
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-3, atol=1e-4)
    for one, other in zip(fused.omega[:3], eager.omega[:3], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-4)


def test_a_rate_is_a_tensor_that_changes_in_place(graphs: list[str]) -> None:
    search = searcher()
    for optimizer in (search.omega_optimizer, search.alpha_optimizer):
        (group,) = optimizer.param_groups
        rate = group["lr"]
        before = rate.item()
        search.set_epoch(3)
        assert group["lr"] is rate
        assert group["fused"]
        assert rate.item() < before or optimizer is search.alpha_optimizer
        search.set_epoch(0)
    assert search.alpha_optimizer.param_groups[0]["capturable"]
    assert search.omega_optimizer.param_groups[0]["lr"].item() == pytest.approx(0.1)


class NoValueRead(TorchDispatchMode):
    """Fails if the host reads a tensor's value, for which it would wait for the GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket._qualified_op_name
        assert name not in ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::unique"), name
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize(
    "changes",
    [{"dropout": 0.5, "space": "reid"}, {"alpha_loss": "triplet"}, {"supernet": "reference"}],
    ids=["reid space", "triplet for alpha", "edge by edge"],
)
def test_a_captured_pair_of_steps_reads_no_value(
    changes: dict[str, Any], backend: Any, graphs: list[str]
) -> None:
    search = searcher(**changes)
    (train, val), (next_train, next_val) = batches(2, height=128 if "space" in changes else 48)
    with ops.backend(backend):
        search.step(train, val)
        with NoValueRead():
            search.step(next_train, next_val)
    for parameter in search.model.parameters():
        if parameter.grad is not None:  # required by fused optimisers on CUDA
            assert parameter.grad.stride() == parameter.stride()


def test_a_value_that_is_read_is_noticed(graphs: list[str]) -> None:
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NoValueRead():
        torch.ones(()).item()


@pytest.mark.parametrize(
    ("saved_by", "loaded_by"), [(a, b) for a in ("auto", "eager") for b in ("auto", "eager")]
)
def test_a_checkpoint_resumes_in_either_execution(
    saved_by: str, loaded_by: str, graphs: list[str], tmp_path: Path
) -> None:
    search = searcher(execution=saved_by)
    *before, (train, val) = batches(3)
    for pair in before:
        search.step(*pair)
    path = tmp_path / "last.pt"
    save_checkpoint(path, {name: part.state_dict() for name, part in parts(search).items()})
    saved = copy.deepcopy([p.detach() for p in search.omega])

    other = searcher(execution=loaded_by, seed=1)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in (other.omega_optimizer, other.alpha_optimizer)]
    state = load_checkpoint(path)
    for name, part in parts(other).items():
        part.load_state_dict(state[name])
    other.set_epoch(0)
    for optimizer, rate in zip((other.omega_optimizer, other.alpha_optimizer), rates, strict=True):
        (group,) = optimizer.param_groups
        assert type(group["lr"]) is type(rate)
        assert bool(group["fused"]) is (loaded_by == "auto")
    for parameter, value in zip(other.omega, saved, strict=True):
        assert torch.equal(parameter, value)
    losses = [torch.stack(one.step(train, val)) for one in (search, other)]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(other.alpha[0], search.alpha[0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("changes", [{"algorithm": "gdas"}, {"order": 2}])
def test_steps_that_are_not_all_alike_are_not_captured(changes: dict[str, Any]) -> None:
    cuda = torch.device("cuda")
    with pytest.raises(
        AutoReIDError, match=r"my\.yaml: execution: .*only darts of order 1.*use auto or eager"
    ):
        from_values(SearchConfig, changes | {"execution": "captured"}, "my.yaml")
    assert not SearchConfig.model_validate(changes).captured_on(cuda)
    assert SearchConfig().captured_on(cuda)
    assert not SearchConfig(execution="eager").captured_on(cuda)
    assert not SearchConfig().captured_on(CPU)
    with pytest.raises(AutoReIDError, match="expected one process on CUDA, got 1 on cpu"):
        SearchConfig(execution="captured").captured_on(CPU)
