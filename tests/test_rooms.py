"""The layers of the package: imports point down between rooms and never in a circle inside one.

docs/develop/architecture.md describes the rooms.
"""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "autoreid_fast"

# Top first. A room may import the rooms below its layer, and itself.
LAYERS = [
    {"__main__"},
    {"cli"},
    {"commands"},
    {"tables"},
    {"benchmarks", "configs"},
    {"report"},
    {"inference"},
    {"search"},
    {"training"},
    {"evaluation"},
    {"runs"},
    {"data"},
    {"models"},
    {"nas", "losses"},
    {"kernels"},
    {"ops"},
    {"devices", "progress"},
    {"distributed"},
    {"stopping"},
    {"paper"},
    {"registry"},
    {"streams"},
    {"files", "schema"},
    {"errors", "lazy"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
LIKE_THINGS = {"autoreid_fast/commands"}
"""Folders that are a list of like things, which may be long."""
MOST_FILES = 12
FOLDERS = {
    "autoreid_fast": ROOT / "autoreid_fast",
    "kernels": ROOT / "kernels",
    "benchmarks": ROOT / "benchmarks",
}
SOURCES = [path for folder in FOLDERS.values() for path in sorted(folder.rglob("*.py"))]
MAPPED = {"kernels", "benchmarks"}
"""Folders importable only as autoreid_fast.kernels and autoreid_fast.benchmarks."""


def module_of(path: Path) -> str:
    """The dotted name of a file's module."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] in MAPPED:
        parts.insert(0, PACKAGE)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in SOURCES}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def imports_of(path: Path) -> Iterator[str]:
    """The modules that a file imports, at its top or in a function, but for those under TYPE_CHECKING."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for statement in block.body
        for node in ast.walk(statement)
    }
    package = module_of(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join(base + (node.module.split(".") if node.module else []))
            for alias in node.names:  # `from autoreid_fast import ops` imports a module as well
                name = f"{module}.{alias.name}"
                yield name if name in MODULES else module


def points_up(room: str, imported: str) -> bool:
    return room != imported and LEVEL[imported] <= LEVEL[room]


def inside(room: str) -> dict[str, set[str]]:
    """The modules of a room, each with those of the same room that it imports."""
    members = {module: path for module, path in MODULES.items() if room_of(module) == room}
    return {
        module: {name for name in imports_of(path) if name in members} for module, path in members.items()
    }


def test_every_room_has_its_layer() -> None:
    rooms = {room_of(module) for module in MODULES} - {"__init__"}
    assert rooms == set(LEVEL), f"LAYERS in {__file__} differs from the rooms by {sorted(rooms ^ set(LEVEL))}"


def test_imports_point_down() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for module, path in MODULES.items()
        for name in imports_of(path)
        if name.startswith(f"{PACKAGE}.") and room_of(name) in LEVEL
        if module != PACKAGE and points_up(room_of(module), room_of(name))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room", sorted(LEVEL))
def test_no_imports_in_a_circle(room: str) -> None:
    try:
        TopologicalSorter(inside(room)).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_this_test_sees_wrong_imports(tmp_path: Path) -> None:
    assert points_up("data", "training")
    assert points_up("configs", "benchmarks")
    assert not points_up("training", "data")
    assert not points_up("nas", "nas")
    assert "autoreid_fast.benchmarks" in set(imports_of(ROOT / "autoreid_fast" / "commands" / "bench.py"))
    assert inside("training")["autoreid_fast.training.loop"]
    with pytest.raises(CycleError):
        TopologicalSorter({"one": {"other"}, "other": {"one"}}).prepare()


def test_references_belong_to_their_ops() -> None:
    """Everything else calls the op, or takes the reference from its OpSpec."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for module, path in MODULES.items()
        for name in imports_of(path)
        if name.endswith(".reference") and not module.startswith(f"{PACKAGE}.ops.")
    ]
    assert not wrong, "\n".join(wrong)


def test_folders_stay_small() -> None:
    counts = {
        str(folder.relative_to(ROOT)): len(list(folder.glob("*.py")))
        for folder in {path.parent for path in SOURCES}
    }
    large = {name: count for name, count in counts.items() if count > MOST_FILES and name not in LIKE_THINGS}
    assert not large, f"more than {MOST_FILES} files at one level: {large}"


def test_mapped_packages_are_imported_by_their_full_names() -> None:
    tests = sorted((ROOT / "tests").rglob("*.py"))
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in [*SOURCES, *tests]
        for name in imports_of(path)
        if name.split(".")[0] in MAPPED
    ]
    assert not wrong, "\n".join(wrong)
