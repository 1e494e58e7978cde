"""Make a network treat the batches of all processes as one global batch: batch norm and dropout."""

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from autoreid_fast.distributed.processes import current_shard
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.ops.batch_norm.layer import SyncBatchNorm


class SyncDropout(nn.Dropout):
    """Dropout that draws the mask of the global batch and uses the rows of this process.

    The mask equals that of a single process with the global batch, and the random states of all processes
    stay equal.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        shard = current_shard()
        ones = x.new_ones(shard.processes * len(x), *x.shape[1:])
        return x * F.dropout(ones, self.p)[shard.rows(len(ones))]


def sync_layers(model: nn.Module, sync_bn: bool) -> None:
    """Make ``model`` treat the batches of all processes as one, in place; they must be of one size.

    Parameters, buffers and the keys of the state dict do not change.

    Args:
        model: Its dropout layers are replaced.
        sync_bn: Also share the statistics of all batch norm layers, and of fused ops in modules with an
            attribute ``sync_bn``.

    Raises:
        AutoReIDError: a batch norm of another class, which may compute something else.
    """
    for path, module in list(model.named_modules()):
        if sync_bn and hasattr(module, "sync_bn"):
            module.sync_bn = True
        for name, child in module.named_children():
            if sync_bn and isinstance(child, _BatchNorm):
                setattr(module, name, _synchronized(f"{path}.{name}".lstrip("."), child))
            elif type(child) is nn.Dropout:
                setattr(module, name, SyncDropout(child.p).train(child.training))


def _synchronized(name: str, layer: _BatchNorm) -> _BatchNorm:
    if type(layer) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
        return SyncBatchNorm(layer)
    if isinstance(layer, SyncBatchNorm | nn.SyncBatchNorm):
        return layer
    raise AutoReIDError(
        f"sync_bn: layer `{name}` is a {type(layer).__name__}; only nn.BatchNorm1d, 2d and 3d can share "
        "their statistics: use one of these, or turn sync_bn off"
    )
