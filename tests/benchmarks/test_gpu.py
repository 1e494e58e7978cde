"""Script and results file of GPU sessions, without a GPU: invented results, a Python that only logs calls."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from autoreid_fast.benchmarks.harness.case import case_names, find
from autoreid_fast.benchmarks.harness.gpu import results as gpu_results
from autoreid_fast.benchmarks.harness.gpu.table import WIDTH, lines
from autoreid_fast.benchmarks.harness.parity import bounds, candidates, without_tf32
from autoreid_fast.benchmarks.harness.results import (
    Candidate,
    Environment,
    Floor,
    Parity,
    Results,
    Row,
    Timing,
    environment,
)
from autoreid_fast.benchmarks.harness.support.galleries import drawn_labels
from autoreid_fast.benchmarks.rank_gallery import reference, sorted_in_torch
from autoreid_fast.benchmarks.supernet_step import compile_edges, within
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas.space import search_space
from autoreid_fast.nas.supernet.edge_cell import MixedOp

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.sh"
PAIR = {"C": 32, "N": 16, "H": 384, "W": 128}


def session(tmp_path: Path, python: str, *parts: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run a copy of the script in a tree of its own, with this bash for a Python; returns its calls too."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "python").write_text(f"#!/bin/bash\necho \"$*\" >> '{tmp_path}/calls'\n{python}\n")
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "calls").touch()
    copy = tmp_path / "benchmarks" / "gpu.sh"
    copy.write_text(SCRIPT.read_text())
    for name in ("__init__", *case_names()):
        (tmp_path / "benchmarks" / f"{name}.py").touch()
    environment = {**os.environ, "PYTHON": str(tmp_path / "python"), "OUT": str(tmp_path / "out")}
    done = subprocess.run(["bash", copy, *parts], env=environment, capture_output=True, text=True)
    return done, (tmp_path / "calls").read_text().splitlines()


def test_an_unknown_part_is_refused_before_anything_runs(tmp_path: Path) -> None:
    done, calls = session(tmp_path, "", "test", "bnech")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "gpu.sh: no part 'bnech': choose from build test sanitize bench step evaluate search summary"
    ]
    assert calls == []


def test_without_a_gpu_it_says_so_in_a_line(tmp_path: Path) -> None:
    done, calls = session(tmp_path, "exit 1", "test")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "gpu.sh: no CUDA device that torch can use on this machine: nothing was run"
    ]
    assert len(calls) == 1
    assert "cuda.is_available" in calls[0]


def test_parts_run_in_the_order_given_and_the_summary_last(tmp_path: Path) -> None:
    done, calls = session(tmp_path, 'echo "did $3"', "sanitize", "test")
    assert done.returncode == 0, done.stdout
    assert ["sanitize.py gpu -k" in calls[1], "-m pytest -m gpu" in calls[2]] == [True, True]
    assert calls[3] == f"-m autoreid_fast.benchmarks.harness.gpu.results build/gpu/results {tmp_path / 'out'}"
    assert len(calls) == 4
    assert "did" in (tmp_path / "out" / "log.txt").read_text()
    assert json.loads((tmp_path / "build/gpu/results/sanitizers.json").read_text()) == {"exit_status": 0}


def test_a_part_that_fails_fails_the_call_and_stops_no_other(tmp_path: Path) -> None:
    done, calls = session(tmp_path, '[[ "$*" != *pytest* ]]', "test", "sanitize")
    assert done.returncode == 1
    assert "== test failed" in done.stdout
    assert "sanitize.py gpu" in calls[2]
    assert "gpu.results" in calls[3]


def test_nothing_is_measured_on_what_does_not_build(tmp_path: Path) -> None:
    done, calls = session(tmp_path, '[[ "$*" != *ops.status* ]]', "build", "bench")
    assert done.returncode == 1
    assert "== build failed" in done.stdout
    assert not any("bench" in call for call in calls if "import autoreid_fast.benchmarks" not in call)


def test_by_default_every_part_runs(tmp_path: Path) -> None:
    _, calls = session(tmp_path, "")
    text = " ".join(calls)
    assert all(f"bench {name} " in text for name in case_names())
    for words in (
        "doctor",
        "pytest",
        "sanitize.py",
        "bench nearest ",
        "bench supernet_step",
        "profile --device",
    ):
        assert words in text
    for words in ("bench k_reciprocal-msmt17", "data synth", "search --run", "train --run", "gpu.results"):
        assert words in text


def test_the_script_runs_every_gpu_test() -> None:
    root = SCRIPT.parents[1]
    named = [set(root.glob(pattern)) for pattern in re.findall(r"tests/\S*_gpu\.py", SCRIPT.read_text())]
    marked = {path for path in (root / "tests").rglob("test_*.py") if "pytest.mark.gpu" in path.read_text()}
    marked.discard(Path(__file__))
    assert named[0] | named[1] == marked
    assert named[2] | named[3] == {path for path in marked if path.is_relative_to(root / "tests" / "ops")}


def test_every_case_of_the_script_has_a_cuda_variant() -> None:
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


def on(gpu: str | None, *rows: Row) -> Results:
    machine: Environment = environment(set()).model_copy(update={"gpu": gpu})
    return Results(environment=machine, rows=rows)


def leave(results_folder: Path, **files: Results) -> Path:
    results_folder.mkdir(exist_ok=True)
    for name, results in files.items():
        (results_folder / f"bench-{name}.json").write_text(results.model_dump_json())
    return results_folder


JUNIT = """<testsuites><testsuite><testcase name="a"/><testcase name="b"/><testcase name="c">{}</testcase>
</testsuite></testsuites>"""


def test_results_of_several_calls_add_up_in_one_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "results", tmp_path / "out"
    folder.mkdir(), out.mkdir()
    first = row("stencil3x3", {"N": 4}, 2e-5, reference=6e-5)
    slow, quick = row("batch_hard", {"N": 64, "D": 2048}, 4e-5), row("batch_hard", {"N": 64, "D": 2048}, 2e-5)
    one = leave(tmp_path / "one", ops=on("NVIDIA H9", first, slow))
    (one / "tests.xml").write_text(JUNIT.format(""))
    (one / "sanitizers.json").write_text('{"exit_status": 0}')
    assert gpu_results.main(one, out, folder) == 0
    printed = capsys.readouterr().out
    assert "GPU tests: 3 passed, 0 failed, 0 skipped" in printed
    assert "compute-sanitizer: no errors" in printed
    assert gpu_results.main(leave(tmp_path / "two", again=on("NVIDIA H9", quick)), out, folder) == 0
    written = gpu_results.Session.model_validate_json((folder / "nvidia-h9.json").read_text())
    assert written.rows == (first, quick)
    assert [len(run.rows) for run in written.runs] == [1, 1]  # each under its own environment
    assert written.tests is not None and written.tests.held
    assert (out / "nvidia-h9.json").read_text() == (folder / "nvidia-h9.json").read_text()
    printed = capsys.readouterr().out
    assert gpu_results.main(tmp_path / "none", out, folder) == 0  # `summary` alone: what is there already
    assert capsys.readouterr().out == printed
    last = printed.splitlines()
    assert max(map(len, last[:-1])) <= WIDTH
    assert any(line.startswith("stencil3x3 N=4 float32") and "50 %" in line and "3x" in line for line in last)


@pytest.mark.parametrize("inside", ["<skipped/>", "<failure/>", "<error/>"])
def test_a_gpu_test_that_did_not_pass_fails_the_summary(tmp_path: Path, inside: str) -> None:
    results_folder = leave(tmp_path / "results_folder", ops=on("NVIDIA H9", row("nearest", {"Q": 1}, 1e-5)))
    (results_folder / "tests.xml").write_text(JUNIT.format(inside))
    assert gpu_results.main(results_folder, tmp_path, tmp_path) == 1
    (results_folder / "tests.xml").write_text("<testsuites/>")  # none ran at all
    assert gpu_results.main(results_folder, tmp_path, tmp_path) == 1


def test_results_that_cannot_be_one_gpu_s_are_refused(tmp_path: Path) -> None:
    one, other = row("nearest", {"Q": 1}, 1e-5), row("nearest", {"Q": 2}, 1e-5)
    with pytest.raises(AutoReIDError, match=r"no results of a GPU: run"):
        gpu_results.main(leave(tmp_path / "cpu", a=on(None, one)), tmp_path, tmp_path)
    with pytest.raises(AutoReIDError, match=r"results of 2 GPUs \(A, B\)"):
        gpu_results.main(leave(tmp_path / "two", a=on("A", one), b=on("B", other)), tmp_path, tmp_path)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "bench-x.json").write_text("{")
    with pytest.raises(
        AutoReIDError, match=r"bench-x.json cannot be read .*: remove it or run its part again"
    ):
        gpu_results.main(tmp_path / "bad", tmp_path, tmp_path)


def test_targets_are_met_or_not_or_not_measured() -> None:
    rows = [
        row("supernet_step", PAIR, 0.02, reference=0.15, captured=0.01, **{"compiled by edge": 0.02}),
        row("mixed_op_sum", {"K": 12}, 1.2e-5),
        row("mixed_op_sum", {"K": 30}, 2e-5),
        row("k_reciprocal", {"Q": 11659, "G": 82161, "D": 512}, 4.0, "msmt17"),
    ]
    printed = [line.removeprefix("target  ") for line in lines(rows)[len(rows) + 2 :]]
    assert printed == [
        "step pair, C=32, 384x128, batch 16: at most 11 ms: met: 10 ms",
        "step pair: 10 x as fast as eager: met: 15",
        "step pair: 3 x as fast as torch.compile: NOT met: 2",
        "memory-bound kernels: 80 % of the copy bandwidth: NOT met in 2 of 3 rows: 0.05 %, 50 %",
        "batch_hard, N=64, D=2048, forward and backward: at most 30 us: not measured",
        "evaluation of MSMT17's shape: at most 1.3 x its GEMM: not measured",
        "re-ranking of MSMT17's size: in seconds: met: 4 s",
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
    with pytest.raises(TimeoutError, match="not compiled within 1 s"), within(1):
        signal.pause()
    with within(1):
        pass
