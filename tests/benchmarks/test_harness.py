"""The benchmark harness on toy cases: no speed without parity, consistent results, files that round-trip."""

import json
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from autoreid_fast import ops
from autoreid_fast.benchmarks import run
from autoreid_fast.benchmarks.harness import bench, measure
from autoreid_fast.benchmarks.harness.case import Case, Variant, Work, case_names, find
from autoreid_fast.benchmarks.harness.parity import prepare, relative_error
from autoreid_fast.benchmarks.harness.results import Results, Row
from autoreid_fast.errors import AutoReIDError

SECONDS = 0.01
SIZE = 64


def _reference(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return x * x * y, (x * y).sum()


def _inputs(variant: Variant) -> tuple[Tensor, Tensor]:
    n = variant.sizes["N"]
    return torch.randn(n).to(variant.dtype).requires_grad_(), torch.randn(n).to(variant.dtype)


def _absent() -> Callable[..., Any]:
    raise ModuleNotFoundError("No module named 'peer_that_is_absent'")


GOOD = Case(
    name="toy",
    variants=(Variant({"N": SIZE}),),
    inputs=_inputs,
    ours=lambda x, y: (x.square() * y, torch.dot(x, y)),
    reference=_reference,
    work=lambda variant: Work(bytes=4000 * variant.sizes["N"], flops=variant.sizes["N"]),
    tolerance=1e-5,
    peers={"torch": lambda: _reference, "peer_that_is_absent": _absent},
)


class _WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, y)
        return _reference(x, y)

    @staticmethod
    def backward(ctx: Any, first: Tensor, second: Tensor) -> tuple[Tensor, None]:
        x, y = ctx.saved_tensors
        return first * x * y + second * y, None  # lacks a factor of 2


def _raises(x: Tensor, y: Tensor) -> Tensor:
    raise RuntimeError("kernel fell over")


