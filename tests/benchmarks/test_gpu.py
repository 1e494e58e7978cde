"""Results files of GPU sessions and the harness on CUDA, without a GPU: invented results."""

import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from autoreid_fast.benchmarks.harness.case import case_names, find
from autoreid_fast.benchmarks.harness.gpu import results as gpu_results
from autoreid_fast.benchmarks.harness.gpu.items import Outcome, RunFile
from autoreid_fast.benchmarks.harness.gpu.table import WIDTH, lines
from autoreid_fast.benchmarks.harness.parity import bounds, candidates, without_tf32
from autoreid_fast.benchmarks.harness.results import (
    Candidate,
    Floor,
    Parity,
    Row,
    Timing,
    environment,
)
from autoreid_fast.benchmarks.harness.support.galleries import drawn_labels
from autoreid_fast.benchmarks.harness.support.limit import within
from autoreid_fast.benchmarks.rank_gallery import reference, sorted_in_torch
from autoreid_fast.benchmarks.supernet_step import compile_edges
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas.space import search_space
from autoreid_fast.nas.supernet.edge_cell import MixedOp


def test_every_case_has_a_cuda_variant() -> None:
    large = ["rank_gallery-msmt17", "k_reciprocal-msmt17", "nearest-msmt17"]
    for case in find([*case_names(), *large]):
        assert any(variant.device == "cuda" for variant in case.variants), case.name


def timing(seconds: float) -> Timing:
    return Timing(median_s=seconds, p20_s=seconds, p80_s=seconds, samples=5, calls=1)


def row(case: str, sizes: dict[str, int], ours: float, large: str | None = None, **others: float) -> Row:
    """A row on CUDA with a floor of 10 us; `ours` takes the same time as a graph."""
    passed = Parity(error=1e-7, allowed=1e-6)
    replayed = timing(ours) if large is None else None
    candidates = {"ours": Candidate(parity=passed, timing=timing(ours), replayed=replayed)}
    candidates |= {name: Candidate(parity=passed, timing=timing(seconds)) for name, seconds in others.items()}
    ratios = {name: seconds / ours for name, seconds in others.items()}
    return Row(
        case=case, sizes=sizes, large=large, dtype="float32", device="cuda", step="forward", backend="native",
        candidates=candidates, bounds={}, ratios=ratios,
        replay_ratios={"floor": 1e-5 / ours} if replayed else {},
        floor=Floor(bytes=1, flops=1, copy_bytes_per_s=1, gemm_flops_per_s=1, seconds=1e-5, bound="bytes"),
    )  # fmt: skip


def leave(folder: Path, gpu: str | None, *rows: Row, **figures: dict[str, object]) -> Path:
    """A folder with the file of a run that measured ``rows`` and, in other items, ``figures``."""
    folder.mkdir(exist_ok=True)
    items = {"op": {"rows": [row.model_dump(mode="json") for row in rows]}, **figures}
    outcomes = tuple(Outcome(name=name, status="done", figures=value) for name, value in items.items())
    machine = environment(set()).model_copy(update={"gpu": gpu})
    file = RunFile(run="first", environment=machine, toy=False, outcomes=outcomes)
    (folder / "first.json").write_text(file.model_dump_json())
    return folder


PASSED = {"ended": True, "passed": 3, "failed": 0, "skipped": 0}


def test_results_of_several_runs_add_up_in_one_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "results", tmp_path / "out"
    folder.mkdir(), out.mkdir()
    first = row("stencil3x3", {"N": 4}, 2e-5, reference=6e-5)
    slow, quick = row("batch_hard", {"N": 64, "D": 2048}, 4e-5), row("batch_hard", {"N": 64, "D": 2048}, 2e-5)
    one = leave(tmp_path / "one", "NVIDIA H9", first, slow, tests=PASSED)
    assert gpu_results.main(one, out, folder) == 0
    assert "GPU tests: 3 passed, 0 failed, 0 skipped" in capsys.readouterr().out
    assert gpu_results.main(leave(tmp_path / "two", "NVIDIA H9", quick), out, folder) == 0
    written = gpu_results.Session.model_validate_json((folder / "nvidia-h9.json").read_text())
    assert written.rows == (first, quick)
    assert [len(run.rows) for run in written.runs] == [1, 1]  # each under its own environment
    assert written.tests is not None and written.tests.held
    assert (out / "nvidia-h9.json").read_text() == (folder / "nvidia-h9.json").read_text()
    printed = capsys.readouterr().out
    assert gpu_results.main(tmp_path / "none", out, folder) == 0  # nothing new: what is there already
    assert capsys.readouterr().out == printed
    last = printed.splitlines()
    assert max(map(len, last[:-1])) <= WIDTH
    assert any(line.startswith("stencil3x3 N=4 float32") and "50 %" in line and "3x" in line for line in last)


