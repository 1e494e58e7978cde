"""`sync_batch_norm` as a layer."""

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from autoreid_fast.ops.batch_norm import sync_batch_norm


class SyncBatchNorm(_BatchNorm):
    """`nn.BatchNorm1d` or `nn.BatchNorm2d` with the batch statistics of all processes; same state dict.

    Args:
        layer: Layer to replace; parameters and buffers are shared with it.
    """

    def __init__(self, layer: _BatchNorm) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(layer.__dict__)
        self.replaced = type(layer)

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and self.running_mean is not None:
            return super().forward(x)
        y, statistics = sync_batch_norm(x, self.weight, self.bias, self.eps)
        if self.training and self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            cumulative = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            statistics.update_running(self.running_mean, self.running_var, cumulative)
        return y
