"""The contract of every op: registration from its `OpSpec`, the backend switch, and the list of all ops.

`register` gives the dispatcher the schema and makes the reference its CompositeExplicitAutograd kernel. A
native library (`library.py`) or a Triton module later adds kernels for CPU and CUDA, which take precedence,
so the dispatcher itself falls back to the reference: no op asks at run time what is loaded.
"""

import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, NoReturn, cast, get_args

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._pytree import tree_leaves

from autoreid_fast.errors import AutoReIDError, describe_error
from autoreid_fast.ops.spec import OpSpec

ENVIRONMENT = "AUTOREID_FAST_BACKEND"

Backend = Literal["native", "reference"]


def _parse(name: str) -> Backend:
    if name in get_args(Backend):
        return cast(Backend, name)
    raise AutoReIDError(f"ops.backend (or {ENVIRONMENT}) is {name!r}; expected 'native' or 'reference'")


_default: Backend = _parse(os.environ.get(ENVIRONMENT) or "native")
_backend: ContextVar[Backend] = ContextVar("autoreid_fast_backend", default=_default)
_traced: Backend = _default
"""The backend set last by any thread, for `torch.compile`, which cannot read context variables."""
_libraries: list[torch.library.Library] = []
"""Owners of the guards against tangents; torch removes a library's kernels when it is collected."""
_specs: dict[str, OpSpec] = {}
_functions: dict[str, Callable[..., Any]] = {}


def register(spec: OpSpec, function: Callable[..., Any] | None = None) -> None:
    """Define the op of a spec, and its backward op; both use their references until a kernel is loaded.

    Args:
        spec: the op.
        function: its public function; None: the op itself.

    Raises:
        AutoReIDError: there is an op of this name already, a field is wrong, or torch refuses the spec.
    """
    if spec.qualified in _specs:
        raise AutoReIDError(f"OpSpec `{spec.qualified}` is registered already; expected another name")
    _check_fields(spec)
    try:
        _define(spec)
    except Exception as error:  # torch has no common exception
        raise AutoReIDError(
            f"OpSpec `{spec.qualified}`: torch refuses it ({describe_error(error)}); its schema is "
            f"{spec.schema!r}, expected one like '(Tensor x, int k) -> Tensor'"
        ) from None
    _specs[spec.qualified] = spec
    _functions[spec.qualified] = function or dispatcher_op(spec)
    if spec.autograd is not None:
        register(spec.autograd.op)
        torch.library.register_autograd(spec.autograd.op.qualified, _differentiable_once(spec))
        _refuse_tangents(spec)
        _refuse_tangents(spec.autograd.op)


def _check_fields(spec: OpSpec) -> None:
    named = spec.name.isidentifier() and spec.namespace.isidentifier()
    dtypes = isinstance(spec.dtypes, tuple) and all(isinstance(one, torch.dtype) for one in spec.dtypes)
    for field, right, expected in (
        ("qualified", named, "a name and a namespace of letters, digits and _"),
        ("reference", callable(spec.reference), "a function"),
        ("fake", callable(spec.fake), "a function"),
        ("dtypes", dtypes, "a tuple of torch.dtype"),
    ):
        if not right:
            raise AutoReIDError(
                f"OpSpec `{spec.qualified}`: `{field}` is {getattr(spec, field)!r}; expected {expected}"
            )


