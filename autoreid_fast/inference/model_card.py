"""Model card: all that is needed to use the weights of a trained network, and where they come from."""

import copy
import json
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator

from autoreid_fast import __version__
from autoreid_fast.models.registry import BACKBONES
from autoreid_fast.models.reid import ReIDNetwork
from autoreid_fast.nas.derived_network import DerivedNetwork
from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.ops.batch_from_cache import IMAGENET_MEAN, IMAGENET_STD
from autoreid_fast.runs.environment import environment
from autoreid_fast.runs.folder import RunFolder
from autoreid_fast.runs.records import EnvironmentRecord, MetricsRecord, read_if_possible
from autoreid_fast.schema import Config
from autoreid_fast.training.config import TrainConfig
from autoreid_fast.training.network import identities_of

SEARCHED = "searched"
"""Name of a network that has no name of its own; its genotype is in the card."""
LICENSE = "not stated: the terms of the training data apply"


class _Convention(Config):
    """Part of a card whose fields with a default say what the code does; another value would be ignored."""

    @model_validator(mode="after")
    def _require_defaults(self) -> Self:
        for name, field in type(self).model_fields.items():
            if not field.is_required() and getattr(self, name) != field.default:
                raise ValueError(f"{name}: expected {field.default!r}, the only one in use")
        return self


class InputCard(_Convention):
    """Input of the network."""

    height: int = Field(gt=0, le=10_000)
    width: int = Field(gt=0, le=10_000)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    layout: str = "images (batch, 3, height, width) float32, RGB, (value / 255 - mean) / std"
    resize: str = "bilinear, antialiased, to height x width whatever the shape; EXIF orientation ignored"


class OutputCard(_Convention):
    """Output of the network."""

    dimensions: int = Field(gt=0)
    layout: str = "features (batch, dimensions) float32 of length 1, compared by Euclidean distance"


class DataCard(Config):
    """Training data of the network."""

    kind: str
    identities: int = Field(ge=0, le=10_000_000)


class ModelCard(Config):
    """Description of a trained network: enough to build it again and to run it.

    Attributes:
        genotype: the cells as in genotype.json; None for a ResNet.
        metrics: ``metrics.json`` of the training; None if it is unfinished, or for another checkpoint than
            the last one.
        trained_with: date, versions and commit of the training.
        config: config of the training, without paths.
    """

    format: Literal[1] = 1
    network: str
    genotype: dict[str, Any] | None
    input: InputCard
    output: OutputCard
    data: DataCard
    metrics: dict[str, Any] | None
    license: str
    autoreid_fast: str
    torch: str
    commit: str | None
    trained_with: dict[str, Any]
    config: TrainConfig

    def architecture(self) -> str | Genotype:
        """The network as `build_backbone` accepts it: its name or its genotype."""
        return self.network if self.genotype is None else Genotype(**self.genotype)


def card_of(model: ReIDNetwork, config: TrainConfig, run: RunFolder, license: str = LICENSE) -> ModelCard:
    """Describe a network that was trained in ``run`` with ``config``."""
    name = config.network if config.network in BACKBONES else SEARCHED
    public = {"network": name, "pretrained": None, "data": config.data.without_paths()}
    training_environment = read_if_possible(run.environment, EnvironmentRecord, {})
    metrics = None  # of another checkpoint than the last
    if run.chosen is None:
        metrics = read_if_possible(run.metrics, MetricsRecord, None)
    if metrics is not None:
        metrics["network"] = name
    return ModelCard(
        network=name,
        genotype=_genotype(model),
        input=InputCard(height=config.data.height, width=config.data.width),
        output=OutputCard(dimensions=dimensions_of(model, config.data.height, config.data.width)),
        data=DataCard(kind=config.data.kind, identities=identities_of(model.state_dict())),
        metrics=metrics,
        license=license,
        autoreid_fast=__version__,
        torch=str(torch.__version__),
        commit=environment()["commit"],
        trained_with={key: training_environment.get(key) for key in ("date", "packages", "commit")},
        config=config.model_copy(update=public),
    )


def _genotype(model: ReIDNetwork) -> dict[str, Any] | None:
    if not isinstance(model.backbone, DerivedNetwork):
        return None
    genotype: dict[str, Any] = json.loads(model.backbone.genotype.to_json())
    return genotype


def dimensions_of(model: ReIDNetwork, height: int, width: int) -> int:
    """Length D of a feature, by a forward pass on the meta device."""
    image = torch.empty(1, 3, height, width, device="meta")
    with torch.no_grad():
        return copy.deepcopy(model).to("meta").eval().descriptor(image).shape[1]
