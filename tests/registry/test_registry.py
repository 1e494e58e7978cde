"""Registries: names, configs, duplicates and lookups."""

import doctest
import sys
from types import ModuleType

import pytest

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.registry import Registry, registry
from autoreid_fast.schema import Config


class SquareConfig(Config):
    side: float = 1.0


@pytest.fixture
def shapes() -> Registry:
    shapes: Registry = Registry("shape", "math")

    @shapes.register("square")
    def square(config: SquareConfig) -> float:
        """Area of a square.

        More about it.
        """
        return config.side**2

    return shapes


def test_an_entry_has_its_builder_config_and_summary(shapes: Registry) -> None:
    entry = shapes["square"]
    assert entry.builder(SquareConfig(side=3)) == 9
    assert entry.config is SquareConfig
    assert entry.summary == "Area of a square."
    assert "square" in shapes
    assert shapes.names() == ("square",)


def test_a_builder_may_be_a_class_and_need_no_config(shapes: Registry) -> None:
    @shapes.register("circle")
    class Circle:
        def __init__(self, config: "SquareConfig") -> None: ...

    @shapes.register("point")
    def point() -> None: ...

    @shapes.register("line")
    def line(length: float) -> None: ...

    assert shapes["circle"].config is SquareConfig
    assert shapes["circle"].builder is Circle
    assert shapes["point"].config is None
    assert shapes["line"].config is None
    assert shapes["point"].summary == ""


def test_a_name_registered_twice_names_both_origins(shapes: Registry) -> None:
    with pytest.raises(AutoReIDError) as error:

        @shapes.register("square")
        def another() -> None: ...

    assert str(error.value).startswith("shape 'square' is registered twice, by ")
    assert str(error.value).count("test_registry.py:") == 2
    assert shapes["square"].config is SquareConfig


def test_the_same_definition_again_replaces_the_first() -> None:
    shapes: Registry = Registry("shape", "math")
    for number in (1, 2):

        @shapes.register("dot")
        def dot(number: int = number) -> int:
            return number

    assert shapes["dot"].builder() == 2


def test_an_unknown_name_gets_a_suggestion_or_the_list(shapes: Registry) -> None:
    with pytest.raises(AutoReIDError, match=r"^unknown shape 'sqare': did you mean square\?$"):
        shapes["sqare"]
    with pytest.raises(
        AutoReIDError, match=r"^unknown shape 'xyz': expected one of square, or import the module"
    ):
        shapes["xyz"]
    assert "xyz" not in shapes


@pytest.mark.parametrize("name", ["", "a b", "folder/name", "-a", "é,"])
def test_an_invalid_name(shapes: Registry, name: str) -> None:
    with pytest.raises(AutoReIDError, match="expected a name of letters, digits"):
        shapes.register(name)


def test_builtin_entries_are_imported_at_the_first_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: Registry = Registry("shape", "my_builtin_shapes")
    builtin = ModuleType("my_builtin_shapes")
    monkeypatch.setitem(sys.modules, "my_builtin_shapes", builtin)
    shapes.register("dot")(lambda: None)
    assert "dot" in shapes
    monkeypatch.delitem(sys.modules, "my_builtin_shapes")
    with pytest.raises(ModuleNotFoundError):
        shapes.names()


def test_plugins_are_imported_for_a_name_that_nothing_else_has(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: Registry = Registry("shape", "math")
    calls = []

    def load_entry_points() -> None:
        calls.append(1)
        shapes.register("of_a_plugin")(lambda: None)

    monkeypatch.setattr(registry, "load_entry_points", load_entry_points)
    shapes.register("dot")(lambda: None)
    assert "dot" in shapes
    assert not calls
    assert "of_a_plugin" in shapes
    assert calls == [1]


def test_the_example_of_the_docstring_runs() -> None:
    assert doctest.testmod(registry).failed == 0


def test_only_what_can_be_called_is_registered_under_a_string(shapes: Registry) -> None:
    with pytest.raises(AutoReIDError, match="shape cube: expected a function or a class, got 3"):
        shapes.register("cube")(3)  # type: ignore[type-var]
    with pytest.raises(AutoReIDError, match=r"shape <class .*: expected a name of letters"):
        shapes.register(SquareConfig)  # type: ignore[arg-type]
    assert shapes.names() == ("square",)
