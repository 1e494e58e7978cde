"""Configs whose class a registered name chooses, from Python, from files and from a command line."""

import copy
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
import tyro
from pydantic import Field, SerializeAsAny, create_model

from autoreid_fast.commands.forms import form_of
from autoreid_fast.commands.options import parse
from autoreid_fast.data.config import DataConfig
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.registry import RegisteredConfig, Registry
from autoreid_fast.schema import Config, from_values

SHAPES: Registry = Registry("shape", "math")


class ShapeConfig(RegisteredConfig):
    registry: ClassVar[Registry] = SHAPES
    key: ClassVar[str] = "shape"
    default: ClassVar[str] = "square"

    shape: str = Field("square", description="The shape.")
    colour: str = "red"


class SquareConfig(ShapeConfig):
    side: float = 1.0


class Ellipse(Config):
    axes: tuple[int, int] = (2, 1)


class EllipseConfig(ShapeConfig):
    ellipse: Ellipse = Field(default_factory=Ellipse)
    angle: float = 0.0


class StarConfig(ShapeConfig):
    points: int


class SkyConfig(ShapeConfig):
    colour: str = "blue"


@SHAPES.register("square")
def square(config: SquareConfig) -> None: ...


@SHAPES.register("ellipse")
def ellipse(config: EllipseConfig) -> None: ...


@SHAPES.register("star")
def star(config: StarConfig) -> None: ...


@SHAPES.register("sky")
def sky(config: SkyConfig) -> None: ...


@SHAPES.register("dot")
def dot(config: ShapeConfig) -> None: ...


class Drawing(Config):
    """A drawing."""

    shape: SerializeAsAny[ShapeConfig] = Field(default_factory=ShapeConfig, description="What to draw.")
    copies: int = 1


def read(values: dict[str, Any]) -> ShapeConfig:
    return from_values(Drawing, {"shape": values}, "my.yaml").shape


def test_the_name_chooses_the_class() -> None:
    assert type(Drawing().shape) is SquareConfig
    assert type(read({})) is SquareConfig
    assert type(read({"shape": "ellipse", "angle": 3})) is EllipseConfig
    assert type(ShapeConfig(shape="ellipse")) is EllipseConfig
    assert type(from_values(ShapeConfig, {"shape": "star", "points": 5}, "my.yaml")) is StarConfig


def test_a_class_has_its_name_as_default() -> None:
    assert EllipseConfig().shape == "ellipse"
    assert EllipseConfig.model_validate({}) == ShapeConfig(shape="ellipse")
    with pytest.raises(AutoReIDError, match="not the shape that EllipseConfig is the config of"):
        EllipseConfig(shape="square")

    class Unregistered(ShapeConfig): ...

    with pytest.raises(AutoReIDError, match="Unregistered: no shape is registered with this config"):
        Unregistered()


def test_a_builder_of_the_base_class_has_no_further_fields() -> None:
    config = ShapeConfig(shape="dot", colour="blue")
    assert (config.shape, config.colour) == ("dot", "blue")
    with pytest.raises(AutoReIDError, match=r"shape\.side: a field of shape square, not of dot"):
        read({"shape": "dot", "side": 2})


@pytest.mark.parametrize("config", [SquareConfig(side=2), StarConfig(points=5), ShapeConfig(shape="dot")])
def test_a_written_config_reads_back_equal(config: ShapeConfig) -> None:
    drawing = Drawing(shape=config)
    assert from_values(Drawing, drawing.model_dump(), "my.yaml") == drawing
    assert Drawing.model_validate_json(drawing.model_dump_json()) == drawing
    assert copy.deepcopy(drawing) == drawing
    assert hash(drawing) == hash(drawing.model_copy())


def test_fields_of_other_names_are_dropped_at_their_defaults() -> None:
    """Earlier versions recorded the fields of all names."""
    flat = {"shape": "square", "side": 3, "angle": 0, "ellipse": {"axes": [2, 1]}}
    assert read(flat) == SquareConfig(side=3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"angle": 1}, "shape.angle: a field of shape ellipse, not of square; leave it out, got 1"),
        ({"ellipse": {"axes": [1, 1]}}, "shape.ellipse: a field of shape ellipse, not of square"),
        ({"angle": "wide"}, "shape.angle: a field of shape ellipse, not of square; leave it out, got 'wide'"),
        ({"points": 5}, "shape.points: a field of shape star, not of square"),
        ({"shape": "elipse"}, "shape.shape: unknown shape 'elipse': did you mean ellipse?"),
        ({"shape": ["square"]}, "shape.shape: "),
        ({"shape": "star"}, "shape.points: missing"),
        ({"sides": 1}, "shape.sides: unknown field, did you mean side?"),
        ({"shape": "ellipse", "angel": 1}, "shape.angel: unknown field, did you mean angle?"),
        ({"side": "long"}, "shape.side: expected a valid number"),
    ],
)
def test_a_wrong_field_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(AutoReIDError) as error:
        read(values)
    assert str(error.value).startswith(f"my.yaml: {message}")


def parsed(base: Config, *arguments: str) -> Any:
    form = form_of(base, list(arguments))
    options = create_model("Options", form=(Annotated[type(form), tyro.conf.arg(name="")], form))
    return parse(options, "draw", list(arguments)).form.model_dump()


def options_of(*arguments: str, base: Config | None = None) -> Any:
    return from_values(Drawing, parsed(base or Drawing(), *arguments), "draw")


def test_a_command_line_has_the_options_of_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert options_of() == Drawing()
    assert options_of("--copies", "2", "--shape.side", "3").shape == SquareConfig(side=3)
    chosen = options_of("--shape.shape=ellipse", "--shape.ellipse.axes", "3", "4", "--shape.colour", "blue")
    assert chosen.shape == EllipseConfig(ellipse=Ellipse(axes=(3, 4)), colour="blue")
    assert options_of("--shape.shape", "star", "--shape.points", "5").shape == StarConfig(points=5)
    with pytest.raises(SystemExit):
        options_of("--shape.shape", "ellipse", "--help")
    shown = capsys.readouterr().out
    assert "--shape.angle" in shown
    assert "--shape.side" not in shown
    assert "{square,ellipse,star,sky,dot}" in shown


def test_a_command_line_keeps_the_common_fields_of_its_defaults() -> None:
    base = Drawing(shape=SquareConfig(side=3, colour="green"), copies=7)
    assert options_of(base=base) == base
    assert options_of("--shape.shape", "ellipse", base=base) == Drawing(
        shape=EllipseConfig(colour="green"), copies=7
    )


def test_a_chosen_class_has_its_own_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert options_of("--shape.shape", "sky").shape == SkyConfig(colour="blue")
    base = Drawing(shape=ShapeConfig(colour="green"))
    assert options_of("--shape.shape", "sky", base=base).shape == SkyConfig(colour="green")


def test_an_unknown_name_on_a_command_line_is_an_error() -> None:
    with pytest.raises(
        AutoReIDError, match=r"^--shape\.shape: unknown shape 'elipse': did you mean ellipse\?"
    ):
        options_of("--shape.shape", "elipse")


def test_a_whole_config_can_be_chosen_by_a_name() -> None:
    values = parsed(ShapeConfig(), "--shape", "ellipse", "--angle", "5")
    assert from_values(ShapeConfig, values, "draw") == EllipseConfig(angle=5)


def test_paths_are_left_out_of_what_is_published(tmp_path: Path) -> None:
    config = DataConfig(root=tmp_path, distractors=tmp_path, cache_dir=tmp_path, height=32)
    assert config.without_paths() == DataConfig(height=32)
