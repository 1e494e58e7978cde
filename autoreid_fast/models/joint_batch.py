"""Layers that look at the whole batch, made to see the batches of all processes as one."""

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from autoreid_fast.distributed.processes import current_shard
from autoreid_fast.ops.batch_norm import sync_batch_norm


class SyncBatchNorm(_BatchNorm):
    """An `nn.BatchNorm1d` or `2d` whose batch statistics are those of all processes; same state dict."""

    def __init__(self, layer: _BatchNorm) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(layer.__dict__)  # its very parameters and buffers

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


class JointDropout(nn.Dropout):
    """Dropout that draws the mask of the joint batch and uses the rows of this process's images.

    So the mask is that of one process with the joint batch, and the processes' random states stay equal.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        own = current_shard()
        ones = x.new_ones(own.processes * len(x), *x.shape[1:])
        return x * F.dropout(ones, self.p)[own.rows(len(ones))]


def join_batches(model: nn.Module, sync_bn: bool) -> None:
    """Make ``model``, in place, treat the processes' batches (of one size) as one.

    Dropout always; batch statistics if ``sync_bn``: in every batch norm layer, and in modules that take them
    in a fused op, which show that by an attribute ``sync_bn``. Parameters, buffers and the keys of the
    state dict stay as they are.
    """
    for module in list(model.modules()):
        if sync_bn and hasattr(module, "sync_bn"):
            module.sync_bn = True  # type: ignore[assignment]
        for name, child in module.named_children():
            if sync_bn and isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                setattr(module, name, SyncBatchNorm(child))
            elif type(child) is nn.Dropout:
                setattr(module, name, JointDropout(child.p).train(child.training))
