"""How an operation ended, as one word between processes of one host that know the rest of it."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import replace
from typing import Any

import orjson

from core.operations.operation import Operation

_FIELDS = ("state", "error_kind", "error_reason", "error_message", "error_about", "updated_at")
# What its begin was told with; it may be long, and both sides know it.
_KNOWN = ("command", "environment", "interactive", "fds")


def encode(final: Operation) -> str:
    """Return *final* without what was known of it at its begin."""
    told: dict[str, Any] = {name: getattr(final, name) for name in _FIELDS}
    told["metadata"] = {key: value for key, value in final.metadata.items() if key not in _KNOWN}
    return urlsafe_b64encode(orjson.dumps(told)).decode()


def applied(operation: Operation, word: str) -> Operation:
    """Return *operation* as it ended. Raises: ValueError."""
    told = orjson.loads(urlsafe_b64decode(word))
    metadata = {**operation.metadata, **told["metadata"]}
    fields = {name: told[name] for name in _FIELDS}
    return replace(operation, metadata=metadata, may_cancel=False, **fields)
