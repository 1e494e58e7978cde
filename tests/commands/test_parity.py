"""`parity` and `bench --spec`: ops of the package, and a user's op in a file outside it."""

import json
import re
from pathlib import Path

import pytest
import torch

from autoreid_fast import cli, ops
from autoreid_fast.benchmarks.harness import measure
from autoreid_fast.commands.parity import ParityResults, Worst, _chosen, compare, merged

Capture = pytest.CaptureFixture[str]

SPEC = """
import torch
from autoreid_fast.ops.spec import Autograd, OpSpec


def square(x):
    return x * x, (x > 0).sum(-1)


def square_backward(grad, x):
    return 2 * grad * x


def fake(x):
    return torch.empty_like(x), x.new_empty(x.shape[:-1], dtype=torch.int64)


def setup_context(ctx, inputs, output):
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(inputs[0])


def backward(ctx, grad, _):
    return torch.ops.toys.NAME_backward(grad, *ctx.saved_tensors)


SQUARE = OpSpec(
    name="NAME",
    schema="(Tensor x) -> (Tensor y, Tensor positive)",
    reference=square,
    fake=fake,
    autograd=Autograd(
        inputs=("x",),
        setup_context=setup_context,
        backward=backward,
        op=OpSpec(
            name="NAME_backward",
            schema="(Tensor grad, Tensor x) -> Tensor",
            reference=square_backward,
            fake=lambda grad, x: torch.empty_like(grad),
            namespace="toys",
        ),
    ),
    sample=lambda draw: {"x": draw.tensor(draw.size(1, 9), draw.size(1, 9))},
    dtypes=(torch.float32, torch.bfloat16),
    namespace="toys",
)


def cpu_kernel(function):
    torch.library.impl(f"toys::{function.__name__}", "cpu", function)
"""


def write_spec(folder: Path, name: str, kernel: str = "") -> str:
    """The file of an op ``name`` with this code for its CPU kernels; without, it uses its reference."""
    path = folder / f"{name}.py"
    path.write_text((SPEC + kernel).replace("NAME", name))
    return str(path)


GOOD = """
@cpu_kernel
def NAME(x):
    return x.square(), x.gt(0).sum(-1)
"""
BROKEN = {
    "an output": ("@cpu_kernel\ndef NAME(x):\n    return x * x * 1.001, (x > 0).sum(-1)", "y"),
    "an integer": ("@cpu_kernel\ndef NAME(x):\n    return x * x, (x > -0.5).sum(-1)", "positive"),
    "a gradient": ("@cpu_kernel\ndef NAME_backward(grad, x):\n    return grad * x", "gradient of `x`"),
    "NaN": ("@cpu_kernel\ndef NAME(x):\n    return torch.full_like(x, torch.nan), (x > 0).sum(-1)", "y"),
    "another dtype": ("@cpu_kernel\ndef NAME(x):\n    return (x * x).double(), (x > 0).sum(-1)", "y"),
    "an error": (
        "@cpu_kernel\ndef NAME(x):\n    raise ValueError('no memory')",
        "raises ValueError: no memory",
    ),
}
FAKES = {
    "shape": ("x.new_empty(7, 7)", r"fake of y: shape \(7, 7\), the op returns"),
    "dimensions": ("x.new_empty(x.shape[0])", "fake of y: shape"),
    "dtype": ("torch.empty_like(x, dtype=torch.float64)", r"fake of y: torch\.float64, the op returns"),
    "strides": ("x.new_empty(x.shape[::-1]).t()", "fake of y: strides"),
    "an error": ("x.no_such_method()", "fake raises AttributeError"),
}


def results_of(path: Path) -> ParityResults:
    return ParityResults.model_validate_json(path.read_text())


