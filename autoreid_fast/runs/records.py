"""Types of the JSON and YAML files that a run leaves, checked when they are read.

The fields are those that readers use; files may have others. Numbers have bounds within which they can be
shown and drawn.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, Required

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, with_config
from typing_extensions import TypedDict

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.nas.space import EDGES
from autoreid_fast.schema import read_json

logger = logging.getLogger("autoreid_fast")

Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Number = Annotated[float, Field(ge=-1e30, le=1e30)]
Identity = Annotated[int, Field(ge=-(2**63), lt=2**63)] | str
RULES = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


def _checked_genotype(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if set(value) != {"normal", "reduce"}:
        raise ValueError('expected the keys "normal" and "reduce" only')
    genotype_of(value)
    return value


def genotype_of(value: dict[str, JsonValue]) -> Genotype:
    """Make the genotype that a file holds.

    Raises:
        AutoReIDError: it is not one.
    """
    return Genotype(**value)  # type: ignore[arg-type]


def _rectangle(rows: list[list[float]]) -> list[list[float]]:
    if len({len(row) for row in rows}) != 1 or not rows[0]:
        raise ValueError("expected rows of one length")
    return rows


GenotypeRecord = Annotated[dict[str, JsonValue], AfterValidator(_checked_genotype)]
Rectangle = Annotated[list[list[Number]], AfterValidator(_rectangle)]
AlphaRecord = Annotated[Rectangle, Field(min_length=EDGES, max_length=EDGES)]


@with_config(RULES)
class DataRecord(TypedDict, total=False):
    """Data set in ``config.yaml``."""

    kind: str
    root: str | None


@with_config(RULES)
class ConfigRecord(TypedDict, total=False):
    """``config.yaml`` of any command, without the command."""

    data: DataRecord
    network: str
    pretrained: str | None
    tail: str
    space: str
    epochs: Count


@with_config(RULES)
class EnvironmentRecord(TypedDict, total=False):
    """``environment.json``."""

    date: str
    python: str
    packages: dict[str, str | None]
    platform: str
    cpu: str
    cpu_threads: Count
    gpus: list[str]
    commit: str | None


@with_config(RULES)
class EpochRecord(TypedDict, total=False):
    """One epoch in ``history.json``."""

    epoch: Required[Annotated[Count, Field(ge=1)]]
    seconds: Annotated[Number, Field(ge=0)]
    loss: Number
    cross_entropy: Number
    triplet: Number
    omega_loss: Number
    alpha_loss: Number
    learning_rate: Number
    omega_learning_rate: Number
    alpha_learning_rate: Number
    entropy_normal: Number
    entropy_reduce: Number
    alpha_normal: AlphaRecord
    alpha_reduce: AlphaRecord
    genotype: GenotypeRecord
    rank1: Fraction
    mAP: Fraction


@with_config(RULES)
class StageRecord(TypedDict):
    """Costs of one stage of a network."""

    name: str
    params_M: Number
    flops_G: Number
    activation_MB: Number


@with_config(RULES)
class CostsRecord(TypedDict):
    """Costs of a network."""

    height: Count
    width: Count
    num_classes: Count
    params_M: Number
    flops_G: Number
    activation_MB: Number
    stages: list[StageRecord]


@with_config(RULES)
class ProtocolRecord(TypedDict):
    """Counts and rule behind scores."""

    people: Count
    queries: Count
    gallery: Count
    junk: Count
    distractors: Count
    cameras: Count | None
    shared_cameras: NotRequired[Count | None]
    rule: str


@with_config(RULES)
class ScoresRecord(TypedDict, total=False):
    """Scores of a network: ``untrained.json``."""

    rank1: Fraction
    rank5: Fraction
    rank10: Fraction
    mAP: Fraction
    mAP_trapezoid: Fraction
    mINP: Fraction
    num_query: Count
    num_valid: Count
    protocol: ProtocolRecord
    chance: "ScoresRecord"


@with_config(RULES)
class MetricsRecord(ScoresRecord, total=False):
    """``metrics.json`` of any command."""

    network: str
    untrained: ScoresRecord
    params_M: Number
    flops_G: Number
    costs: CostsRecord


@with_config(RULES)
class SearchMetricsRecord(TypedDict):
    """``metrics.json`` of a search."""

    entropy_normal: Number
    entropy_reduce: Number
    genotype: GenotypeRecord


@with_config(RULES)
class PictureRecord(TypedDict):
    """Image of a ranked list, a JPEG in base64."""

    path: str
    camera: Identity | None
    picture: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]*={0,2}$")]


@with_config(RULES)
class QueryRecord(PictureRecord, total=False):
    """Query of a ranked list, with its saliency map."""

    looks: Rectangle


@with_config(RULES)
class EntryRecord(PictureRecord):
    """Gallery image of a ranked list."""

    match: bool


@with_config(RULES)
class RankedListRecord(TypedDict):
    """Ranked list of one query."""

    kind: Literal["best", "typical", "worst"]
    query: QueryRecord
    average_precision: Fraction
    first_hit: Annotated[Count, Field(ge=1)]
    matches: Count
    entries: list[EntryRecord]


@with_config(RULES)
class RetrievalRecord(TypedDict):
    """``retrieval.json``."""

    cmc: Annotated[list[Fraction], Field(min_length=1)]
    average_precision: list[Fraction | None]
    lists: list[RankedListRecord]


def recorded_genotype(path: Path, metrics: Mapping[str, Any]) -> Genotype:
    """Read a run's ``genotype.json``.

    Args:
        path: The file.
        metrics: ``metrics.json`` of the run; that of a finished search records the genotype, too.

    Raises:
        AutoReIDError: the file cannot be read, or holds another genotype than ``metrics``.
    """
    values = read_json(path, GenotypeRecord)
    if metrics.get("genotype", values) != values:
        raise AutoReIDError(f"{path}: not the genotype that metrics.json records; restore the file")
    return genotype_of(values)


def read_if_possible(path: Path, kind: Any, default: Any) -> Any:
    """Read a file of a run that a reader can do without; ``default`` if it is missing.

    If the file cannot be read as a ``kind``, a warning says so and ``default`` is returned.
    """
    if not path.exists():
        return default
    try:
        return read_json(path, kind)
    except AutoReIDError as error:
        logger.warning("%s; left out: restore it, or resume the run to write it again", error)
        return default
