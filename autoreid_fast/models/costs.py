"""Costs of a network per stage, without running it: parameters, multiply-adds, activation memory."""

import copy
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.models.backbones.plain import PlainBackbone
from autoreid_fast.nas.backbone import Backbone


@dataclass(frozen=True)
class StageCosts:
    """Costs of one stage, or of all together (``name`` "total")."""

    name: str
    params_M: float
    """Parameters in millions."""
    flops_G: float
    """Multiply-adds of convolutions, linear layers and matrix products in 10^9: the paper's FLOPs."""
    activation_MB: float
    """Memory in 10^6 bytes that the float32 forward pass of one image would need if it freed nothing.

    It adds up all floating-point tensors that operations write in eval mode, except views and in-place
    results.
    """


@dataclass(frozen=True)
class Costs:
    """Costs of a backbone and a linear classifier directly on f, in total and per stage."""

    height: int
    width: int
    num_classes: int
    total: StageCosts
    stages: tuple[StageCosts, ...]

    @property
    def params_M(self) -> float:
        return self.total.params_M

    @property
    def flops_G(self) -> float:
        return self.total.flops_G

    @property
    def activation_MB(self) -> float:
        return self.total.activation_MB

    def to_dict(self) -> dict[str, Any]:
        """Return the costs for JSON: the totals at the top, and a list of stages."""
        total = asdict(self.total)
        del total["name"]
        size = {"height": self.height, "width": self.width, "num_classes": self.num_classes}
        return size | total | {"stages": [asdict(stage) for stage in self.stages]}

    def table(self) -> str:
        """Return a plain-text table: one row per stage, and the total."""
        rows = [("stage", "params M", "FLOPs G", "activations MB")]
        rows += [
            (stage.name, f"{stage.params_M:.3f}", f"{stage.flops_G:.3f}", f"{stage.activation_MB:.1f}")
            for stage in (*self.stages, self.total)
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
        )


def costs(backbone: Backbone, height: int = 384, width: int = 128, num_classes: int = 751) -> Costs:
    """Count the costs of ``backbone`` and a linear classifier directly on f.

    The defaults are Table 1's. Nothing is computed: a copy of the network runs on the meta device.

    Args:
        backbone: Not changed.
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        num_classes: Classes of the classifier.

    Raises:
        AutoReIDError: a size below 1, or an image size that the network does not support.

    Examples:
        >>> import autoreid_fast
        >>> from autoreid_fast.models.costs import costs
        >>> round(costs(autoreid_fast.create_model("resnet18")).params_M, 2)
        11.56
    """
    for name, value in (("height", height), ("width", width), ("num_classes", num_classes)):
        if value < 1:
            raise AutoReIDError(f"{name} {value}: expected a number of at least 1")
    network = copy.deepcopy(backbone).to("meta").eval()
    classifier = nn.Linear(backbone.feature_dim, num_classes, device="meta")
    counter = _Counter()
    params: dict[str, int] = defaultdict(int)
    for stage, module in [*_stages(network), ("classifier", classifier)]:
        params[stage] += sum(parameter.numel() for parameter in module.parameters())
        counter.follow(module, stage)
    if not isinstance(network, PlainBackbone):
        params["head"] += sum(parameter.numel() for parameter in network.parameters(recurse=False))
    image = torch.empty(1, 3, height, width, device="meta")
    with torch.no_grad(), counter:
        classifier(network(image))
    counts = {stage: (params[stage], counter.flops[stage], counter.bytes[stage]) for stage in params}
    total = tuple(sum(column) for column in zip(*counts.values(), strict=True))
    stages = tuple(_stage_costs(stage, *count) for stage, count in counts.items())
    return Costs(height, width, num_classes, _stage_costs("total", *total), stages)


def _stage_costs(name: str, params: int, flops: int, bytes_: int) -> StageCosts:
    """Convert plain counts; a multiply-add is two FLOPs."""
    return StageCosts(name, params / 1e6, flops / 2e9, bytes_ / 1e6)


def _stages(network: Backbone) -> list[tuple[str, nn.Module]]:
    """Name the stage of each child: layer1 .. 4 and block1 .. 4 are their own, everything else is the head.

    A plain module is one stage.
    """
    if isinstance(network, PlainBackbone):
        return [("backbone", network)]
    children = network.named_children()
    return [(name if name.startswith(("layer", "block")) else "head", child) for name, child in children]


class _Counter(TorchDispatchMode):
    """Counter of FLOPs (two per multiply-add) and bytes of new tensors, per stage that is running."""

    def __init__(self) -> None:
        from torch.utils.flop_counter import flop_registry  # imports triton, which takes long

        super().__init__()
        self._flop_registry = flop_registry
        self.flops: dict[str, int] = defaultdict(int)
        self.bytes: dict[str, int] = defaultdict(int)
        self._stage = "head"

    def follow(self, module: nn.Module, stage: str) -> None:
        """Count for ``stage`` from the moment that ``module`` or any part of it is called."""

        def enter(*_: Any) -> None:
            self._stage = stage

        for part in module.modules():
            part.register_forward_pre_hook(enter)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        count = self._flop_registry.get(func.overloadpacket)
        if count is not None:
            self.flops[self._stage] += count(*args, **kwargs, out_val=out)
        known = {_storage(value) for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        for value in tree_leaves(out):
            if isinstance(value, Tensor) and value.is_floating_point() and _storage(value) not in known:
                self.bytes[self._stage] += value.nbytes
        return out


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
