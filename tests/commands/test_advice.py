"""Errors advise options that exist."""

import ast
import re
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path

import autoreid_fast
from autoreid_fast.cli import main

PACKAGE = Path(autoreid_fast.__file__).parent
OPTION = re.compile(r"(?<![\w-])--[a-z][\w.-]*\w")
FIELD = re.compile(r"\b(?:data|batch|objective|omega|alpha|augmentation|distributed|gumbel)\.[a-z_]+\b")
COMMANDS = ("search", "train --data.kind folder", "pretrain", "eval", "tables", "parity", "search-gallery")
ELSEWHERE = {"--import", "--nproc-per-node"}
"""Options of every command, and of torchrun."""


def texts_of_errors(path: Path) -> Iterator[str]:
    for statement in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(statement, ast.Raise):
            texts = [node.value for node in ast.walk(statement) if isinstance(node, ast.Constant)]
            yield " ".join(text for text in texts if isinstance(text, str))


def options_of(command: str) -> set[str]:
    with redirect_stdout(StringIO()) as page, suppress(SystemExit):
        main([*command.split(), "--help"])
    return set(OPTION.findall(page.getvalue()))


def test_every_advised_option_exists() -> None:
    advised = set()
    for path in PACKAGE.rglob("*.py"):
        for text in texts_of_errors(path):
            advised |= set(OPTION.findall(text))
            advised |= {f"--{field.replace('_', '-')}" for field in FIELD.findall(text)}
    assert {"--resume", "--data.cache-dir", "--rerank"} & advised, "the errors were not read"
    known = ELSEWHERE.union(*map(options_of, COMMANDS))
    assert not advised - known
