"""Config that all data sets share, and the registry of their readers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from pydantic import Field, SerializeAsAny

from autoreid_fast.data.dataset import Dataset
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.registry import RegisteredConfig, Registry

Reader = Callable[[Any], Dataset]
"""Reads a data set; its parameter is the config, an instance of `DataConfig` or of a subclass."""

DATASETS: Registry[Reader] = Registry("data set", builtin="autoreid_fast.data.readers")
AnyReader = TypeVar("AnyReader", bound=Reader)


def register_dataset(name: str) -> Callable[[AnyReader], AnyReader]:
    """Register a function that reads a data set, as ``data.kind`` and ``--data.kind``.

    The type of its parameter is the config class: `DataConfig`, or a subclass with fields of its own, which
    become options. The command line finds a module that registers a data set by ``--import``.

    Args:
        name: Name of the data set.

    Raises:
        AutoReIDError: the name is already taken, or is not letters, digits, ``_``, ``-`` and ``.``.

    Examples:
        >>> from autoreid_fast.data import DataConfig, Dataset, ImageRecord, load_dataset, register_dataset
        >>> from autoreid_fast.data.images import files_below
        >>> class PairsConfig(DataConfig):
        ...     identities: int = 3
        >>> @register_dataset("pairs")
        ... def read_pairs(config: PairsConfig) -> Dataset:
        ...     "Pairs of images, 1-1.jpg and 1-2.jpg of identity 1, by cameras 1 and 2."
        ...     pids = range(1, config.identities + 1)
        ...     query = tuple(ImageRecord(f"{pid}-1.jpg", pid, 1) for pid in pids)
        ...     gallery = tuple(ImageRecord(f"{pid}-2.jpg", pid, 2) for pid in pids)
        ...     root = config.root_folder
        ...     return Dataset("pairs", root, query, query, gallery, files_below(root))
        >>> load_dataset(DataConfig(kind="pairs", root="images")).query_identities
        3
    """
    return DATASETS.register(name)


class DataConfig(RegisteredConfig):
    """A data set on disk and the size its images are cached at.

    Each data set has its own subclass, chosen by ``kind``, for the fields that only it has.

    Examples:
        >>> from autoreid_fast.data import DataConfig
        >>> config = DataConfig(kind="folder", root="images", pattern=r"(?P<pid>\\d+)_c(?P<camera>\\d+)")
        >>> type(config).__name__, config.height, config.train_share
        ('FolderConfig', 384, 0.5)
    """

    registry: ClassVar[Registry[Any]] = DATASETS
    key: ClassVar[str] = "kind"
    default: ClassVar[str] = "market1501"

    kind: str = Field(
        "market1501",
        description="Layout of the data set; each has options of its own, which --help lists after this one. "
        "The paper searches on Market-1501, and trains and evaluates on Market-1501, CUHK03 and MSMT17; "
        "synthetic is the output of `data synth`.",
    )
    root: Path | None = Field(
        None,
        description="Folder of the data set: its release as unpacked (for Market-1501 the folder with "
        "bounding_box_train/).",
    )
    height: int = Field(384, gt=0, le=10_000, description="Image height in pixels. Paper: 384.")
    width: int = Field(128, gt=0, le=10_000, description="Image width in pixels. Paper: 128.")
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
    def tests_only(self) -> bool:
        """Whether the config leaves nobody to train on by choice."""
        return False

    def to_test_on(self) -> Self:
        """Copy this config for a set that is only tested on; its release may have people to train on."""
        return self

    @property
    def folder_name(self) -> str:
        """Name of the root folder; the kind of data set if it has no root."""
        return self.root.name if self.root is not None else self.kind

    def without_paths(self) -> Self:
        """Copy this config without the paths of this machine, to publish it with a trained network."""
        changes = {}
        for name, value in self:
            if isinstance(value, Path):
                info = type(self).model_fields[name]
                changes[name] = Path(value.name) if info.is_required() else info.default
        return self.model_copy(update=changes)


AnyDataConfig = SerializeAsAny[DataConfig]
"""Type of a config's field that holds the config of any data set: dumped with the fields of its own class."""
