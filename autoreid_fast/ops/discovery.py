"""Finding ops: every folder of `ops` with a ``spec.py``, and files of users' own."""

import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from autoreid_fast.errors import AutoReIDError, describe_error
from autoreid_fast.ops import contract, flops, library
from autoreid_fast.ops.spec import OpSpec


def register_package(package: ModuleType) -> None:
    """Register the `OpSpec`s of every folder of the package, in the folders' order."""
    for folder in sorted(info.name for info in pkgutil.iter_modules(package.__path__) if info.ispkg):
        name = f"{package.__name__}.{folder}"
        if importlib.util.find_spec(f"{name}.spec") is not None:
            public = importlib.import_module(name)
            _register_module(importlib.import_module(f"{name}.spec"), public)
    flops.register_flops(contract.specs())


def load_specs(path: str | Path) -> tuple[OpSpec, ...]:
    """Import a Python file and register every `OpSpec` that it defines at module level.

    The public function of an op is the function of the file that its argument table names; without a
    table it is the op itself.

    Args:
        path: a ``.py`` file, anywhere. It may load a native library with kernels before or after.

    Returns:
        the specs, without backward ops.

    Raises:
        AutoReIDError: the file is missing or fails to import, has no spec, or one whose name is taken.

    Examples:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> import torch
        >>> from autoreid_fast import ops
        >>> text = '''
        ... import torch
        ... from autoreid_fast.ops.spec import OpSpec
        ... NEGATE = OpSpec(
        ...     name="negate",
        ...     schema="(Tensor x) -> Tensor",
        ...     reference=torch.neg,
        ...     fake=torch.empty_like,
        ...     namespace="example",
        ... )
        ... '''
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "my_ops.py")
        ...     _ = path.write_text(text)
        ...     (spec,) = ops.load_specs(path)
        >>> torch.ops.example.negate(torch.ones(2))
        tensor([-1., -1.])
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise AutoReIDError(f"{path}: no such file; expected a Python file with an OpSpec")
    name = f"autoreid_fast_specs_{path.stem}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise AutoReIDError(f"{path}: not a Python file; expected a .py file with an OpSpec")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        raise AutoReIDError(f"{path} does not import: {describe_error(error, str(path))}") from error
    registered = _register_module(module, module)
    if not registered:
        raise AutoReIDError(f"{path}: no OpSpec at module level; expected at least one")
    library.find_kernels()
    flops.register_flops(registered)
    return registered


def _register_module(module: ModuleType, public: ModuleType) -> tuple[OpSpec, ...]:
    """Register the specs in a module, but for backward ops, which come with their forward ops."""
    found = [value for value in vars(module).values() if isinstance(value, OpSpec)]
    backward = {id(spec.autograd.op) for spec in found if spec.autograd is not None}
    chosen = tuple(spec for spec in found if id(spec) not in backward)
    for spec in chosen:
        contract.register(spec, _function_of(spec, public))
    return chosen


def _function_of(spec: OpSpec, public: ModuleType) -> Any:
    if spec.arguments is None:
        return None
    function = getattr(public, spec.arguments.function, None)
    if function is None:
        raise AutoReIDError(
            f"{public.__file__}: the argument table of OpSpec `{spec.qualified}` is that of "
            f"`{spec.arguments.function}`, which the file does not define; define this function, or leave "
            "out `arguments`"
        )
    return function
