"""Finding and registering `OpSpec`s: the package's, and those of a user's file."""

from pathlib import Path

import pytest
import torch

from autoreid_fast import ops
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.ops import library
from autoreid_fast.ops.contract import dispatcher_op, public_function
from autoreid_fast.ops.parity import deviations
from autoreid_fast.ops.sampling import LAYOUTS, Draw

SPEC = """
import torch
from torch import Tensor
from autoreid_fast.ops.arguments import Arguments, TensorArgument
from autoreid_fast.ops.spec import OpSpec

def double(x: Tensor) -> Tensor:
    \"""Twice x.\"""
    ARGUMENTS.check(x=x)
    return torch.ops.{namespace}.double(x)

ARGUMENTS = Arguments("double", (TensorArgument("x", ("N",), (torch.float32,)),))
DOUBLE = OpSpec(
    name="double",
    schema="(Tensor x) -> Tensor",
    reference=lambda x: 2 * x,
    fake=torch.empty_like,
    {table}
    sample=lambda draw: {{"x": draw.tensor(draw.size(1, 9))}},
    namespace="{namespace}",
)
"""


AUTOGRAD = "autograd=Autograd(('x',), print, print, None)"


def bare(
    namespace: str, schema: str = "(Tensor x) -> Tensor", fake: str = "torch.empty_like", more: str = ""
) -> str:
    """A file of an op without a public function."""
    return (
        "import torch\nfrom autoreid_fast.ops.spec import Autograd, OpSpec\n"
        f"OP = OpSpec('double', {schema!r}, torch.neg, {fake}, namespace={namespace!r}, {more})"
    )


def write(path: Path, namespace: str, table: str = "arguments=ARGUMENTS,") -> Path:
    path.write_text(SPEC.format(namespace=namespace, table=table))
    return path


def test_ops_are_listed_in_the_order_of_their_folders() -> None:
    names = [spec.name for spec in ops.specs()]
    assert names[:3] == ["batch_from_cache", "batch_hard", "batch_hard_backward"]
    assert len(names) == len(set(names)) >= 19
    folders = [spec.arguments.function for spec in ops.specs() if spec.arguments is not None]
    assert set(folders) <= set(ops.__all__)


def test_triton_modules_have_the_ops() -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    from importlib import import_module

    for spec in ops.specs():
        if spec.triton is not None:
            assert callable(getattr(import_module(spec.triton), spec.name)), spec.name


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    (spec,) = ops.load_specs(write(tmp_path / "mine.py", "mine"))
    assert spec in ops.specs()
    assert torch.equal(torch.ops.mine.double(torch.ones(2)), torch.full((2,), 2.0))
    assert spec.sample is not None
    for deviation in deviations(spec, spec.sample(Draw(0))):
        assert deviation.passed and deviation.op == "double"
    with pytest.raises(AutoReIDError, match=r"double: `x` has shape \(1, 1\); expected \(N,\)"):
        public_function(spec)(x=torch.ones(1, 1))
    with pytest.raises(AutoReIDError, match="`mine::double` is registered already"):
        ops.load_specs(tmp_path / "mine.py")


def test_without_a_table_the_op_is_the_public_function(tmp_path: Path) -> None:
    (spec,) = ops.load_specs(write(tmp_path / "bare.py", "bare", table=""))
    assert public_function(spec) is dispatcher_op(spec)
    assert len(deviations(spec, {"x": torch.ones(3)})) == 1


def test_a_kernel_belongs_to_one_namespace(tmp_path: Path) -> None:
    for namespace in ("has_kernel", "has_none"):
        path = tmp_path / f"{namespace}.py"
        path.write_text(bare(namespace))
        ops.load_specs(path)
    torch.library.impl("has_kernel::double", "cpu", torch.neg)
    library.find_kernels()
    assert ops.runs_native("has_kernel::double", torch.ones(1))
    assert not ops.runs_native("has_none::double", torch.ones(1))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no such file"),
        ("x = 1", "no OpSpec at module level"),
        ("import nonsense_module", "does not import: ModuleNotFoundError"),
        (
            SPEC.format(namespace="lost", table='arguments=Arguments("other", ()),'),
            r"wrong\.py: the argument table .* is that of `other`, which the file does not define",
        ),
        ("def broken():\n    return 1\n\n1 / 0", r"ZeroDivisionError.* in .*wrong\.py, line 4"),
        (
            bare("broken", schema="(Tensor x -> Tensor"),
            r"torch refuses it \(.*its schema is '\(Tensor x -> Tensor'",
        ),
        (bare("unknown_type", schema="(Image x) -> Tensor"), "torch refuses it .*Image"),
        (bare("mutating", schema="(Tensor(a!) x) -> ()", more=AUTOGRAD), "torch refuses it .*non-functional"),
        (bare("a b"), "`qualified` is 'a b::double'; expected a name and a namespace of letters"),
        (bare("one_dtype", more="dtypes=torch.float32"), r"`dtypes` is torch\.float32; expected a tuple"),
        (bare("texts", more="dtypes=('float32',)"), r"`dtypes` is \('float32',\); expected a tuple of"),
        (bare("no_fake", fake="None"), "`fake` is None; expected a function"),
        (
            bare("no_such", more="autograd=Autograd(('y',), print, print, None)"),
            "no argument 'y' of `autograd.inputs` in the schema",
        ),
    ],
)
def test_files_without_a_usable_spec_are_refused(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "wrong.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(AutoReIDError, match=words) as caught:
        ops.load_specs(path)
    assert "\n" not in str(caught.value)


def test_backend_is_native_or_reference() -> None:
    with pytest.raises(AutoReIDError, match="'fast'; expected 'native' or 'reference'"):
        ops.backend("fast").__enter__()  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_draws_are_the_same_for_a_seed(layout: str) -> None:
    one, other = (Draw(5, torch.float64, layout=layout).tensor(2, 3, 4, 5) for _ in range(2))
    assert one.shape == (2, 3, 4, 5) and one.dtype == torch.float64
    assert torch.equal(one, other) and one.stride() == other.stride()
    assert one.is_contiguous() == (layout == "contiguous")
