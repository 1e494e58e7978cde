"""The tables of `tests/tools/mutation.py`: nothing is forgotten, and every change is undone."""

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def mutation() -> ModuleType:
    specification = importlib.util.spec_from_file_location("mutation", HERE / "mutation.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_every_reference_and_every_module_of_nas_has_tests_that_own_it(mutation: ModuleType) -> None:
    patterns = ("ops/*/reference.py", "nas/**/*.py")
    paths = [path for pattern in patterns for path in mutation.PACKAGE.glob(pattern)]
    modules = {path.relative_to(mutation.PACKAGE).as_posix() for path in paths if path.name != "__init__.py"}
    assert modules <= set(mutation.OWNERS)
    for module, tests in mutation.OWNERS.items():
        assert (mutation.PACKAGE / module).is_file()
        assert all((HERE.parent / test).is_file() for test in tests), module


def test_mutants_differ_from_the_code_and_are_undone(mutation: ModuleType) -> None:
    code = "def f(a, b=1):\n    if a and b:\n        g(a, b, c=-a)\n    a += 2\n    return a < b"
    tree = ast.parse(code)
    found = [ast.unparse(tree) for _ in mutation.mutants(tree)]
    assert ast.unparse(tree) == code
    for old, new in [
        ("<", "<="),
        ("and", "or"),
        ("-a", "a"),
        ("b=1", "b=2"),
        ("b=1", "b=0"),
        ("a += 2", "pass"),
    ]:
        assert code.replace(old, new) in found
    for old, new in [
        (", c=-a", ""),
        ("g(a, b", "g(b, a"),
        ("g(a, b, c=-a)", "pass"),
        ("a and b", "not (a and b)"),
    ]:
        assert code.replace(old, new) in found
    assert len(found) == len(set(found)) == 13 and code not in found
