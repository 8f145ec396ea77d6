"""YAML of strangers: no aliases (bombs), no types of its own, bounded depth, numbers and events. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml

from core.errors import Invalid

_MAX_DEPTH = 32
# What is said to be a number, flag or time and is none makes the library fail in ways of its own.
_TAGS = frozenset({None, "!", *(f"tag:yaml.org,2002:{name}" for name in ("str", "seq", "map"))})
# Numbers of base 60 take a time that grows with the square of their length; of base 16 no text is made.
_LONG_NUMBER = re.compile(r"[-+]?(?:0x[0-9a-fA-F_]{64,}|[0-9_:.]{65,})")


def load(text: bytes, loader: Any, *, most_events: int, bad: Callable[[str], Invalid]) -> Any:
    """Return what *text* holds. Raises: what *bad* makes of a reason."""
    try:
        depth = 0
        for count, event in enumerate(yaml.parse(text, Loader=loader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if count > most_events or depth > _MAX_DEPTH:
                raise bad("it is too complex")
            if why := _why_not(event):
                raise bad(why)
        return yaml.load(text, Loader=loader)  # noqa: S506 - a safe one, see the callers
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, TypeError) as exc:
        raise bad("it is not YAML") from exc


def _why_not(event: Any) -> str:
    if isinstance(event, yaml.AliasEvent):
        return "aliases are not allowed"
    if (tag := getattr(event, "tag", None)) not in _TAGS:
        return f"the tag {str(tag)[:40]!r} is not allowed"
    is_plain = isinstance(event, yaml.ScalarEvent) and event.implicit[0]
    if is_plain and _LONG_NUMBER.fullmatch(event.value):
        return "it has a number of more than 64 digits; put text in quotes"
    return ""
