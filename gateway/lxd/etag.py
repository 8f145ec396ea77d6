"""ETags over the writable part of an object, and If-Match against them."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
from aiohttp import web

from core.errors import Stale


def of(*parts: Any) -> str:
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


def check(request: web.Request, current: str) -> None:
    """Raises: Stale (412) when the caller saw another version."""
    wanted = request.headers.get("If-Match", "").strip().strip('"')
    if wanted and wanted != current:
        raise Stale("ETAG", f"ETag doesn't match: {current} vs {wanted[:80]}")
