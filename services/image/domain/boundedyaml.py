"""YAML of strangers: no aliases (bombs), bounded depth and number of events. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml

from core.errors import Invalid

_MAX_DEPTH = 32


def load(text: bytes, loader: Any, *, most_events: int, bad: Callable[[str], Invalid]) -> Any:
    """Return what *text* holds. Raises: what *bad* makes of a reason."""
    try:
        depth = 0
        for count, event in enumerate(yaml.parse(text, Loader=loader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise bad("aliases are not allowed")
            if count > most_events or depth > _MAX_DEPTH:
                raise bad("it is too complex")
        return yaml.load(text, Loader=loader)  # noqa: S506 - a safe one, see the callers
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, TypeError) as exc:
        raise bad("it is not YAML") from exc
