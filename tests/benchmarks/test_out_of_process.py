"""Large variants: one process per candidate, memory that must fit, and parity before speed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoreid_fast.benchmarks.harness import bench, candidate, measure, out_of_process
from autoreid_fast.benchmarks.harness.case import Case, Memory, Variant, Work, case_names, find
from autoreid_fast.benchmarks.harness.table import print_table
from autoreid_fast.errors import AutoReIDError

TINY = Variant({"Q": 20, "G": 150, "D": 16, "cameras": 3}, large="tiny")
TOY = Case(
    name="toy",
    variants=(TINY,),
    inputs=lambda variant: (torch.randn(4),),
    ours=lambda x: 2 * x,
    reference=lambda x: x + x,
    work=lambda variant: Work(bytes=1, flops=1),
    tolerance=1e-6,
    peers={"peer": lambda: lambda x: (2 * x, None)},
    bounds={"part": lambda x: x},
)
TRUTH = (torch.tensor([1.0, 2.0]), torch.tensor(3.0))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "COPY_BYTES", {"cpu": 1 << 16})
    monkeypatch.setattr(measure, "GEMM_SIZE", {"cpu": 16})


def _reports(monkeypatch: pytest.MonkeyPatch, **reports: dict[str, Any]) -> list[str]:
    """Replace the processes by these reports; returns the list of the candidates run, in order."""
    ran: list[str] = []
    usual = {"seconds": 1.0, "peak_bytes": 2**20, "outputs": TRUTH}

    def run_candidate(folder: Path, name: str) -> dict[str, Any]:
        assert (folder / "job.pt").is_file()
        ran.append(name)
        return {**usual, **reports.get(name, {})}

    monkeypatch.setattr(out_of_process, "run_candidate", run_candidate)
    return ran


def test_processes_report_time_memory_and_the_same_scores(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(out_of_process, "ROUNDS", 1)
    [case] = find(["rank_gallery"])
    case = replace(case, peers={}, bounds={"torch.mm": case.bounds["torch.mm"]})
    progress: list[str] = []
    row = bench.measure(case, TINY, 0.0, progress.append)
    assert row.passed, row.candidates["ours"].note
    assert row.large == "tiny"
    for measured in (row.candidates["ours"], row.candidates["reference"], row.bounds["torch.mm"]):
        assert measured.timing is not None, measured.note
        assert 0 < measured.timing.median_s < 60
        assert measured.peak_bytes is not None
        assert measured.peak_bytes < 2**30
    assert set(row.ratios) == {"reference", "torch.mm", "floor"}
    assert len(progress) == 1 + 3  # the inputs, then every process
    print_table(bench.Results(environment=bench.environment(set()), rows=(row,)))
    out = capsys.readouterr().out
    assert "rank_gallery-tiny" in out
    assert max(map(len, out.splitlines())) <= 120


def test_memory_is_the_peak_and_includes_allocations_outside_torch() -> None:
    size = 64 << 20
    inputs = (torch.ones(size // 4),)

    def function(x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            np.ones(size, dtype=np.uint8)  # freed at once: three in a row need no more than one
        return x[:1]

    report = candidate.measured(function, inputs, "cpu")
    assert 0.9 * size < report["peak_bytes"] < 1.5 * size  # the kernel counts pages per CPU and adds up late
    assert report["outputs"][0].tolist() == [1.0]


def test_without_parity_of_ours_nothing_has_a_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = _reports(monkeypatch, ours={"outputs": (TRUTH[0] * 1.001, TRUTH[1])})
    row = bench.measure(TOY, TINY, 0.0)
    assert not row.passed
    assert row.ratios == {}
    for measured in (*row.candidates.values(), *row.bounds.values()):
        assert measured.timing is None
        assert measured.peak_bytes is None
    assert "no parity: error 1.0e-03 > 1.0e-06" in (row.candidates["ours"].note or "")
    assert ran == ["reference", "ours", "peer", "part"]  # and no second round


def test_a_peer_without_parity_has_no_speed_and_is_compared_by_what_it_computes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _reports(monkeypatch, peer={"outputs": (TRUTH[0], None)})
    row = bench.measure(TOY, TINY, 0.0)
    assert row.candidates["peer"].timing is not None
    assert row.candidates["peer"].timing.samples == out_of_process.ROUNDS
    for wrong in ((TRUTH[0] + 1, None), (None, None), TRUTH[:1]):
        ran = _reports(monkeypatch, peer={"outputs": wrong})
        row = bench.measure(TOY, TINY, 0.0)
        assert row.passed
        assert row.candidates["peer"].timing is None
        assert "no parity" in (row.candidates["peer"].note or "")
        assert ran.count("peer") == 1


def test_what_takes_long_has_one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = _reports(monkeypatch, reference={"seconds": out_of_process.ONCE_SECONDS + 1})
    row = bench.measure(TOY, TINY, 0.0)
    assert ran == ["reference", "ours", "peer", "part"] + ["ours", "peer", "part"] * (
        out_of_process.ROUNDS - 1
    )
    assert row.ratios["reference"] == out_of_process.ONCE_SECONDS + 1


def test_what_does_not_fit_is_not_run_and_the_note_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out_of_process, "available_bytes", lambda: 10 * 10**9)
    memory: dict[str, Callable[[Variant], Memory]] = {
        "reference": lambda variant: Memory(11 * 10**9, "11 bytes for each of a billion"),
        "peer": lambda variant: Memory(9 * 10**9, "9 bytes for each of a billion"),
    }
    ran = _reports(monkeypatch)
    row = bench.measure(replace(TOY, memory=memory), TINY, 0.0)
    assert "reference" not in ran
    assert row.candidates["reference"].note == (
        "does not fit: needs 11.0 GB (11 bytes for each of a billion), 10.0 GB available"
    )
    assert row.passed  # by the peer, which fits
    assert row.candidates["peer"].timing is not None


def test_a_variant_s_own_tolerance_stands_in_for_the_case_s(monkeypatch: pytest.MonkeyPatch) -> None:
    _reports(monkeypatch, ours={"outputs": (TRUTH[0] * 1.001, TRUTH[1])})
    assert bench.measure(TOY, replace(TINY, tolerance=2e-3), 0.0).passed
    assert not bench.measure(TOY, replace(TINY, tolerance=5e-4), 0.0).passed


def test_with_nothing_to_compare_with_there_is_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    died = {"note": "its process ended with -9: no message"}
    _reports(monkeypatch, reference=died, peer=died)
    row = bench.measure(TOY, TINY, 0.0)
    assert not row.passed
    assert row.candidates["ours"].timing is None
    assert "no parity" in (row.candidates["ours"].note or "")
    assert row.candidates["peer"].note == died["note"]


def test_a_process_that_dies_says_how(tmp_path: Path) -> None:
    report = out_of_process.run_candidate(tmp_path, "ours")  # there is no job
    assert "ended with 1" in report["note"]
    assert "FileNotFoundError" in report["note"]


def test_large_variants_are_run_by_name_only() -> None:
    assert all(variant.large is None for case in find() for variant in case.variants)
    [case] = find(["rank_gallery-msmt17"])
    assert {variant.large for variant in case.variants} == {"msmt17"}
    with pytest.raises(AutoReIDError, match="'rank_gallery-msmt'; did you mean rank_gallery-msmt17"):
        find(["rank_gallery-msmt"])
    with pytest.raises(AutoReIDError, match=r"no benchmark case 'batch_hard-msmt17'"):
        find(["batch_hard-msmt17"])
    assert [case.name for case in find()] == list(case_names())
