"""Plugins: imported by name or path, recorded by runs, found by entry points."""

import logging
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from autoreid_fast.cli import main
from autoreid_fast.configs import load_config
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.registry import plugins
from autoreid_fast.registry.plugins import import_plugin, import_recorded, imported_plugins, take_imports
from autoreid_fast.runs.folder import RunFolder
from autoreid_fast.training.config import PretrainConfig


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start with no imported plugins in an empty directory; remove the imported modules afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(plugins, "_imported", [])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_can_import_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "neighbour_of_mine.py", "VALUE = 3")
    file = write(tmp_path / "elsewhere" / "my_plugin_file.py", "from neighbour_of_mine import VALUE")
    import_plugin(str(file))
    assert sys.modules["my_plugin_file"].VALUE == 3
    assert imported_plugins() == (str(file),)


def test_a_module_of_the_current_directory_is_recorded_by_its_path(tmp_path: Path) -> None:
    write(tmp_path / "my_package" / "__init__.py")
    file = write(tmp_path / "my_package" / "parts.py", "from . import __name__ as PACKAGE")
    import_plugin("my_package.parts")
    assert imported_plugins() == (str(file),)
    import_plugin(str(file))  # the same module again
    assert imported_plugins() == (str(file),)
    assert sys.modules["my_package.parts"].PACKAGE == "my_package"
    import_plugin("my_package")
    assert imported_plugins()[1] == str(tmp_path / "my_package" / "__init__.py")
    import_plugin(imported_plugins()[1])
    assert len(imported_plugins()) == 2


def test_an_installed_module_is_recorded_by_its_name() -> None:
    import_plugin("json.tool")
    assert imported_plugins() == ("json.tool",)


@pytest.mark.parametrize("source", ["nowhere", "json.nowhere", "no.where", "nowhere.py", ".", "a b"])
def test_a_missing_module_is_named(source: str) -> None:
    with pytest.raises(AutoReIDError, match=r"^import .*: no such (module|file).*give the"):
        import_plugin(source)


def test_a_file_cannot_take_the_name_of_another_module(tmp_path: Path) -> None:
    file = write(tmp_path / "json.py")
    with pytest.raises(AutoReIDError, match=r"the name json already means .*rename the file"):
        import_plugin(str(file))


def test_an_error_in_the_module_itself_keeps_its_traceback(tmp_path: Path) -> None:
    file = write(tmp_path / "my_broken_plugin.py", "import module_that_is_missing")
    with pytest.raises(ModuleNotFoundError, match="module_that_is_missing"):
        import_plugin(str(file))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a = 1\nb =\n", r"invalid syntax in .*unfinished\.py, line 2"),
        ("import sys; sys.exit(3)", "exit status 3"),
    ],
)
def test_a_module_that_cannot_run_is_named(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "unfinished.py").write_text(text, encoding="utf-8")
    with pytest.raises(AutoReIDError, match=words):
        import_plugin(str(tmp_path / "unfinished.py"))


def test_imports_are_taken_out_of_a_command_line() -> None:
    arguments = ["--import", "a", "train", "--import=b.py", "--run", "x", "--import", "c"]
    assert take_imports(arguments) == (["a", "b.py", "c"], ["train", "--run", "x"])
    for arguments in (["train", "--import"], ["train", "--import="]):
        with pytest.raises(AutoReIDError, match="--import: expected the name of a module"):
            take_imports(arguments)


def test_the_command_line_imports_before_the_command_parses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "my_printing_plugin.py", "print('imported')")
    assert main(["--import", "my_printing_plugin", "derive", "nowhere"]) == 2
    assert capsys.readouterr().out == "imported\n"
    assert main(["doctor", "--import"]) == 2
    assert "--import: expected the name of a module" in capsys.readouterr().err


def test_a_run_records_what_was_imported_and_imports_it_again(tmp_path: Path) -> None:
    file = write(tmp_path / "my_recorded_plugin.py")
    import_plugin("my_recorded_plugin")
    run = RunFolder(tmp_path / "run")
    run.start(PretrainConfig(), "pretrain")
    for read in (
        lambda: run.recorded("pretrain"),
        lambda: load_config(PretrainConfig, str(run.config), "pretrain"),
    ):
        plugins._imported.clear()
        del sys.modules["my_recorded_plugin"]
        assert "imports" not in dict(read())
        assert "my_recorded_plugin" in sys.modules
        assert imported_plugins() == (str(file),)
    file.unlink()
    plugins._imported.clear()
    del sys.modules["my_recorded_plugin"]
    with pytest.raises(AutoReIDError, match=r"config\.yaml: import .*my_recorded_plugin\.py: no such file"):
        run.recorded("pretrain")
    assert "imports" not in run.recorded()  # a report needs no plugin


def test_a_module_that_has_moved_is_imported_from_its_new_place(tmp_path: Path) -> None:
    write(tmp_path / "old" / "my_moved_plugin.py", "PLACE = 'old'")
    write(tmp_path / "old" / "a_package" / "__init__.py")
    with pytest.raises(
        AutoReIDError, match=r"my_moved_plugin\.py: no such file.*add --import with its new path"
    ):
        import_recorded([str(tmp_path / "gone" / "my_moved_plugin.py")], "my.yaml")
    import_plugin(str(tmp_path / "old" / "my_moved_plugin.py"))
    import_plugin(str(tmp_path / "old" / "a_package" / "__init__.py"))
    gone = [str(tmp_path / "gone" / name) for name in ("my_moved_plugin.py", "a_package/__init__.py")]
    import_recorded([*gone, "my_distribution.my_moved_plugin"], "my.yaml")
    assert imported_plugins()[0] == str(tmp_path / "old" / "my_moved_plugin.py")
    with pytest.raises(AutoReIDError, match="other_plugin"):
        import_recorded([str(tmp_path / "gone" / "other_plugin.py")], "my.yaml")


def test_a_run_without_imports_records_none(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.start(PretrainConfig(), "pretrain")
    assert "imports" not in run.config.read_text(encoding="utf-8")


@pytest.mark.parametrize("value", ["my_module", [3], {"a": 1}])
def test_a_damaged_list_of_imports_is_named(value: object) -> None:
    with pytest.raises(AutoReIDError, match=r"my\.yaml: imports: expected a list of modules, got"):
        import_recorded(value, "my.yaml")


def test_entry_points_are_imported_and_a_broken_one_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "my_entry_point.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    points = [metadata.EntryPoint(name, name, plugins.GROUP) for name in ("module_missing", "my_entry_point")]
    monkeypatch.setattr(plugins.metadata, "entry_points", lambda group: points)
    with caplog.at_level(logging.WARNING):
        plugins.load_entry_points.__wrapped__()
    assert "my_entry_point" in sys.modules
    assert "plugin module_missing (module_missing) cannot be imported" in caplog.text
