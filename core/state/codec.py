"""Records to JSON bytes and back. Unknown fields are kept aside, so that a rewrite does not lose them."""

from __future__ import annotations

import dataclasses
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


def unknown_fields(cls: type[Any], data: bytes) -> dict[str, Any]:
    """Return what *data* holds beyond the fields of *cls*."""
    known = {f.name for f in dataclasses.fields(cls)}
    return {k: v for k, v in orjson.loads(data).items() if k not in known}


def with_fields(data: bytes, extra: dict[str, Any]) -> bytes:
    """Return the record in *data* with the fields of *extra* that it lacks."""
    return orjson.dumps({**extra, **orjson.loads(data)})
