"""Types of the JSON and YAML files that a run leaves, checked when they are read.

The fields are those that readers use; files may have others. Numbers have bounds within which they can be
shown and drawn.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, JsonValue
from typing_extensions import TypedDict

from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.nas.space import EDGES

Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Number = Annotated[float, Field(ge=-1e30, le=1e30)]
Identity = Annotated[int, Field(ge=-(2**63), lt=2**63)] | str
RULES = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


def _checked_genotype(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if set(value) != {"normal", "reduce"}:
        raise ValueError('expected the keys "normal" and "reduce" only')
    Genotype(**value)  # type: ignore[arg-type]
    return value


def _rectangle(rows: list[list[float]]) -> list[list[float]]:
    if len({len(row) for row in rows}) != 1 or not rows[0]:
        raise ValueError("expected rows of one length")
    return rows


GenotypeRecord = Annotated[dict[str, JsonValue], AfterValidator(_checked_genotype)]
Rectangle = Annotated[list[list[Number]], AfterValidator(_rectangle)]
AlphaRecord = Annotated[Rectangle, Field(min_length=EDGES, max_length=EDGES)]


class DataRecord(TypedDict, total=False):
    """Data set in ``config.yaml``."""

    __pydantic_config__ = RULES
    kind: str
    root: str | None


class ConfigRecord(TypedDict, total=False):
    """``config.yaml`` of any command, without the command."""

    __pydantic_config__ = RULES
    data: DataRecord
    network: str
    pretrained: str | None
    tail: str
    space: str
    epochs: Count


class EnvironmentRecord(TypedDict, total=False):
    """``environment.json``."""

    __pydantic_config__ = RULES
    date: str
    python: str
    packages: dict[str, str | None]
    platform: str
    cpu: str
    cpu_threads: Count
    gpus: list[str]
    commit: str | None


class EpochRecord(TypedDict, total=False):
    """One epoch in ``history.json``."""

    __pydantic_config__ = RULES
    epoch: Annotated[Count, Field(ge=1)]
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


class StageRecord(TypedDict):
    """Costs of one stage of a network."""

    __pydantic_config__ = RULES
    name: str
    params_M: Number
    flops_G: Number
    activation_MB: Number


class CostsRecord(TypedDict):
    """Costs of a network."""

    __pydantic_config__ = RULES
    height: Count
    width: Count
    num_classes: Count
    params_M: Number
    flops_G: Number
    activation_MB: Number
    stages: list[StageRecord]


class ScoresRecord(TypedDict, total=False):
    """Scores of a network: ``untrained.json``."""

    __pydantic_config__ = RULES
    rank1: Fraction
    rank5: Fraction
    rank10: Fraction
    mAP: Fraction
    mAP_trapezoid: Fraction
    mINP: Fraction
    num_query: Count
    num_valid: Count
    chance: "ScoresRecord"


class MetricsRecord(ScoresRecord, total=False):
    """``metrics.json`` of any command."""

    network: str
    untrained: ScoresRecord
    params_M: Number
    flops_G: Number
    costs: CostsRecord


class SearchMetricsRecord(TypedDict):
    """``metrics.json`` of a search."""

    __pydantic_config__ = RULES
    entropy_normal: Number
    entropy_reduce: Number
    genotype: GenotypeRecord


class PictureRecord(TypedDict):
    """Image of a ranked list, a JPEG in base64."""

    __pydantic_config__ = RULES
    path: str
    camera: Identity | None
    picture: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]*={0,2}$")]


class QueryRecord(PictureRecord, total=False):
    """Query of a ranked list, with its saliency map."""

    looks: Rectangle


class EntryRecord(PictureRecord):
    """Gallery image of a ranked list."""

    match: bool


class RankedListRecord(TypedDict):
    """Ranked list of one query."""

    __pydantic_config__ = RULES
    kind: Literal["best", "typical", "worst"]
    query: QueryRecord
    average_precision: Fraction
    first_hit: Annotated[Count, Field(ge=1)]
    matches: Count
    entries: list[EntryRecord]


class RetrievalRecord(TypedDict):
    """``retrieval.json``."""

    __pydantic_config__ = RULES
    cmc: Annotated[list[Fraction], Field(min_length=1)]
    average_precision: list[Fraction | None]
    lists: list[RankedListRecord]
