"""ETags over the writable part of an object, and If-Match against them."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
from aiohttp import web

from core.errors import Stale

_MOST_SHOWN = 64


class Shown:
    """The last instances that clients were shown, by project, name and tag.

    Who sends a tag back has seen that version, so a change needs no second read. What is kept has its
    revision, on which the change is made: where it is not the newest any more, that is refused.
    """

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str, str], Any] = {}

    def keep(self, project: str, name: str, tag: str, what: Any) -> None:
        self._objects[project, name, tag] = what
        if len(self._objects) > _MOST_SHOWN:
            del self._objects[next(iter(self._objects))]

    def seen_by(self, request: web.Request, project: str, name: str) -> Any | None:
        """Return the version that the request's If-Match names, if it is kept."""
        return self._objects.get((project, name, _wanted(request)))


SHOWN = web.AppKey("shown", Shown)


def of(*parts: Any) -> str:
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


def check(request: web.Request, current: str) -> None:
    """Raises: Stale (412) when the caller saw another version."""
    wanted = _wanted(request)
    if wanted and wanted != current:
        raise Stale("ETAG", f"ETag doesn't match: {current} vs {wanted[:80]}")


def _wanted(request: web.Request) -> str:
    return request.headers.get("If-Match", "").strip().strip('"')
