"""Check that a state dict fits a network, before any of it is loaded."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from autoreid_fast.errors import AutoReIDError


def require_state(own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    """Raise an AutoReIDError unless ``state`` has the keys, shapes and kinds of ``own``, and finite values.

    Counters of batches may be missing: files written before torch 0.4.1 lack them.

    Args:
        own: The network's state dict; its tensors may be on the meta device.
        state: The state dict to load.
        source: Its file or argument, for the message.
    """
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    if missing or unexpected:
        problems = [f"missing {_first(missing)}"] * bool(missing)
        problems += [f"unexpected {_first(unexpected)}"] * bool(unexpected)
        wrapped = unexpected and all(key.startswith("module.") for key in state)
        hint = "; a DistributedDataParallel wrote it: remove `module.` from its keys" if wrapped else ""
        raise AutoReIDError(f"{source}: not the weights of this network: {'; '.join(problems)}{hint}")
    for key, value in state.items():
        if value.shape != own[key].shape:
            raise AutoReIDError(
                f"{source}: {key} has shape {tuple(value.shape)}; this network needs {tuple(own[key].shape)}"
            )
        if not own[key].is_floating_point():
            continue
        if value.layout != torch.strided or value.is_quantized or not value.is_floating_point():
            kind = value.layout if value.layout != torch.strided else value.dtype
            raise AutoReIDError(
                f"{source}: {key} is {kind}; expected a dense tensor of floating-point numbers"
            )
    require_finite({key: state[key] for key in state if own[key].is_floating_point()}, source)


def require_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Raise an AutoReIDError if a value of ``state``, from the file ``source``, is NaN or infinite."""
    for key, value in state.items():
        if not torch.isfinite(value).all():
            raise AutoReIDError(
                f"{source}: {key} has NaN or infinite values, as weights of a training that diverged have; "
                "use an earlier checkpoint"
            )


def _first(keys: Sequence[str]) -> str:
    return ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