def test_a_users_op_has_parity(tmp_path: Path, capsys: Capture) -> None:
    spec = write_spec(tmp_path, "toy_good", GOOD)
    out = tmp_path / "parity.json"
    assert cli.main(["parity", "--spec", spec, "--samples", "7", "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "toy_good_backward" in printed
    assert printed.splitlines()[-1] == "all ops have parity"
    rows = results_of(out).rows
    assert [(row.op, row.dtype, row.samples, row.backend) for row in rows] == [
        ("toy_good", "float32", 7, "native"),
        ("toy_good_backward", "float32", 7, "reference"),
        ("toy_good", "bfloat16", 7, "native"),
        ("toy_good_backward", "bfloat16", 7, "reference"),
    ]
    assert all(row.error is not None and row.error <= row.bound and row.passed for row in rows)
    assert rows[2].bound > 1e-3 > rows[0].bound


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_op_is_found(what: str, tmp_path: Path, capsys: Capture) -> None:
    kernel, output = BROKEN[what]
    name = f"toy_broken_{list(BROKEN).index(what)}"
    out = tmp_path / "parity.json"
    spec = write_spec(tmp_path, name, kernel)
    assert cli.main(["parity", "--spec", spec, "--samples", "6", "--json", str(out)]) == 1
    printed = capsys.readouterr().out
    assert "FAILED" in printed
    assert printed.splitlines()[-1].startswith(f"no parity: {name}")
    row = next(row for row in results_of(out).rows if not row.passed)
    assert (row.op, row.dtype, row.output) == (name, "float32", output)
    again = compare(ops_spec(name), torch.float32, "cpu", samples=1, seed=row.seed)
    assert again[0].model_dump(exclude={"samples"}) == row.model_dump(exclude={"samples"})


@pytest.mark.parametrize("what", FAKES)
def test_a_wrong_fake_is_found(what: str, tmp_path: Path) -> None:
    fake, problem = FAKES[what]
    name = f"toy_fake_{what.replace(' ', '_')}"
    path = Path(write_spec(tmp_path, name))
    path.write_text(path.read_text().replace("return torch.empty_like(x), x.new", f"return {fake}, x.new"))
    out = tmp_path / "parity.json"
    assert cli.main(["parity", "--spec", str(path), "--samples", "4", "--json", str(out)]) == 1
    outputs = {row.op: row.output for row in results_of(out).rows if not row.passed}
    assert set(outputs) == {name}
    assert re.match(problem, outputs[name])


def ops_spec(name: str) -> ops.spec.OpSpec:
    return next(spec for spec in ops.specs() if spec.name == name)


def test_ops_of_the_package_by_name(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "parity.json"
    command = ["parity", "batch_hard", "--device", "cpu", "--samples", "3", "--seed", "5", "--json", str(out)]
    assert cli.main(command) == 0
    rows = results_of(out).rows
    assert {row.op for row in rows} == {"batch_hard", "batch_hard_backward"}
    assert {row.dtype for row in rows} == {"float32", "float16", "bfloat16", "float64"}
    assert {row.samples for row in rows} == {3}
    assert {row.seed for row in rows} <= {5, 6, 7}
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 140


def test_every_op_that_doctor_lists_can_be_named(capsys: Capture) -> None:
    """Inner steps, which have no samples, are compared by the ops that call them."""
    command = ["parity", "k_reciprocal_expand", "--device", "cpu", "--samples", "1"]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert "k_reciprocal_expand" in printed and "k_reciprocal_block" in printed
    assert "nearest" not in printed
    for spec in ops.specs():
        if spec.namespace == "autoreid_fast":
            assert _chosen([spec.name], None), spec.name


def test_samples_that_cannot_be_drawn_are_one_line(tmp_path: Path, capsys: Capture) -> None:
    for number, sample in enumerate(("lambda draw: {'x': draw.colour()}", "lambda draw: draw.tensor(2, 3)")):
        path = Path(write_spec(tmp_path, f"toy_sample_{number}"))
        path.write_text(path.read_text() + f"\nobject.__setattr__(SQUARE, 'sample', {sample})")
        for command in (["parity"], ["bench"]):
            assert cli.main([*command, "--spec", str(path)]) == 2
            path = path.rename(path.with_name(f"again_{number}.py"))
            path.write_text(path.read_text().replace(f"toy_sample_{number}", f"toy_again_{number}"))
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 4
    assert "OpSpec `toys::toy_sample_0`: `sample` raises AttributeError" in errors[0]
    assert "OpSpec `toys::toy_again_1`: `sample` returns Tensor; expected a dictionary" in errors[3]


def test_the_worst_row_is_the_one_closest_to_its_bound() -> None:
    row = Worst(
        op="a", dtype="float32", device="cpu", backend=None, samples=2, seed=0, output="y", error=2e-6,
        reference_error=0.0, bound=1e-5, passed=True,
    )  # fmt: skip
    closer = row.model_copy(update={"error": 1e-6, "bound": 2e-6, "seed": 1})
    unequal = row.model_copy(update={"error": 0.5, "bound": 0.0, "seed": 2, "passed": False})
    infinite = row.model_copy(update={"error": None, "seed": 3, "passed": False})
    other = row.model_copy(update={"dtype": "float16"})
    assert [worst.seed for worst in merged([row, closer, other])] == [1, 0]
    [worst] = merged([infinite, row, unequal, closer])
    assert (worst.seed, worst.samples) == (3, 8)
    assert merged([row, unequal])[0].seed == 2


def test_an_op_that_its_function_does_not_call_fails(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoreid_fast.commands.parity.deviations", lambda spec, sample: [])
    assert cli.main(["parity", "nearest", "--samples", "1"]) == 1
    assert capsys.readouterr().out.splitlines()[-1].endswith("do not call them: nearest")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("batch_hrad", "parity: no op 'batch_hrad'; did you mean batch_hard?"),
        ("zzz", "parity: no op 'zzz'; expected one of batch_from_cache, batch_hard, "),
        ("--spec nowhere.py", "nowhere.py: no such file"),
        ("--samples 0", "samples 0: expected a number of at least 1"),
        ("nearest --json .", ".: is a folder; give the name of a file"),
    ],
)
def test_what_cannot_be_compared_is_one_line(line: str, message: str, capsys: Capture) -> None:
    assert cli.main(["parity", *line.split()]) == 2
    assert message in capsys.readouterr().err


def test_a_device_that_is_not_there(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.main(["parity", "--device", "cuda"]) == 2
    assert "device is cuda, but torch finds no CUDA device: use cpu or auto" in capsys.readouterr().err


def test_the_reference_backend_has_nothing_to_compare(capsys: Capture) -> None:
    with ops.backend("reference"):
        assert cli.main(["parity"]) == 2
    assert "runs no kernel to compare" in capsys.readouterr().err


@pytest.fixture
def _quick_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ceilings, and graph capture without code generation."""
    monkeypatch.setattr(measure, "COPY_BYTES", {"cpu": 1 << 16})
    monkeypatch.setattr(measure, "GEMM_SIZE", {"cpu": 16})
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **how: compile_(function, backend="eager", **how))


@pytest.mark.usefixtures("_quick_bench")
def test_bench_measures_a_users_op_on_its_samples(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    spec = write_spec(tmp_path, "toy_bench", GOOD)
    assert cli.main(["bench", "--spec", spec, "--seconds", "0.01", "--json", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [(row["case"], row["dtype"], row["step"], row["backend"]) for row in rows] == [
        ("toy_bench", "float32", "forward+backward", "native"),
        ("toy_bench", "bfloat16", "forward+backward", "native"),
    ]
    for row in rows:
        assert row["ratios"]["reference"] > 0
        assert row["floor"]["bytes"] > row["sizes"]["bytes"] > 0


@pytest.mark.usefixtures("_quick_bench")
def test_bench_gives_a_broken_op_no_speed(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    spec = write_spec(tmp_path, "toy_bench_broken", BROKEN["a gradient"][0])
    assert cli.main(["bench", "--spec", spec, "--seconds", "0.01", "--json", str(out)]) == 1
    row = json.loads(out.read_text())["rows"][0]
    assert row["ratios"] == {}
    assert "no parity" in row["candidates"]["ours"]["note"]


@pytest.mark.usefixtures("_quick_bench")
@pytest.mark.parametrize("what", ["an error", "another dtype", "a gradient"])
def test_bench_fails_where_parity_does(what: str, tmp_path: Path, capsys: Capture) -> None:
    kernel, _ = BROKEN[what]
    name = f"toy_bench_{list(BROKEN).index(what)}"
    spec = write_spec(tmp_path, name, kernel)
    assert cli.main(["bench", name, "--spec", spec, "--seconds", "0.01"]) == 1
    printed = capsys.readouterr().out
    assert "FAILED" in printed and f"{name} " in printed


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("toy_nmae", "no benchmark case 'toy_nmae'; did you mean toy_named?"),
        ("toy_named --seconds -1", "seconds -1.0: expected a number above 0"),
        ("toy_named --seconds 0", "seconds 0.0: expected a number above 0"),
        ("toy_named --seconds nan", "seconds nan: expected a number above 0"),
        ("toy_named --json .", ".: is a folder"),
    ],
)
def test_what_bench_cannot_measure_is_one_line(
    line: str, message: str, tmp_path: Path, capsys: Capture
) -> None:
    assert cli.main(["bench", *line.split(), "--spec", write_spec(tmp_path, "toy_named", GOOD)]) == 2
    assert message in capsys.readouterr().err
