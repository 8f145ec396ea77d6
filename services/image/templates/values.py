"""What pongo2 makes of values: their text, their truth, their numbers. Pure.

Source: flosch/pongo2 v4, value.go, which LXD 5.0 renders templates with.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Value = Any
"""None, bool, int, float, str, list or dict of these, or a Function."""

_BITS = 64


class TemplateError(Exception):
    """What is wrong with a template, and in which line of it (0 where that is not known)."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.message, self.line = message, line

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}" if self.line else self.message


class Function:
    """The only thing that a template may call."""

    def __init__(self, name: str, arity: int, call: Callable[..., Value]) -> None:
        self.name, self._arity, self._call = name, arity, call

    def __call__(self, arguments: list[Value]) -> Value:
        if len(arguments) != self._arity:
            raise TemplateError(f"{self.name} takes {self._arity} arguments, not {len(arguments)}")
        return self._call(*arguments)


def text(value: Value) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value)
        case float():
            return "+Inf" if value == math.inf else "-Inf" if value == -math.inf else f"{value:f}"
        case str() | int():
            return str(value)
        case list():
            return "<[]string Value>"
        case dict():
            return "<map[string]string Value>"
    return "<func Value>"


def is_true(value: Value) -> bool:
    return not isinstance(value, Function) and bool(value)


def is_integer(value: Value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Value) -> bool:
    return isinstance(value, float) or is_integer(value)


def number(value: Value) -> float:
    """Return a float, 0 for what is none."""
    if is_number(value):
        return float(value)
    try:
        # What Go does not take for a number either.
        return float(value) if isinstance(value, str) and "_" not in value and value == value.strip() else 0.0
    except ValueError:
        return 0.0


def integer(value: Value) -> int:
    """Return an integer of 64 bits, 0 for what is none."""
    if is_integer(value):
        return wrapped(value)
    found = number(value)
    return wrapped(int(found)) if math.isfinite(found) else 0


def wrapped(value: int) -> int:
    """Return what 64 bits hold of *value*: numbers cannot grow without end."""
    value &= (1 << _BITS) - 1
    return value - (1 << _BITS) if value >> (_BITS - 1) else value


def negated(value: Value) -> Value:
    if is_integer(value):
        return 0 if value else 1
    if isinstance(value, float):
        return 0.0 if value else 1.1
    return not is_true(value)


def is_equal(one: Value, other: Value) -> bool:
    """Compare as Go does: values of different kinds are never equal."""
    return type(one) is type(other) and not isinstance(one, list | dict | Function) and bool(one == other)


def contains(whole: Value, part: Value) -> bool:
    if isinstance(whole, str):
        return text(part) in whole
    if isinstance(whole, dict):
        return isinstance(part, str) and part in whole
    return isinstance(whole, list) and any(is_equal(item, part) for item in whole)


def length(value: Value) -> int:
    return len(value) if isinstance(value, str | list | dict) else 0
