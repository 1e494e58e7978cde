"""Networks to train: backbones by name, heads, costs, weights."""

from typing import TYPE_CHECKING

from autoreid_fast.lazy import lazy_exports

if TYPE_CHECKING:
    from autoreid_fast.models.heads.embedding import ReIDOutput
    from autoreid_fast.models.registry import BACKBONES, create_model, list_models, register_backbone
    from autoreid_fast.models.reid import ReIDNetwork
    from autoreid_fast.models.weights import load_weights, save_weights
    from autoreid_fast.nas.backbone import Backbone

__all__ = [
    "BACKBONES",
    "Backbone",
    "ReIDNetwork",
    "ReIDOutput",
    "create_model",
    "list_models",
    "load_weights",
    "register_backbone",
    "save_weights",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "BACKBONES": ".registry",
        "Backbone": "autoreid_fast.nas.backbone",
        "ReIDNetwork": ".reid",
        "ReIDOutput": ".heads.embedding",
        "create_model": ".registry",
        "list_models": ".registry",
        "load_weights": ".weights",
        "register_backbone": ".registry",
        "save_weights": ".weights",
    },
)
