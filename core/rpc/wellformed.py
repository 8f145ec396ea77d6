"""What no request may hold, whatever it asks for: times that are none. Pure.

A message may carry any number as a time, and most of them crash whoever computes with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from google.protobuf.descriptor import Descriptor

from core.errors import Invalid

_TIME = "google.protobuf.Timestamp"
_YEAR_10000, _NANOS = 253402300800, 1_000_000_000
_DEEPEST = 8


def check(message: Any) -> None:
    """Raises: Invalid, naming the field."""
    for name, inner in _ways(message.DESCRIPTOR).items():
        value = getattr(message, name)
        for item in value if hasattr(value, "__len__") else [value] if message.HasField(name) else []:
            if inner:
                check(item)
            elif not (0 <= item.seconds < _YEAR_10000 and 0 <= item.nanos < _NANOS):
                raise Invalid("BAD_TIME", f"{name} must be a time from 1970 to 9999", about=name)


@lru_cache(maxsize=1024)
def _ways(kind: Descriptor, depth: int = 0) -> Mapping[str, bool]:
    """Return the fields that are times, and (True) those with times further down; maps are left out."""
    found: dict[str, bool] = {}
    for field in kind.fields:
        inner = field.message_type
        if inner is None or inner.GetOptions().map_entry:
            continue
        if inner.full_name == _TIME:
            found[field.name] = False
        elif depth < _DEEPEST and _ways(inner, depth + 1):
            found[field.name] = True
    return found
