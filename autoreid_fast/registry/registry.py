"""Registries: named things of one kind, each with a builder and a config class.

The package registers its own data sets, backbones, losses, search algorithms, candidate operations and search
spaces in the same way as users do.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from autoreid_fast.errors import AutoReIDError, describe_error, did_you_mean
from autoreid_fast.registry.plugins import imported_plugins, load_entry_points

Builder = TypeVar("Builder", bound=Callable[..., Any])
AnyBuilder = TypeVar("AnyBuilder", bound=Callable[..., Any])

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Entry(Generic[Builder]):
    """One registered thing.

    Attributes:
        kind: What it is, for errors: "data set".
        name: What configs and the command line call it.
        builder: The decorated function or class.
        config: Its config class, the type of the builder's first parameter; None if that is not a config.
        origin: File and line of the builder, for errors.
    """

    kind: str
    name: str
    builder: Builder
    config: type[BaseModel] | None
    origin: str

    def build(self, *arguments: Any, **options: Any) -> Any:
        """Call the builder.

        Raises:
            AutoReIDError: it has other parameters; or as for `naming_errors`.
        """
        try:
            inspect.signature(self.builder).bind(*arguments, **options)
        except TypeError as error:
            given = ", ".join([*(type(argument).__name__ for argument in arguments), *options])
            how = f"with ({given})" if given else "without arguments"
            raise AutoReIDError(
                f"{self.kind} {self.name} ({self.origin}): cannot be called {how}: {error}; change its "
                "parameters"
            ) from None
        with self.naming_errors():
            return self.builder(*arguments, **options)

    @property
    def own(self) -> bool:
        """Whether it is a user's, not the package's."""
        return not self.builder.__module__.startswith("autoreid_fast.")

    @contextmanager
    def naming_errors(self) -> Iterator[None]:
        """Name a user's thing, and its line, in errors that its code raises in the block.

        Raises:
            AutoReIDError: any exception of a user's code, which stays its cause.
        """
        try:
            yield
        except AutoReIDError:
            raise
        except Exception as error:
            if not self.own:
                raise
            problem = describe_error(error, _file_of(self.builder))
            raise AutoReIDError(f"{self.kind} {self.name} raises {problem}") from error

    @property
    def summary(self) -> str:
        """First line of the builder's docstring."""
        return (inspect.getdoc(self.builder) or "").partition("\n")[0]


class Registry(Generic[Builder]):
    """Things of one kind by name: from the package, from plugins and from the user's modules.

    Args:
        kind: What is registered, for errors: "data set".
        builtin: Module that registers the package's own things; imported at the first lookup.

    Examples:
        >>> from autoreid_fast.registry import Registry
        >>> shapes = Registry("shape", "math")
        >>> @shapes.register("square")
        ... def square(side: float) -> float:
        ...     "A square's area."
        ...     return side * side
        >>> shapes["square"].builder(3.0)
        9.0
        >>> shapes["sqare"]
        Traceback (most recent call last):
        autoreid_fast.errors.AutoReIDError: unknown shape 'sqare': did you mean square?
    """

    def __init__(self, kind: str, builtin: str) -> None:
        self.kind = kind
        self._builtin = builtin
        self._entries: dict[str, Entry[Builder]] = {}

    def register(self, name: str) -> Callable[[AnyBuilder], AnyBuilder]:
        """Register the decorated function or class as ``name``.

        Running the same definition again, as in a notebook, replaces it.

        Raises:
            AutoReIDError: the name is already taken, or has other characters than letters, digits, ``_``,
                ``-`` and ``.``.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise AutoReIDError(
                f"{self.kind} {name!r}: expected a name of letters, digits, _, - and ., which starts with a "
                "letter or a digit"
            )

        def decorate(builder: AnyBuilder) -> AnyBuilder:
            if not callable(builder):
                raise AutoReIDError(f"{self.kind} {name}: expected a function or a class, got {builder!r}")
            entry: Entry[Any] = Entry(self.kind, name, builder, _config_of(builder), _origin_of(builder))
            present = self._entries.get(name)
            if present is not None and not _same_definition(present.builder, builder):
                raise AutoReIDError(
                    f"{self.kind} {name!r} is registered twice, by {present.origin} and by {entry.origin}: "
                    "rename one of them"
                )
            self._entries[name] = entry
            return builder

        return decorate

    def __getitem__(self, name: str) -> Entry[Builder]:
        """Return the entry called ``name``.

        Raises:
            AutoReIDError: nothing is registered under that name.
        """
        if name not in self:
            raise self.unknown(name)
        return self._entries[name]

    def unknown(self, name: object, other: str = "") -> AutoReIDError:
        """Return the error for a name under which nothing is registered.

        Args:
            name: The name.
            other: What it may be instead of a name: "a genotype.json or ".
        """
        return unknown_name(self.kind, name, tuple(self._entries), other)

    def __contains__(self, name: object) -> bool:
        """Return whether ``name`` is registered; plugins are imported if it is not known without them."""
        import_module(self._builtin)
        if isinstance(name, str) and name not in self._entries:
            load_entry_points()
        return isinstance(name, str) and name in self._entries

    def entries(self) -> tuple[Entry[Builder], ...]:
        """Return all entries in order of registration."""
        import_module(self._builtin)
        load_entry_points()
        return tuple(self._entries.values())

    def names(self) -> tuple[str, ...]:
        """Return the names of all entries, in the order of ``entries``."""
        return tuple(entry.name for entry in self.entries())


def _config_of(builder: Callable[..., Any]) -> type[BaseModel] | None:
    first = next(iter(inspect.signature(builder, eval_str=True).parameters.values()), None)
    annotation = first.annotation if first else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def unknown_name(kind: str, name: object, known: Sequence[str], other: str = "") -> AutoReIDError:
    """Return the error for a name that no module has registered: a suggestion, or the known names."""
    hint = did_you_mean(str(name), known) or (
        f"expected {other}one of {', '.join(known)}, or import the module that registers it (--import on the "
        "command line)"
    )
    modules = f" (imported: {', '.join(imported_plugins())})" if imported_plugins() else ""
    return AutoReIDError(f"unknown {kind} {name!r}: {hint}{modules}")


def _file_of(builder: Callable[..., Any]) -> str | None:
    try:
        return inspect.getsourcefile(builder)
    except TypeError:  # typed into an interpreter
        return None


def _origin_of(builder: Callable[..., Any]) -> str:
    try:
        line = inspect.getsourcelines(builder)[1]
    except (OSError, TypeError):  # typed into an interpreter
        return f"{builder.__module__}.{builder.__qualname__}"
    return f"{_file_of(builder)}:{line}"


def _same_definition(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)
