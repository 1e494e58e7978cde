"""Ways to garble a JSON or YAML file."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

TEXTS: tuple[bytes, ...] = (
    b"",
    b"\x00" * 64,
    bytes(range(256)),
    b"\xff\xfe{}",
    b"null",
    b"[]",
    b"{}",
    b"3",
    b'"text"',
    b"[null]",
    b"[[1, 2]]",
    b'{"a": 1}',
    b"[" * 100_000,
    b'{"a": ' * 5_000,
    b"9" * 5_000,
    b"{: [}",
    b"2019-13-45",
    b"&a [*a, *a]",
    b"!!python/object/apply:os.getcwd []",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    10**30,
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "text",
    "\ud800",
    "x" * 10_000,
    [],
    {},
    [[]],
    [[1.0], [1.0, 2.0]],
    {"a": 1},
)


def garbled(path: Path) -> Iterator[bytes]:
    """Yield contents for ``path``: other texts, its own cut short, and its own with one value replaced."""
    content, value = path.read_bytes(), read(path)
    yield from TEXTS
    yield content[: len(content) // 2]
    yield content[:7] + b"\xff" + content[8:]
    for other in changed(value):
        yield dump(other, path)


def read(path: Path) -> Any:
    return (yaml.safe_load if path.suffix == ".yaml" else json.loads)(path.read_text(encoding="utf-8"))


def dump(value: Any, path: Path) -> bytes:
    text = yaml.safe_dump(value) if path.suffix == ".yaml" else json.dumps(value)
    return text.encode("utf-8", "surrogatepass")


def changed(value: Any) -> Iterator[Any]:
    """Yield copies of ``value`` with one part, at any depth, replaced or removed."""
    for place in places(value):
        *parents, last = place
        for new in (*VALUES, KeyError):
            copied = copy.deepcopy(value)
            part = copied
            for key in parents:
                part = part[key]
            if new is KeyError:
                del part[last]
            else:
                part[last] = new
            yield copied


def places(value: Any) -> Iterator[tuple[Any, ...]]:
    """Where the parts of ``value`` are; of a list, the first and the last entry."""
    keys = list(value) if isinstance(value, dict) else sorted({0, len(value) - 1}) if value else []
    for key in keys:
        yield (key,)
        if isinstance(value[key], dict | list):
            yield from ((key, *rest) for rest in places(value[key]))
