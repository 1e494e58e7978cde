"""The house rules that a reader of one file cannot see: arrows between rooms point down, files stay short."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "autoreid_fast"

# The storeys, top first; a room may import those below its own storey, and itself.
STOREYS = [
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
    {"files", "schema"},
    {"errors", "lazy"},
]
LEVEL = {room: level for level, rooms in enumerate(STOREYS) for room in rooms}
FOLDERS = {
    "autoreid_fast": ROOT / "autoreid_fast",
    "kernels": ROOT / "kernels",
    "benchmarks": ROOT / "benchmarks",
}
SOURCES = [path for folder in FOLDERS.values() for path in sorted(folder.rglob("*.py"))]
BARE = {"kernels", "benchmarks"}
"""Mapped into the package: importable as autoreid_fast.kernels and autoreid_fast.benchmarks alone."""


def module_of(path: Path) -> list[str]:
    """The parts of a file's module name, ``kernels/`` and ``benchmarks/`` under the package."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] in BARE:
        parts.insert(0, PACKAGE)
    return parts


def imports_of(path: Path) -> Iterator[list[str]]:
    """The modules that a file imports, at its top or in a function, each as its parts."""
    own = module_of(path)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")
        elif isinstance(node, ast.ImportFrom):
            base = own[: -node.level] if node.level else []
            module = base + (node.module.split(".") if node.module else [])
            # `from autoreid_fast import ops` imports a room as well
            yield from [[*module, alias.name] for alias in node.names] if module == [PACKAGE] else [module]


def upward(own: str, imported: str) -> bool:
    return own != imported and LEVEL[imported] <= LEVEL[own]


def test_every_room_has_its_storey() -> None:
    rooms = {module_of(path)[1] for path in SOURCES} - {"__init__"}
    assert rooms <= set(LEVEL), f"no storey for {sorted(rooms - set(LEVEL))}: give it one in {__file__}"


def test_arrows_point_down() -> None:
    wrong = []
    for path in SOURCES:
        own = module_of(path)[1]
        for parts in imports_of(path):
            if parts[0] != PACKAGE or len(parts) < 2 or parts[1] not in LEVEL:
                continue
            if own != "__init__" and upward(own, parts[1]):
                wrong.append(f"{path.relative_to(ROOT)} imports {'.'.join(parts)}")
    assert not wrong, "\n".join(wrong)


def test_this_test_sees_an_arrow_that_points_up() -> None:
    assert upward("data", "training")
    assert upward("configs", "benchmarks")
    assert not upward("training", "data")
    assert not upward("nas", "nas")
    seen = {".".join(parts) for parts in imports_of(ROOT / "autoreid_fast" / "commands" / "bench.py")}
    assert "autoreid_fast.benchmarks" in seen  # imported in a function


def test_mapped_packages_are_never_imported_bare() -> None:
    tests = sorted((ROOT / "tests").rglob("*.py"))
    bare = [
        f"{path.relative_to(ROOT)} imports {'.'.join(parts)}"
        for path in [*SOURCES, *tests]
        for parts in imports_of(path)
        if parts and parts[0] in BARE
    ]
    assert not bare, "\n".join(bare)


def text_files() -> list[Path]:
    suffixes = {".py", ".h", ".cpp", ".cu", ".cuh", ".md", ".yaml", ".toml", ".sh"}
    folders = ("autoreid_fast", "benchmarks", "csrc", "kernels", "tests", "docs", ".ci")
    below = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in suffixes]
    return sorted([*below, *(path for path in ROOT.iterdir() if path.suffix in suffixes)])


def test_no_file_is_long() -> None:
    counted = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in text_files()}
    assert len(counted) > 100
    long = [f"{path.relative_to(ROOT)}: {lines} lines" for path, lines in counted.items() if lines > 400]
    assert not long, "\n".join(long)
