"""Plugins: modules outside the package that register what configs name.

That is: data sets, backbones, losses, search algorithms, candidate operations and search spaces.

A plugin is imported by ``--import`` on the command line, by the config.yaml of a run that was started with
it, or by an entry point of an installed package in the group ``autoreid_fast.plugins``.
"""

import logging
import sys
from collections.abc import Sequence
from functools import cache
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from autoreid_fast.errors import AutoReIDError

logger = logging.getLogger("autoreid_fast")

GROUP = "autoreid_fast.plugins"
OPTION = "--import"
RECORD = "imports"
"""Key of a run's config.yaml that lists the imported modules."""

_imported: list[str] = []


def import_plugin(source: str) -> None:
    """Import a module by its name or by the path of its ``.py`` file.

    A name is searched among the installed modules first, then in the current directory. A file in a package
    (a folder with ``__init__.py``) is imported as a module of that package.

    Raises:
        AutoReIDError: there is no such module or file, or another module has the name of the file.
    """
    path = Path(source).expanduser()
    location = _import_file(path.absolute()) if path.suffix == ".py" else _import_name(source)
    if location not in _imported:
        _imported.append(location)


def imported_plugins() -> tuple[str, ...]:
    """Return the modules imported so far: absolute paths, or names of installed modules."""
    return tuple(_imported)


def import_recorded(modules: Any, source: str) -> None:
    """Import the modules that a config.yaml lists.

    One that was imported already, from wherever it is now, stands for the recorded one of the same name.

    Args:
        modules: The list.
        source: The file, for errors.

    Raises:
        AutoReIDError: it is not a list of modules, or one of them cannot be found.
    """
    if not isinstance(modules, list) or not all(isinstance(module, str) for module in modules):
        raise AutoReIDError(f"{source}: {RECORD}: expected a list of modules, got {modules!r}")
    present = {_last_name(plugin) for plugin in imported_plugins()}
    for module in modules:
        if _last_name(module) in present:
            continue
        try:
            import_plugin(module)
        except AutoReIDError as error:
            raise AutoReIDError(
                f"{source}: {error}; if it has moved, add --import with its new path"
            ) from None


def take_imports(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line into the values of ``--import`` and all other arguments.

    Raises:
        AutoReIDError: an ``--import`` has no value.
    """
    modules: list[str] = []
    remaining: list[str] = []
    iterator = iter(arguments)
    for argument in iterator:
        name, equals, value = argument.partition("=")
        if name != OPTION:
            remaining.append(argument)
            continue
        module = value if equals else next(iterator, "")
        if not module:
            raise AutoReIDError(
                f"{OPTION}: expected the name of a module or the path of a .py file, got nothing"
            )
        modules.append(module)
    return modules, remaining


@cache
def load_entry_points() -> None:
    """Import the plugins of installed packages, once.

    A plugin that cannot be imported is logged and skipped, since not every command needs it.
    """
    for entry_point in metadata.entry_points(group=GROUP):
        try:
            entry_point.load()
        except Exception as error:
            logger.warning(
                "plugin %s (%s) cannot be imported: %r", entry_point.name, entry_point.value, error
            )


def _last_name(source: str) -> str:
    """The name of a module without its packages or folders."""
    path = Path(source)
    if path.suffix != ".py":
        return source.rpartition(".")[2]
    return path.parent.name if path.stem == "__init__" else path.stem


def _import_name(name: str) -> str:
    """Import ``name``; return its path if it is in the current directory, otherwise its name."""
    folder = Path.cwd()
    _add_to_path(folder)
    if not _exists(name):
        raise AutoReIDError(
            f"import {name}: no such module, neither installed nor in {folder}; give the name of a module or "
            "the path of a .py file"
        )
    file = _run(name, name).__file__
    local = folder.joinpath(*name.split("."))
    return file if file in (f"{local}.py", f"{local / '__init__.py'}") else name


def _import_file(path: Path) -> str:
    if not path.is_file():
        raise AutoReIDError(
            f"import {path}: no such file; give the path of a .py file or the name of a module"
        )
    parts = [] if path.name == "__init__.py" else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    _add_to_path(folder)
    name = ".".join(parts)
    file = _run(name, str(path)).__file__ if _exists(name) else None
    if file is None or not Path(file).samefile(path):
        raise AutoReIDError(
            f"import {path}: the name {name} already means {file or 'a module of Python'}; rename the file"
        )
    return str(path)


def _run(name: str, source: str) -> ModuleType:
    """Import module ``name``; errors that its code raises keep their traceback, which leads to the line."""
    try:
        return import_module(name)
    except SyntaxError as error:
        raise AutoReIDError(
            f"import {source}: {error.msg} in {error.filename}, line {error.lineno}"
        ) from None
    except SystemExit as error:
        raise AutoReIDError(
            f"import {source}: the module ends the program (exit status {error.code})"
        ) from None


def _add_to_path(folder: Path) -> None:
    """Make the modules of ``folder`` importable, without replacing installed modules."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _exists(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # the parent is not a package; the name is empty or relative
        return False
