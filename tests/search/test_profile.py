"""Profile of a step pair: calls and time per operation."""

import json
import re
from pathlib import Path

import pytest

from autoreid_fast import ops
from autoreid_fast.cli import main
from autoreid_fast.report.step_table import step_table
from autoreid_fast.search.profile import FAMILIES, REST, ProfileConfig, family_of, profile_step

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
TINY = {
    "channels": 3,
    "cells_per_block": (1, 1, 1, 1),
    "height": 112,
    "width": 16,
    "identities": 2,
    "images": 2,
}


def test_a_pair_runs_each_op_as_often_as_the_supernet_needs_it() -> None:
    profiled = profile_step(ProfileConfig.model_validate(TINY | {"pairs": 1}))
    calls = {
        operation.name.removeprefix("autoreid_fast::"): operation.calls for operation in profiled.operations
    }
    cells, sources, edges, nodes, passes = 4, 5, 14, 4, 2
    # a source has one multi-filter convolution, an edge one second half and one batch norm between the two
    assert calls["separable_conv"] == passes * cells * (sources + edges)
    assert calls["mixed_op_sum"] == passes * cells * (nodes + edges)
    assert calls["part_attention"] == calls["stencil3x3"] == passes * cells * sources
    assert calls["batch_hard"] == passes
    assert profiled.seconds > 0 and profiled.peak_bytes is None and profiled.batch == 4
    assert profiled.launches == sum(operation.calls for operation in profiled.operations)
    own = sum(operation.milliseconds for operation in profiled.operations)
    assert sum(profiled.families.values()) == pytest.approx(own)
    assert {"mixed_op_sum", "separable_conv", "matrix product"} <= set(profiled.families)
    percentages = [float(str(entry)) for entry in step_table(profiled).columns[-1].cells]
    assert sum(percentages) == pytest.approx(100, abs=2)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("autoreid_fast::separable_conv_backward", "separable_conv"),
        ("aten::mkldnn_convolution", "convolution"),
        ("aten::native_batch_norm", "batch norm"),
        ("aten::addmm", "matrix product"),
        ("aten::cat", "copies"),
        ("aten::max_pool2d_with_indices", "pooling"),
        ("aten::mul", REST),
    ],
)
def test_families_of_operations(name: str, family: str) -> None:
    assert family_of(name) == family
    assert family in {name for name, _ in FAMILIES} | {REST}


@pytest.mark.parametrize("op", [spec.name for spec in ops.specs() if spec.triton and spec.family])
def test_the_triton_kernels_are_in_the_families_of_their_ops(op: str) -> None:
    sources = [*KERNELS.glob(f"{op}.py"), *KERNELS.glob(f"{op}/*.py")]
    launched = [name for path in sources for name in re.findall(r"\b(\w+)\[[^\]]*\]\(", path.read_text())]
    assert launched
    assert {family_of(name) for name in launched} == {op}


def test_the_command_writes_table_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--channels", "3", "--cells-per-block", "1", "1", "1", "1", "--height", "112", "--width", "16"]
    batch = ["--identities", "2", "--images", "2", "--pairs", "1", "--supernet", "reference"]
    assert main(["profile", *sizes, *batch, "--out", str(tmp_path / "out")]) == 0
    assert "a step pair on cpu, batch 4" in capsys.readouterr().out
    written = json.loads((tmp_path / "out" / "profile.json").read_text())
    assert written["config"]["supernet"] == "reference"
    names = {operation["name"] for operation in written["operations"]}
    assert not any(name.startswith("autoreid_fast::mixed_op_sum") for name in names)
    assert (tmp_path / "out" / "step.svg").read_text().count("<svg") == 1
    assert (tmp_path / "out" / "step.png").stat().st_size > 5000


def test_a_size_that_the_search_refuses_is_refused() -> None:
    assert main(["profile", "--height", "40"]) == 2
