"""Batch statistics over several processes equal those of one process with all rows: layers, ops, dropout."""

import copy
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from autoreid_fast.distributed.processes import Shard, current_shard
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.models.sync import sync_layers
from autoreid_fast.ops.batch_norm import sync_batch_norm
from autoreid_fast.ops.batch_norm.layer import SyncBatchNorm

PROCESSES = 3
WORKER = Path(__file__).with_name("sync_worker.py")

Found = list[dict[str, dict[str, torch.Tensor]]]


@pytest.fixture(scope="module")
def worker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sync_worker", WORKER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """The results of each process."""
    folder = tmp_path_factory.mktemp("sync")
    started = [
        subprocess.Popen(
            [sys.executable, WORKER, str(process), str(PROCESSES), folder],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
        )
        for process in range(PROCESSES)
    ]
    errors = [process.communicate()[1].decode() for process in started]
    assert not any(process.returncode for process in started), "\n".join(errors)
    return [torch.load(folder / f"{process}.pt") for process in range(PROCESSES)]


def joined(found: Found, case: str, name: str) -> torch.Tensor:
    """The rows of all processes, concatenated."""
    return torch.cat([each[case][name] for each in found])


@pytest.mark.parametrize("case", ["model", "derived"])
def test_a_model_of_layers(found: Found, worker: ModuleType, case: str) -> None:
    make, inputs = worker.MODELS[case]
    expected = worker.model_case(make(), *inputs())
    assert {name for each in found for name in each[case]} == set(expected)
    for name, value in expected.items():
        if name in ("y", "grad_x", "y in eval"):
            torch.testing.assert_close(joined(found, case, name), value, rtol=1e-10, atol=1e-10, msg=name)
            continue
        parts = [each[case][name] for each in found]
        if name.startswith("grad"):  # the whole batch's is the sum
            torch.testing.assert_close(sum(parts), value, rtol=1e-10, atol=1e-10, msg=name)  # type: ignore[arg-type]
        else:  # state and random numbers: equal in every process
            assert all(torch.equal(part, parts[0]) for part in parts), name
            torch.testing.assert_close(parts[0], value, rtol=1e-10, atol=1e-10, msg=name)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5), (torch.bfloat16, 4e-2)]
)
def test_mixed_op_sum(
    found: Found, worker: ModuleType, dtype: torch.dtype, tolerance: float, given: bool
) -> None:
    case = f"mixed {dtype} {given}"
    expected = worker.mixed_case(dtype, False, slice(None), sync=False)
    for name, value in expected.items():
        parts = [each[case][name] for each in found]
        if name == "grad weights":
            actual = sum(parts)
        elif name in ("mean", "var"):
            assert all(torch.equal(part, parts[0]) for part in parts)
            actual = parts[0]
        else:
            actual = torch.cat(parts)
            assert actual.is_contiguous(memory_format=torch.channels_last), name
        torch.testing.assert_close(actual, value, rtol=tolerance, atol=tolerance)


def test_part_attention(found: Found, worker: ModuleType) -> None:
    for name, value in worker.attention_case(slice(None), sync=False).items():
        parts = [each["attention"][name] for each in found]
        if name.startswith("running"):
            assert all(torch.equal(part, parts[0]) for part in parts)
            actual = parts[0]
        else:
            actual = torch.cat(parts) if name in ("y", "grad_x") else sum(parts)
        torch.testing.assert_close(actual, value, rtol=1e-10, atol=1e-10)


def test_processes_may_hold_different_numbers_of_images(found: Found) -> None:
    """And a mean that is a thousand deviations away costs no digits."""
    x = (torch.randn(12, 2, generator=torch.Generator().manual_seed(8)) + 1000).double()
    torch.testing.assert_close(
        found[0]["uneven"]["variance"].double(), x.var(0, correction=0), rtol=1e-4, atol=0
    )
    expected = torch.nn.functional.batch_norm(x, None, None, training=True)
    torch.testing.assert_close(joined(found, "uneven", "y").double(), expected, rtol=0, atol=2e-3)
    assert [len(each["uneven"]["y"]) for each in found] == [2, 4, 6]


@pytest.mark.parametrize("affine", [True, False])
def test_one_process_is_torchs_batch_norm(affine: bool) -> None:
    assert current_shard() == Shard(0, 1)
    torch.manual_seed(1)
    layer = torch.nn.BatchNorm2d(4, affine=affine).double()
    model = torch.nn.Sequential(copy.deepcopy(layer))
    sync_layers(model, sync_bn=True)
    assert isinstance(model[0], SyncBatchNorm)
    x = torch.randn(3, 4, 5, 2, dtype=torch.float64)
    torch.testing.assert_close(model(x), layer(x))
    assert model[0].state_dict().keys() == layer.state_dict().keys()
    for name, value in layer.state_dict().items():
        torch.testing.assert_close(model[0].state_dict()[name], value)
    x.requires_grad_()
    weight = torch.randn(4, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *inputs: sync_batch_norm(*inputs)[0], (x, weight, bias))


def test_joining_keeps_parameters_state_and_copies() -> None:
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.1), torch.nn.BatchNorm2d(2))
    parameters = [id(parameter) for parameter in model.parameters()]
    keys = list(model.state_dict())
    sync_layers(model.eval(), sync_bn=True)
    assert [id(parameter) for parameter in model.parameters()] == parameters
    assert list(model.state_dict()) == keys
    assert not any(module.training for module in model.modules())
    copied = copy.deepcopy(model)
    copied[0].weight.data.fill_(7)
    assert not torch.equal(model[0].weight, copied[0].weight)


def test_without_sync_bn_batch_norm_stays_torchs() -> None:
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.1))
    sync_layers(model, sync_bn=False)
    assert type(model[0]) is torch.nn.BatchNorm1d
    assert type(model[1]) is not torch.nn.Dropout


def test_cumulative_averages_and_layers_without_running_statistics() -> None:
    """Momentum None, as `update_bn` sets it, and batch statistics in evaluation mode."""
    layer = torch.nn.BatchNorm1d(3, momentum=None)
    without = torch.nn.BatchNorm1d(3, track_running_stats=False).eval()
    model = torch.nn.Sequential(copy.deepcopy(layer), copy.deepcopy(without))
    sync_layers(model, sync_bn=True)
    for x in torch.randn(3, 8, 3).unbind():
        torch.testing.assert_close(model(x), without(layer(x)))
    torch.testing.assert_close(model[0].running_var, layer.running_var)


def test_batch_norms_of_other_classes_are_refused() -> None:
    class Activated(torch.nn.BatchNorm2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).relu()

    model = torch.nn.Sequential(torch.nn.Sequential(Activated(3)))
    with pytest.raises(AutoReIDError, match=r"layer `0\.0` is a Activated; only nn\.BatchNorm1d"):
        sync_layers(model, sync_bn=True)
    sync_layers(model, sync_bn=False)


def test_modules_with_statistics_in_a_fused_op_get_sync_bn() -> None:
    class Fused(torch.nn.Module):
        sync_bn = False

    model: Any = torch.nn.Sequential(Fused())
    sync_layers(model, sync_bn=False)
    assert not model[0].sync_bn
    sync_layers(model, sync_bn=True)
    assert model[0].sync_bn and not Fused.sync_bn


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 21])
def test_shares_cover_all_rows_once_in_order(processes: int, count: int) -> None:
    rows = [list(range(count))[Shard(process, processes).rows(count)] for process in range(processes)]
    assert [row for part in rows for row in part] == list(range(count))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1


def test_a_weight_of_any_stride_has_the_gradients_of_a_packed_one() -> None:
    x, weight = torch.randn(3, 4, 2, 2, requires_grad=True), torch.randn(4, 2)[:, 0]
    grad = torch.randn(3, 4, 2, 2)
    for bias in (None, torch.randn(4, 3)[:, 1]):
        y, _ = sync_batch_norm(x, weight, bias)
        packed, _ = sync_batch_norm(x, weight.clone(), None if bias is None else bias.clone())
        assert torch.equal(y, packed)
        for ours, theirs in zip(
            torch.autograd.grad(y, x, grad), torch.autograd.grad(packed, x, grad), strict=True
        ):
            assert torch.equal(ours, theirs)


def test_a_transposed_row_has_the_gradient_of_a_packed_one() -> None:
    z, grad = torch.randn(3, 2, 1, 4), torch.randn(3, 2, 1, 4)
    found = []
    for x in (z, z.transpose(1, 3).contiguous().transpose(1, 3)):
        leaf = x.detach().requires_grad_()
        found.append(torch.autograd.grad(sync_batch_norm(leaf, None, None)[0], leaf, grad)[0])
    torch.testing.assert_close(*found)


def test_one_value_per_channel_is_refused_in_one_process() -> None:
    with pytest.raises(AutoReIDError, match="expected more than one value per channel"):
        sync_batch_norm(torch.ones(1, 3, 1, 1), None, None)
