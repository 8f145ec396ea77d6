"""Records to JSON bytes and back. Unknown fields are kept aside, so that a rewrite does not lose them."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, TypeVar

import msgspec
import orjson

T = TypeVar("T")


def encode(record: object, extra: dict[str, Any] | None = None) -> bytes:
    """Return *record* (a dataclass or plain JSON value) as JSON; *extra* holds fields we do not know."""
    plain = msgspec.to_builtins(record)
    if extra:
        plain = {**extra, **plain}
    return orjson.dumps(plain)


def decode(cls: type[T], data: bytes) -> T:
    """Return the record in *data*. Fields of a newer version are ignored.

    Raises:
        ValueError: the bytes are no record of this class.
    """
    return msgspec.convert(orjson.loads(data), cls)


def decode_whole(cls: type[T], data: bytes) -> tuple[T, dict[str, Any]]:
    """Return the record in *data*, and what that holds beyond the fields of *cls*. Raises: ValueError."""
    plain = orjson.loads(data)
    kind: Any = cls
    return msgspec.convert(plain, cls), {key: plain[key] for key in plain.keys() - _fields(kind)}


@functools.cache
def _fields(cls: Any) -> frozenset[str]:
    return frozenset(field.name for field in dataclasses.fields(cls))


def with_fields(data: bytes, extra: dict[str, Any]) -> bytes:
    """Return the record in *data* with the fields of *extra* that it lacks."""
    return orjson.dumps({**extra, **orjson.loads(data)})
