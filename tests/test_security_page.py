"""Each line of the security page names the tests that hold it, and they are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

PROJECT = Path(__file__).parents[1]
PAGE = PROJECT / "docs" / "explanation" / "security.md"


def lines_of_the_tables() -> list[str]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("| ") and not line.startswith("| threat |")]


def named_in(line: str) -> list[tuple[str, str]]:
    """The files and the functions that a line names."""
    return re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", line)


def test_each_line_names_a_test() -> None:
    lines = lines_of_the_tables()
    assert len(lines) >= 15
    assert not [line for line in lines if not named_in(line)]


def test_each_test_that_is_named_is_there() -> None:
    for line in lines_of_the_tables():
        for file, function in named_in(line):
            tree = ast.parse((PROJECT / file).read_text(encoding="utf-8"))
            there = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
            assert function in there, f"{file}::{function}"
