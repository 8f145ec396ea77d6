"""The filters of pongo2 that templates of instances use. Pure; what they make is accounted for."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote_plus

from services.image.templates.scope import Budget
from services.image.templates.values import (
    TemplateError,
    Value,
    integer,
    is_integer,
    is_number,
    is_true,
    length,
    number,
    text,
    wrapped,
)

Filter = Callable[[Value, Value], Value]
_ESCAPED = 6  # "&quot;" for one character
_ESCAPES = (("&", "&amp;"), (">", "&gt;"), ("<", "&lt;"), ('"', "&quot;"), ("'", "&#39;"))


def escaped(value: Value, _: Value = None) -> str:
    found = text(value)
    for plain, shown in _ESCAPES:
        found = found.replace(plain, shown)
    return found


def _add(value: Value, more: Value) -> Value:
    if is_integer(value) and is_integer(more):
        return wrapped(value + more)
    if is_number(value) and is_number(more):
        return number(value) + number(more)
    return text(value) + text(more)


def _join(value: Value, between: Value) -> Value:
    return text(between).join(map(text, value)) if isinstance(value, list | str) else value


def _slice(value: Value, bounds: Value) -> Value:
    parts = text(bounds).split(":")
    if len(parts) != 2:
        raise TemplateError("slice wants from:to")
    if not isinstance(value, list | str):
        return value
    start = max(0, min(integer(parts[0]), len(value)))
    end = integer(parts[1])
    return value[start : end if start <= end <= len(value) else len(value)]


def _titled(value: Value, _: Value) -> str:
    words = value.lower().split(" ") if isinstance(value, str) else []
    return " ".join(word[:1].upper() + word[1:] for word in words)


def _truncated(value: Value, most: Value) -> str:
    found, size = text(value), max(0, integer(most))
    if size >= len(found):
        return found
    return f"{found[: size - 3]}..." if size >= 3 else found[:size]


def _float_format(value: Value, decimals: Value) -> Value:
    found, count = number(value), -1 if decimals is None else integer(decimals)
    if (count <= 0 or not is_number(decimals)) and found == int(found):
        return int(found)
    return f"{found:.{min(abs(count), 20)}f}"


def _yes_no(value: Value, names: Value) -> str:
    choices = text(names).split(",") if text(names) else ["yes", "no", "maybe"]
    if not 2 <= len(choices) <= 3:
        raise TemplateError("yesno takes two or three words")
    if value is None:
        return (*choices, "maybe")[2]
    return choices[0] if is_true(value) else choices[1]


def _padded(value: Value, width: Value, pad: Callable[[str, int], str]) -> str:
    return pad(text(value), integer(width))


def _at(value: Value, place: int) -> Value:
    return value[place] if isinstance(value, list | str) and value else ""


def _divides(value: Value, by: Value) -> bool:
    return bool(integer(by)) and integer(value) % integer(by) == 0


_FILTERS: dict[str, Filter] = {
    "add": _add,
    "addslashes": lambda v, _: text(v).replace("\\", "\\\\").replace('"', '\\"').replace("'", "\\'"),
    "capfirst": lambda v, _: text(v)[:1].upper() + text(v)[1:],
    "center": lambda v, p: _padded(v, p, str.center),
    "cut": lambda v, p: text(v).replace(text(p), "") if text(p) else text(v),
    "default": lambda v, p: v if is_true(v) else p,
    "default_if_none": lambda v, p: p if v is None else v,
    "divisibleby": _divides,
    "escape": escaped,
    "first": lambda v, _: _at(v, 0),
    "float": lambda v, _: number(v),
    "floatformat": _float_format,
    "integer": lambda v, _: integer(v),
    "join": _join,
    "last": lambda v, _: _at(v, -1),
    "length": lambda v, _: length(v),
    "length_is": lambda v, p: length(v) == integer(p),
    "linenumbers": lambda v, _: "\n".join(f"{n}. {line}" for n, line in enumerate(text(v).split("\n"), 1)),
    "ljust": lambda v, p: _padded(v, p, str.ljust),
    "lower": lambda v, _: text(v).lower(),
    "make_list": lambda v, _: list(text(v)),
    "rjust": lambda v, p: _padded(v, p, str.rjust),
    "safe": lambda v, _: v,
    "slice": _slice,
    "split": lambda v, p: text(v).split(text(p)) if text(p) else list(text(v)),
    "title": _titled,
    "truncatechars": _truncated,
    "upper": lambda v, _: text(v).upper(),
    "urlencode": lambda v, _: quote_plus(text(v)),
    "wordcount": lambda v, _: len(text(v).split()),
    "yesno": _yes_no,
}  # fmt: skip
_WIDE = ("center", "ljust", "rjust")


def known(name: str) -> bool:
    return name in _FILTERS


def apply(name: str, value: Value, parameter: Value, budget: Budget) -> Value:
    """Raises: TemplateError."""
    budget.step()
    budget.spend(_most(name, value, parameter))
    return _FILTERS[name](value, parameter)


def _most(name: str, value: Value, parameter: Value) -> int:
    """Return how many bytes the filter may make: most double what goes in, or escape it."""
    if name in _WIDE:
        return integer(parameter)
    if isinstance(value, list):
        return sum(length(item) + length(parameter) for item in value)
    return (length(value) + length(parameter)) * (2 + length(parameter) * (name == "join")) * _ESCAPED
