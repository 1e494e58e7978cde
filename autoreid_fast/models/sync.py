"""Layers that treat the batches of all processes as one global batch: batch norm and dropout."""

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from autoreid_fast.distributed.processes import current_shard
from autoreid_fast.ops.batch_norm import sync_batch_norm


class SyncBatchNorm(_BatchNorm):
    """`nn.BatchNorm1d` or `nn.BatchNorm2d` with the batch statistics of all processes; same state dict.

    Args:
        layer: Layer to replace; parameters and buffers are shared with it.
    """

    def __init__(self, layer: _BatchNorm) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(layer.__dict__)

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        y, statistics = sync_batch_norm(x, self.weight, self.bias, self.eps)
        if self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None and self.momentum is not None
            self.num_batches_tracked.add_(1)
            statistics.update_running(self.running_mean, self.running_var, self.momentum)
        return y


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
    """
    for module in list(model.modules()):
        if sync_bn and hasattr(module, "sync_bn"):
            module.sync_bn = True  # type: ignore[assignment]
        for name, child in module.named_children():
            if sync_bn and isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                setattr(module, name, SyncBatchNorm(child))
            elif type(child) is nn.Dropout:
                setattr(module, name, SyncDropout(child.p).train(child.training))