BROKEN = {
    "output": lambda x, y: (x.square() * y * 1.001, torch.dot(x, y)),
    "gradient": _WrongGradient.apply,
    "nan": lambda x, y: (x.square() * y, torch.dot(x, y) * float("nan")),
    "shape": lambda x, y: (x.square() * y, torch.dot(x, y)[None]),
    "missing": lambda x, y: x.square() * y,
    "raises": _raises,
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ceilings, and graph capture without code generation."""
    monkeypatch.setattr(measure, "COPY_BYTES", {"cpu": 1 << 16})
    monkeypatch.setattr(measure, "GEMM_SIZE", {"cpu": 16})
    compile_ = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda *args, **options: compile_(*args, backend="eager", **options)
    )


def _run(monkeypatch: pytest.MonkeyPatch, path: Path, *cases: Case) -> tuple[int, Results]:
    monkeypatch.setattr(bench, "find", lambda names, own: list(cases))
    status = run(json_path=path, seconds=SECONDS)
    return status, Results.model_validate_json(path.read_text())


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_op_shows_its_error_and_no_speed(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, results = _run(monkeypatch, tmp_path / "out.json", GOOD, replace(GOOD, ours=BROKEN[how]))
    good, broken = results.rows
    assert status == 1
    assert good.passed
    assert not broken.passed
    assert broken.ratios == {}
    for candidate in broken.candidates.values():
        assert candidate.timing is None
        assert candidate.peak_bytes is None
    ours = broken.candidates["ours"]
    assert ours.note is not None
    assert ours.note in capsys.readouterr().out
    if how == "output":
        assert ours.parity is not None
        assert ours.parity.error == pytest.approx(1e-3, rel=0.2)
    elif how == "raises":
        assert ours.parity is None
        assert ours.note == "RuntimeError: kernel fell over"
    elif how != "gradient":
        assert ours.parity is not None
        assert ours.parity.error is None


def test_a_good_case_fills_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "out.json"
    status, results = _run(monkeypatch, path, GOOD)
    [row] = results.rows
    assert status == 0
    assert list(row.candidates) == ["ours", "reference", "compiled", "torch", "peer_that_is_absent"]
    assert (row.case, row.sizes, row.dtype, row.device) == ("toy", {"N": SIZE}, "float32", "cpu")
    assert row.step == "forward+backward"
    assert row.backend is None  # "toy" is no op of ours
    _consistent(row, {"ours", "reference", "compiled", "torch"})
    assert row.floor.bytes == 4000 * SIZE
    assert row.floor.bound == "bytes"
    assert row.floor.seconds == row.floor.bytes / row.floor.copy_bytes_per_s
    assert row.floor.seconds > row.floor.flops / row.floor.gemm_flops_per_s
    peak = row.candidates["reference"].peak_bytes
    assert peak is not None
    assert 3 * 4 * SIZE <= peak <= 12 * 4 * SIZE  # the output, what autograd keeps, the gradient; a few more
    environment = results.environment
    assert environment.torch == torch.__version__
    assert environment.threads == torch.get_num_threads()
    assert environment.peers == {"torch": version("torch")}
    # the file holds exactly what was validated
    assert json.loads(path.read_text()) == results.model_dump(mode="json")
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines() if "No module" not in line) <= 120
    assert "toy" in out


def _consistent(row: Row, timed: set[str]) -> None:
    medians = {}
    for name, candidate in row.candidates.items():
        assert (candidate.timing is None) == (name not in timed) == (candidate.note is not None)
        if candidate.timing is not None:
            timing = candidate.timing
            assert 0 < timing.p20_s <= timing.median_s <= timing.p80_s
            assert timing.samples >= measure.MIN_ROUNDS
            assert timing.calls >= 1
            assert candidate.parity is not None
            assert candidate.parity.passed
            medians[name] = timing.median_s
    medians["floor"] = row.floor.seconds
    ours = medians.pop("ours")
    assert row.ratios == pytest.approx({name: median / ours for name, median in medians.items()})


def test_an_absent_peer_is_named_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, results = _run(monkeypatch, tmp_path / "out.json", GOOD)
    assert status == 0
    absent = results.rows[0].candidates["peer_that_is_absent"]
    assert absent.timing is None
    assert absent.note is not None
    assert "not installed" in absent.note
    assert "pip install autoreid_fast[bench]" in absent.note


def test_a_peer_that_computes_something_else_has_no_time() -> None:
    case = replace(GOOD, peers={"other": lambda: lambda x, y: (x * y, (x * y).sum())})
    row = bench.measure(case, case.variants[0], SECONDS)
    assert row.passed
    assert row.candidates["other"].timing is None
    assert "other" not in row.ratios
    assert "no parity" in (row.candidates["other"].note or "")


def test_a_reference_that_does_not_compile_says_why() -> None:
    def reference(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        torch._dynamo.graph_break()
        return _reference(x, y)

    case = replace(GOOD, reference=reference)
    row = bench.measure(case, case.variants[0], SECONDS)
    assert row.passed
    assert row.candidates["compiled"].timing is None
    assert "Unsupported" in (row.candidates["compiled"].note or "")


def test_forward_only_where_no_input_requires_gradients() -> None:
    case = replace(GOOD, inputs=lambda variant: tuple(tensor.detach() for tensor in _inputs(variant)))
    row = bench.measure(case, case.variants[0], SECONDS)
    assert row.passed
    assert row.step == "forward"


def test_a_variant_of_an_absent_device_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    case = replace(GOOD, variants=(Variant({"N": 8}, device="cuda"), Variant({"N": 4})))
    _, results = _run(monkeypatch, tmp_path / "out.json", case)
    assert [row.sizes for row in results.rows] == [{"N": 4}]


def test_half_precision_is_held_to_float64_of_the_same_inputs() -> None:
    """bf16 may err by what the reference errs in bf16; the inputs' own rounding is not counted as error."""
    case = replace(GOOD, peers={})
    prepared = prepare(case, Variant({"N": SIZE}, torch.bfloat16))
    reference = prepared.parities["reference"].error
    assert reference is not None
    assert 1e-4 < reference < 2**-6
    assert prepared.parities["ours"].allowed == case.tolerance + 2 * reference
    assert "ours" in prepared.steps


def test_relative_error() -> None:
    truth = (torch.tensor([1.0, -4.0]), torch.zeros(2))
    assert relative_error((torch.tensor([1.0, -4.0]), torch.zeros(2)), truth) == 0
    assert relative_error((torch.tensor([1.5, -4.0]), torch.zeros(2)), truth) == 0.125
    assert relative_error((torch.tensor([1.0, -4.0]), torch.tensor([0.0, 0.25])), truth) == 0.25
    assert relative_error((torch.tensor([1.0, float("inf")]), torch.zeros(2)), truth) is None
    assert relative_error((torch.tensor([1.0, -4.0]),), truth) is None


def test_rounds_interleave_and_each_starts_with_another_step(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    steps = {name: lambda name=name: order.append(name) for name in "abc"}
    monkeypatch.setattr(measure, "sample", lambda step, *options: step() or 1e-3)
    samples = measure.interleaved(steps, "cpu", 0.0)
    assert "".join(order) == "aabbcc" + "abc" + "bca" + "cab" + "abc" + "bca"  # warm-up, then five rounds
    assert {len(taken.seconds) for taken in samples.values()} == {5}


def test_peak_is_the_highest_sum_not_the_total() -> None:
    kilobyte = torch.zeros(256)

    def step() -> Tensor:
        for _ in range(3):
            value = kilobyte.clone()
            value = value.clone()
        return value

    assert measure.peak_bytes(step, "cpu") == 2 * 1024  # of six clones, two live at a time


def test_unknown_names_are_refused_before_work() -> None:
    with pytest.raises(AutoReIDError, match=r"no benchmark case 'batch_soft'; did you mean batch_hard"):
        run(["batch_hard", "batch_soft"])


def test_files_that_call_the_reference_twin_are_read() -> None:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "cpu-mixed_op_sum.json"
    old = json.loads(path.read_text())
    assert "twin" in old["rows"][0]["candidates"]
    row = Results.model_validate(old).rows[0]
    assert list(row.candidates)[:2] == ["ours", "reference"]
    assert row.ratios["reference"] == old["rows"][0]["ratios"]["twin"]


def test_a_folder_is_no_json_file(tmp_path: Path) -> None:
    with pytest.raises(AutoReIDError, match="a folder"):
        run(json_path=tmp_path)


def test_every_op_s_benchmark_is_a_case_and_every_case_but_the_step_has_an_op() -> None:
    measured = {spec.benchmark for spec in ops.specs() if spec.benchmark is not None}
    assert measured == set(case_names()) - {"supernet_step"}
    for case in find():
        assert bench._backend(case, "cpu") in ("native", "reference"), case.name


@pytest.mark.parametrize("name", case_names())
def test_every_case_has_parity_at_its_smallest_size(name: str) -> None:
    [case] = find([name])
    assert case.name == name
    on_cpu = [variant for variant in case.variants if variant.device == "cpu"]
    smallest = min(on_cpu, key=lambda variant: case.work(variant).bytes)
    prepared = prepare(case, smallest)
    assert "ours" in prepared.steps, prepared.notes
    # a peer computes the same, or is absent, or says that it does not offer this
    silent = ("not installed", "AutoReIDError: ")
    failed = {
        name for name in set(case.peers) - set(prepared.steps) if not prepared.notes[name].startswith(silent)
    }
    assert not failed, prepared.notes
