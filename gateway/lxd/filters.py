"""LXD's filter expressions: `[not] FIELD (eq|ne) VALUE {and|or ...}`, evaluated from left to right."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from core.errors import Invalid

_MAX = 4096


@dataclass(frozen=True)
class Clause:
    joined_by: str
    negated: bool
    field: str
    operator: str
    value: str

    def holds(self, item: dict[str, Any]) -> bool:
        equal = _matches(_lookup(item, self.field.split(".")), self.value)
        return (equal == (self.operator == "eq")) != self.negated


def parse(text: str) -> Callable[[dict[str, Any]], bool]:
    """Return a predicate over JSON objects. Raises: Invalid."""
    if len(text) > _MAX:
        raise _bad("it is longer than 4096 characters")
    try:
        words = shlex.split(text)
    except ValueError as exc:
        raise _bad(str(exc)) from None
    clauses = _clauses(words)
    return lambda item: _evaluate(clauses, item)


def _bad(why: str) -> Invalid:
    return Invalid("BAD_FILTER", f"Invalid filter: {why}")


def _clauses(words: list[str]) -> list[Clause]:
    found, joined, rest = list[Clause](), "and", list(words)
    while rest:
        negated = rest[0] == "not"
        rest = rest[1:] if negated else rest
        if len(rest) < 3 or rest[1] not in ("eq", "ne"):
            raise _bad("a clause needs FIELD eq|ne VALUE")
        found.append(Clause(joined, negated, rest[0], rest[1], rest[2]))
        rest = rest[3:]
        if rest:
            joined, rest = rest[0], rest[1:]
            if joined not in ("and", "or") or not rest:
                raise _bad("clauses are joined by and / or")
    return found


def _evaluate(clauses: list[Clause], item: dict[str, Any]) -> bool:
    result = True
    for clause in clauses:
        held = clause.holds(item)
        result = (result and held) if clause.joined_by == "and" else (result or held)
    return result


def _lookup(item: Any, path: list[str]) -> Any:
    """Follow *path*; keys of maps may hold dots themselves."""
    for i in range(len(path), 0, -1):
        key = ".".join(path[:i])
        if isinstance(item, dict) and key in item:
            return item[key] if i == len(path) else _lookup(item[key], path[i:])
    return None


def _matches(found: Any, value: str) -> bool:
    if found is None:
        return value == ""
    text = str(found).lower() if isinstance(found, bool) else str(found)
    if not re.fullmatch(r"[\w .*?+^$|()\[\]/:-]*", value) or len(value) > 256:
        return text.lower() == value.lower()
    pattern = value if "^" in value or "$" in value else f"^{value}$"
    try:
        return re.search(pattern, text[:1024], re.IGNORECASE) is not None
    except re.error:
        return text.lower() == value.lower()