@pytest.mark.parametrize("counts", [{"skipped": 1}, {"failed": 1}, {"passed": 0}])
def test_a_gpu_test_that_did_not_pass_fails_the_summary(tmp_path: Path, counts: dict[str, int]) -> None:
    folder = leave(tmp_path / "run", "NVIDIA H9", row("nearest", {"Q": 1}, 1e-5), tests={**PASSED, **counts})
    assert gpu_results.main(folder, tmp_path, tmp_path) == 1


def test_results_that_cannot_be_one_gpu_s_are_refused(tmp_path: Path) -> None:
    one, other = row("nearest", {"Q": 1}, 1e-5), row("nearest", {"Q": 2}, 1e-5)
    with pytest.raises(AutoReIDError, match=r"no results of a GPU: run"):
        gpu_results.main(leave(tmp_path / "cpu", None, one), tmp_path, tmp_path)
    two = leave(tmp_path / "two", "A", one)
    (leave(tmp_path / "b", "B", other) / "first.json").rename(two / "second.json")
    with pytest.raises(AutoReIDError, match=r"results of 2 GPUs \(A, B\)"):
        gpu_results.main(two, tmp_path, tmp_path)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "first.json").write_text("{")
    with pytest.raises(AutoReIDError, match=r"first.json cannot be read .*: remove it or make its run again"):
        gpu_results.main(tmp_path / "bad", tmp_path, tmp_path)


def test_targets_are_met_or_not_or_not_measured() -> None:
    small = row("mixed_op_sum", {"K": 12}, 1.2e-5)
    large = small.model_copy(update={"floor": small.floor.model_copy(update={"bytes": 10**9})})
    slow = row("mixed_op_sum", {"K": 30}, 2e-5)
    rows = [small, large, slow.model_copy(update={"floor": large.floor})]
    seconds = {"step pair, source, captured, float32": 0.01, "evaluation": 0.048, "re-ranking": 0.2}
    printed = lines(rows, {name: {"seconds": value} for name, value in seconds.items()})
    assert [line.removeprefix("target  ") for line in printed[len(rows) + 2 :]] == [
        "step pair, float32: at most 11 ms: met: 10 ms",
        "step pair, bfloat16: at most 8 ms: not measured",
        "evaluation of MSMT17's shape: at most 10 ms: NOT met: 48 ms",
        "batch_hard, N=64, D=2048, as a graph: at most 12 us: not measured",
        "re-ranking 93,820 images: at most 300 ms: met: 200 ms",
        "memory-bound kernels: 80 % of the copy bandwidth: NOT met in 1 of 2 rows: 50 %",
        "200 epochs on Market-1501, 404 pairs each, at 10 ms: 13.5 minutes",
    ]


def test_peers_of_the_cpu_stay_out_of_small_rows_on_cuda() -> None:
    [case] = find(["rank_gallery"])
    on_cuda = next(variant for variant in case.variants if variant.device == "cuda")
    assert candidates(case, on_cuda) == ("ours", "reference", "torch.sort")
    assert bounds(case, on_cuda) == ("torch.mm", "F.linear")
    assert set(case.host) < {*case.peers, *case.bounds}
    [large] = find(["rank_gallery-msmt17"])
    assert set(case.peers) < set(candidates(large, large.variants[-1]))


@pytest.mark.parametrize("cameras", [3, 0])
def test_the_evaluator_that_sorts_scores_like_the_reference(cameras: int) -> None:
    labels = drawn_labels(30, 400, cameras=3, identities=20, junk=40, distractors=30)
    features = torch.randn(430, 16, dtype=torch.float64).float()
    inputs = features[:30], features[30:], *(labels if cameras else labels[:2])
    for ours, theirs in zip(sorted_in_torch()(*inputs), reference(*inputs), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=1e-7)


def test_compiled_edges_are_the_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = []

    def counted(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        graphs.append(graph)
        return graph.forward

    compile_ = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda *given, **options: compile_(*given, backend=counted, **options)
    )
    space = search_space("standard")
    edges = nn.ModuleList(MixedOp(space, 3, stride) for stride in (1, 1, 2)).eval()
    images, weights = torch.randn(2, 3, 8, 8), torch.rand(len(space))
    expected = [edge(images, weights) for edge in edges]
    compile_edges(edges)
    for edge, output in zip(edges, expected, strict=True):
        torch.testing.assert_close(edge(images, weights), output)
    assert len(graphs) == 2  # equal edges share one


def test_parity_is_of_float32_and_not_of_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with without_tf32():
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32  # torch is timed with its defaults


def test_what_compiles_for_too_long_is_stopped() -> None:
    with pytest.raises(TimeoutError, match="not compiled within 1 s"), within(1, "compiled"):
        signal.pause()
    with within(1):
        pass
