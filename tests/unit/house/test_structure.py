"""A newcomer finds every room: files and functions stay small, and each file says what it is for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).resolve().parents[3]
ROOMS = ("core", "services", "gateway", "cli", "deploy", "bench", "tools")
MOST_LINES, MOST_LINES_OF_TESTS = 450, 600
MEDIAN, LONGEST = 10, 60
_GENERATED = ("_pb2.py", "_pb2_grpc.py")


def _files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from (p for p in (ROOT / folder).rglob("*.py") if not p.name.endswith(_GENERATED))


@cache
def _trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in _files(*ROOMS)}


def _functions() -> Iterator[tuple[int, str]]:
    """Yield lines and name of every function and method, decorators left out."""
    for path, tree in _trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield (node.end_lineno or 0) - node.lineno + 1, f"{path.relative_to(ROOT)}: {node.name}"


@pytest.mark.parametrize(("folders", "most"), [(ROOMS, MOST_LINES), (("tests",), MOST_LINES_OF_TESTS)])
def test_no_file_is_too_long_to_be_read(folders: tuple[str, ...], most: int) -> None:
    lines = {str(path.relative_to(ROOT)): path.read_bytes().count(b"\n") for path in _files(*folders)}

    assert {name: count for name, count in lines.items() if count > most} == {}


def test_functions_are_small() -> None:
    sizes = [size for size, _ in _functions()]

    assert median(sizes) < MEDIAN
    assert [name for size, name in _functions() if size > LONGEST] == []


def test_every_file_says_what_it_is_for() -> None:
    silent = [
        str(p.relative_to(ROOT)) for p, tree in _trees().items() if tree.body and not ast.get_docstring(tree)
    ]

    assert silent == []
