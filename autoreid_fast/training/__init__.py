"""Training: `train`, `pretrain` and their configs; steps, loops, checkpoints and schedules."""

from typing import TYPE_CHECKING

from autoreid_fast.lazy import lazy_exports

if TYPE_CHECKING:
    from autoreid_fast.training.config import PretrainConfig, TrainConfig
    from autoreid_fast.training.pretraining import pretrain
    from autoreid_fast.training.reid import train

__all__ = ["PretrainConfig", "TrainConfig", "pretrain", "train"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "PretrainConfig": ".config",
        "TrainConfig": ".config",
        "pretrain": ".pretraining",
        "train": ".reid",
    },
)
