"""docs/lab/reliability.md names tests that there are, and `make reliability` runs them."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_tests_that_it_names_are_those_of_make_reliability() -> None:
    text, makefile = ((ROOT / name).read_text() for name in ("docs/lab/reliability.md", "Makefile"))
    target = makefile[makefile.index("\nreliability:") :].split("\n\n")[0]
    places = [ROOT / place for place in re.findall(r"tests/[\w./]+", target)]
    files = [file for place in places for file in (place.glob("test_*.py") if place.is_dir() else [place])]
    functions = set(re.findall(r"def (test_\w+)", "".join(path.read_text() for path in files)))
    named = re.findall(r"`(?:tests/[\w/]+/)?(test_\w+)(\.py|\.\.\.)?`", text)
    assert len(named) > 20
    for name, tail in named:
        known = {".py": {path.stem for path in files}, "": functions}.get(tail)
        assert name in known if known is not None else any(each.startswith(name) for each in functions), name
