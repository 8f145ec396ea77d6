"""LXD's filter expressions: `[not] FIELD (eq|ne) VALUE {and|or ...}`, evaluated from left to right."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from core.errors import Invalid

_MAX = 4096
_LONGEST_TEXT = 128
# Each repetition may try 128 places, each bar within a group another branch; so one match takes 2^21 steps.
_BITS_OF_REPETITION, _MOST_BITS = 7, 21
# Nobody else is served meanwhile.
_MOST_S = 0.5


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
    """Return a predicate over JSON objects, for one list: it raises Invalid when it takes too long in all.

    Raises: Invalid.
    """
    if len(text) > _MAX:
        raise _bad("it is longer than 4096 characters")
    try:
        words = shlex.split(text)
    except ValueError as exc:
        raise _bad(str(exc)) from None
    return _Predicate(_clauses(words))


class _Predicate:
    def __init__(self, clauses: list[Clause]) -> None:
        self._clauses = clauses
        self._spent_s = 0.0

    def __call__(self, item: dict[str, Any]) -> bool:
        result = True
        began = time.thread_time()
        for clause in self._clauses:
            held = clause.holds(item)
            result = (result and held) if clause.joined_by == "and" else (result or held)
            if self._spent_s + time.thread_time() - began > _MOST_S:
                raise _bad("it takes too long to compare; use fewer clauses and plainer expressions")
        self._spent_s += time.thread_time() - began
        return result


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
    most = max(_bits(branch, is_free=is_free) for branch in _branches(value))
    if most > _MOST_BITS or re.search(r"\)[*+?]", value):
        raise _bad(
            "an expression may have three repetitions, two without ^, few branches, and none of a group"
        )
    try:
        return re.compile(value if is_free else f"^(?:{value})$", re.IGNORECASE)
    except re.error:
        return None


def _branches(value: str) -> list[str]:
    """Return what stands between bars outside of groups; clients put a group around all of it."""
    inner = value[1:-1] if value.startswith("(") and value.endswith(")") else value
    parts, depth, lowest = [""], 0, 0
    for c in inner:
        depth += (c == "(") - (c == ")")
        lowest = min(lowest, depth)
        if c == "|" and not depth:
            parts.append("")
        else:
            parts[-1] += c
    return parts if lowest == depth == 0 else [value]


def _bits(branch: str, *, is_free: bool) -> int:
    """Return the logarithm of the steps that a match may take; to try every place of the text is one more."""
    tries_all = is_free and not branch.lstrip("(").startswith("^")
    repetitions = len(re.findall("[*+?]", branch)) + tries_all
    return repetitions * _BITS_OF_REPETITION + branch.count("|")
