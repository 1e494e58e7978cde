"""A trained network in use: embedder, export, model card, gallery search."""

from typing import TYPE_CHECKING

from autoreid_fast.lazy import lazy_exports

if TYPE_CHECKING:
    from autoreid_fast.inference.embedder import Embedder
    from autoreid_fast.inference.gallery import Gallery
    from autoreid_fast.inference.gallery_cache import open_gallery
    from autoreid_fast.inference.loading import load
    from autoreid_fast.inference.model_card import ModelCard

__all__ = ["Embedder", "Gallery", "ModelCard", "load", "open_gallery"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Embedder": ".embedder",
        "Gallery": ".gallery",
        "ModelCard": ".model_card",
        "load": ".loading",
        "open_gallery": ".gallery_cache",
    },
)
