"""What no request may hold, whatever it asks for: times that are none, numbers that are none. Pure.

A message may carry any number as a time, and most of them crash whoever computes with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from core.errors import Invalid

_TIME = "google.protobuf.Timestamp"
_YEAR_10000, _NANOS = 253402300800, 1_000_000_000
_DEEPEST = 8
_REALS = (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT)


def check(message: Any) -> None:
    """Raises: Invalid, naming the field."""
    for name, is_well in _looks(message.DESCRIPTOR).items():
        value = getattr(message, name)
        if hasattr(value, "DESCRIPTOR") and not message.HasField(name):
            continue
        for item in value if hasattr(value, "__len__") else (value,):
            if is_well is None:
                check(item)
            elif not is_well(item):
                raise Invalid("BAD_TIME", f"{name} must be a time from 1970 to 9999", about=name)


def _is_time(value: Any) -> bool:
    return bool(0 <= value.seconds < _YEAR_10000 and 0 <= value.nanos < _NANOS)


def _is_number(value: float) -> bool:
    return math.isfinite(value) and 0 <= value < _YEAR_10000


@lru_cache(maxsize=1024)
def _looks(kind: Descriptor, depth: int = 0) -> Mapping[str, Callable[[Any], bool] | None]:
    """Return how to look at the fields that tell times; None: some lie further down. Maps are left out."""
    found: dict[str, Callable[[Any], bool] | None] = {}
    for field in kind.fields:
        inner = field.message_type
        if inner is None:
            if field.type in _REALS and field.name.endswith("_at"):
                found[field.name] = _is_number
        elif inner.full_name == _TIME:
            found[field.name] = _is_time
        elif not inner.GetOptions().map_entry and depth < _DEEPEST and _looks(inner, depth + 1):
            found[field.name] = None
    return found