def _define(spec: OpSpec) -> None:
    torch.library.define(spec.qualified, spec.schema, tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.impl(spec.qualified, "default", spec.reference)
    torch.library.register_fake(spec.qualified, spec.fake)
    if runs_triton(spec):
        torch.library.impl(spec.qualified, "cuda", _triton_kernel(spec))
    if spec.autograd is not None:
        declared = [argument.name for argument in dispatcher_op(spec).default._schema.arguments]
        unknown = [name for name in spec.autograd.inputs if name not in declared]
        if unknown:
            raise ValueError(f"no argument {unknown[0]!r} of `autograd.inputs` in the schema")
        torch.library.register_autograd(
            spec.qualified, spec.autograd.backward, setup_context=spec.autograd.setup_context
        )


def specs() -> tuple[OpSpec, ...]:
    """All registered ops, each followed by its backward op.

    Examples:
        >>> from autoreid_fast import ops
        >>> [spec.name for spec in ops.specs() if spec.name.startswith("batch_hard")]
        ['batch_hard', 'batch_hard_backward']
    """
    return tuple(_specs.values())


def public_function(spec: OpSpec) -> Callable[..., Any]:
    """The function that users call; the op itself where it has no other."""
    return _functions[spec.qualified]


def dispatcher_op(spec: OpSpec) -> Any:
    """The dispatcher's op, ``torch.ops.<namespace>.<name>``."""
    return getattr(getattr(torch.ops, spec.namespace), spec.name)


def run(spec: OpSpec, *arguments: Any) -> Any:
    """Call the op; or its reference if the backend is `"reference"`, for float64 on CUDA and in transforms.

    The first argument's dtype and device decide. References are differentiated by autograd, in forward mode
    and by `torch.func`, too.
    """
    return implementation(spec, arguments[0])(*arguments)


def implementation(spec: OpSpec, first: Tensor) -> Callable[..., Any]:
    """The function that `run` calls for a first argument like this: the op or its reference."""
    return spec.reference if runs_reference(first) else dispatcher_op(spec)


def runs_reference(x: Tensor) -> bool:
    """Whether `run` calls references for tensors like x."""
    return reference_forced() or (x.is_cuda and x.dtype == torch.float64) or is_transformed()


def is_transformed() -> bool:
    """Whether forward-mode AD or a transform of `torch.func` is active: kernels have no rules for these."""
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def runs_triton(spec: OpSpec) -> bool:
    """Whether the CUDA kernel of an op is the one in Triton: it has one, and triton is installed."""
    return (
        spec.triton is not None and not reference_forced() and importlib.util.find_spec("triton") is not None
    )


def reference_forced() -> bool:
    """Whether `AUTOREID_FAST_BACKEND` or `backend` asks for the references."""
    current = _traced if torch.compiler.is_dynamo_compiling() else _backend.get()
    return current == "reference"


@contextmanager
def backend(name: Backend) -> Iterator[None]:
    """Run the ops called in this block by their PyTorch references, or by the kernels (the default).

    It holds for the current thread or asyncio task (a context variable); for functions of `torch.compile` the
    block that any thread has entered or left last decides. References are differentiated by
    autograd, so the backward pass of what a block computes keeps to the backend of its forward pass.

    Args:
        name: `"reference"` or `"native"`.

    Raises:
        AutoReIDError: another name.

    Examples:
        >>> import torch
        >>> from autoreid_fast import ops
        >>> with ops.backend("reference"):
        ...     found = ops.nearest(torch.eye(3), torch.eye(3), k=1)
        >>> found.indices.flatten()
        tensor([0, 1, 2])
    """
    global _traced
    token = _backend.set(_parse(name))
    _traced = _backend.get()
    try:
        yield
    finally:
        _backend.reset(token)
        _traced = _backend.get()


def _triton_kernel(spec: OpSpec) -> Callable[..., Any]:
    """The kernel's launcher; the first call on a CUDA tensor imports triton, a process without one never."""

    def launch(*arguments: Any) -> Any:
        assert spec.triton is not None
        first = arguments[0] if isinstance(arguments[0], Tensor) else arguments[0][0]
        with torch.cuda.device(first.device):  # triton launches on the current device
            return getattr(importlib.import_module(spec.triton), spec.name)(*arguments)

    return launch


def _differentiable_once(spec: OpSpec) -> Callable[..., NoReturn]:
    """Backward of a backward op."""

    def refuse(ctx: Any, *grads: Any) -> NoReturn:
        raise AutoReIDError(
            f"{spec.name}: the kernel is differentiable once; for higher derivatives, "
            "call it under ops.backend('reference')"
        )

    return refuse


def _refuse_tangents(spec: OpSpec) -> None:
    """Put a guard before the op's autograd kernels, which give outputs without a tangent for any input."""
    library = torch.library.Library(spec.namespace, "FRAGMENT")
    _libraries.append(library)
    for key in ("AutogradCPU", "AutogradCUDA"):
        kernel = torch.library.get_kernel(spec.qualified, key)
        library.impl(spec.name, _without_tangents(spec, kernel.call_boxed), key, with_keyset=True)


def _without_tangents(spec: OpSpec, kernel: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(keyset: Any, *arguments: Any) -> Any:
        if is_transformed() and any(map(_has_tangent, tree_leaves(arguments))):
            raise AutoReIDError(
                f"{spec.qualified}: the kernel has no forward-mode derivative; call the Python function of "
                "the op, not torch.ops, under ops.backend('reference')"
            )
        return kernel(keyset, *arguments)

    return guarded


def _has_tangent(argument: Any) -> bool:
    return isinstance(argument, Tensor) and forward_ad.unpack_dual(argument).tangent is not None
