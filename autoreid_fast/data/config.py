"""Config that all data sets share, and the registry of their readers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, SerializeAsAny

from autoreid_fast.data.dataset import Dataset
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.registry import RegisteredConfig, Registry

DATASETS: Registry[Callable[[Any], Dataset]] = Registry("data set", builtin="autoreid_fast.data.readers")
register_dataset = DATASETS.register


class DataConfig(RegisteredConfig):
    """A data set on disk and the size its images are cached at.

    Each data set has its own subclass, chosen by ``kind``, for the fields that only it has.
    """

    registry: ClassVar[Registry[Any]] = DATASETS
    key: ClassVar[str] = "kind"
    default: ClassVar[str] = "market1501"

    kind: str = Field(
        "market1501",
        description="Layout of the data set. The paper searches on Market-1501, and trains and evaluates on "
        "Market-1501, CUHK03 and MSMT17; synthetic is the output of `data synth`.",
    )
    root: Path | None = Field(
        None,
        description="Folder that holds the release as unpacked (the folder with bounding_box_train/ ...).",
    )
    height: int = Field(384, gt=0, description="Image height in pixels. Paper: 384.")
    width: int = Field(128, gt=0, description="Image width in pixels. Paper: 128.")
    cache_dir: Path | None = Field(
        None,
        description="Folder of the decoded image caches; default: $XDG_CACHE_HOME/autoreid_fast or "
        "~/.cache/autoreid_fast.",
    )
    max_unreadable_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Unreadable images are named, counted and left out; more than this fraction of all "
        "images is an error.",
    )

    @property
    def root_folder(self) -> Path:
        """``root`` with ``~`` expanded.

        Raises:
            AutoReIDError: ``root`` is not set.
        """
        if self.root is None:
            raise AutoReIDError(
                "data.root is not set: give the folder that holds the data set (--data.root, or --root in "
                "`data`)"
            )
        return self.root.expanduser()

    @property
    def folder_name(self) -> str:
        """Name of the root folder; the kind of data set if it has no root."""
        return self.root.name if self.root is not None else self.kind

    def without_paths(self) -> Self:
        """A copy without the paths of this machine, to be published with a trained network."""
        changes = {}
        for name, value in self:
            if isinstance(value, Path):
                info = type(self).model_fields[name]
                changes[name] = Path(value.name) if info.is_required() else info.default
        return self.model_copy(update=changes)


AnyDataConfig = SerializeAsAny[DataConfig]
"""Type of a config's field that holds the config of any data set: dumped with the fields of its own class."""
