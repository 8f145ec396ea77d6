"""LXD's filter expressions: `[not] FIELD (eq|ne) VALUE {and|or ...}`, evaluated from left to right."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from core.errors import Invalid

_MAX = 4096
_LONGEST_TEXT = 128


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
        if len(rest) < 3:
            raise _bad(f"clause has no {('field', 'operator', 'value')[len(rest)]}")
        if rest[1] not in ("eq", "ne"):
            raise _bad("a clause needs FIELD eq|ne VALUE")
        found.append(Clause(joined, negated, rest[0], rest[1], rest[2]))
        rest = rest[3:]
        if rest:
            joined, rest = rest[0], rest[1:]
            if joined not in ("and", "or") or not rest:
                raise _bad("clauses are joined by and / or")
    for clause in found:
        _pattern(clause.value)  # refused before anything is compared
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
    pattern = _pattern(value)
    if pattern is None:
        return text.lower() == value.lower()
    return pattern.search(text[:_LONGEST_TEXT]) is not None


@lru_cache(64)
def _pattern(value: str) -> re.Pattern[str] | None:
    """Return *value* as an expression, None when it is just a word.

    Python's matcher can take for ever on some expressions, and this is the loop that serves everybody:
    so repeated groups, and more than three repetitions in a row of a short text, are refused.

    Raises: Invalid.
    """
    if not re.fullmatch(r"[\w .*?+^$|()\[\]/:-]*", value) or len(value) > 256:
        return None
    value = re.sub(r"(\.\*)+", ".*", value)  # the stock client appends .* to what it was given
    is_free = "^" in value or "$" in value
    most = max(_repetitions(branch, is_free=is_free) for branch in value.split("|"))
    if most > 3 or re.search(r"\)[*+?]", value):
        raise _bad("an expression may have three repetitions, two without ^, and none of a group")
    try:
        return re.compile(value if is_free else f"^(?:{value})$", re.IGNORECASE)
    except re.error:
        return None


def _repetitions(branch: str, *, is_free: bool) -> int:
    """Return how many there are; to try every place of the text is one more."""
    tries_all = is_free and not branch.lstrip("(").startswith("^")
    return len(re.findall("[*+?]", branch)) + tries_all
