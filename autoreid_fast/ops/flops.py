"""FLOPs of the ops, for `torch.utils.flop_counter.FlopCounterMode`.

The count of an op is that of its reference, which runs on the meta device. Importing torch's counter imports
triton and takes long, so the formulas are registered when a user imports it.
"""

import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from autoreid_fast.ops.contract import dispatcher_op
from autoreid_fast.ops.spec import OpSpec

COUNTER = "torch.utils.flop_counter"


def register_flops(specs: tuple[OpSpec, ...]) -> None:
    """Register the formulas of differentiable ops and of their backward ops, now or with torch's counter."""
    counted = [op for spec in specs if spec.autograd is not None for op in (spec, spec.autograd.op)]
    if COUNTER in sys.modules:
        _register(counted)
    elif counted:
        sys.meta_path.insert(0, _Import(counted))


def _register(specs: list[OpSpec]) -> None:
    from torch.utils.flop_counter import register_flop_formula

    for spec in specs:
        register_flop_formula(dispatcher_op(spec), get_raw=True)(_formula(spec))


def _formula(spec: OpSpec) -> Callable[..., int]:
    """Function of an op's arguments, and of its output, that torch's counter calls."""

    def count(*arguments: Any, out_val: Any = None) -> int:
        from torch.utils.flop_counter import FlopCounterMode

        shapes = tree_map_only(Tensor, lambda tensor: torch.empty_like(tensor, device="meta"), arguments)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            spec.reference(*shapes)
        return int(counter.get_total_flops())

    return count


class _Import(MetaPathFinder):
    """Registers formulas after torch's counter is imported."""

    def __init__(self, specs: list[OpSpec]) -> None:
        self.specs = specs

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != COUNTER:
            return None
        sys.meta_path.remove(self)
        found = find_spec(name)
        if found is not None and found.loader is not None:
            execute = found.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                _register(self.specs)

            found.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return found
