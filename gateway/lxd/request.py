"""Reading requests: body, project, recursion, names. Parsed once, at the door."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import orjson
from aiohttp import web

from core.errors import Invalid
from gateway.backend import Backend

BACKEND = web.AppKey("backend", Backend)
MAX_JSON = 16 << 20
_YEAR_10000 = 253402300800
BODY_S = STALL_S = 60.0
# No record holds as many; each is looked at several times on its way to one.
_MOST_KEYS = 16_384
BODY = "body"


def backend(request: web.Request) -> Backend:
    return request.app[BACKEND]


def project(request: web.Request) -> str:
    return request.query.get("project") or "default"


def recursion(request: web.Request) -> int:
    try:
        return int(request.query.get("recursion", "0"))
    except ValueError:
        return 0


def name(request: web.Request, part: str = "name") -> str:
    return request.match_info[part]


async def body(request: web.Request) -> dict[str, Any]:
    """Return the JSON object in the body, whatever Content-Type says. Raises: Invalid."""
    return parse_object(await whole_body(request))


async def whole_body(request: web.Request) -> bytes:
    """Return the body; it may be asked for again. Raises: HTTPException when it is too large or slow."""
    if (request.content_length or 0) > MAX_JSON:
        raise web.HTTPRequestEntityTooLarge(MAX_JSON, request.content_length or 0)
    try:
        async with asyncio.timeout(BODY_S):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(reason=f"The body did not come within {BODY_S:.0f} s") from None


async def chunks(request: web.Request, size: int) -> AsyncIterator[bytes]:
    """Yield the body as it comes, or as a whole where it was read already for its key."""
    if BODY in request:
        yield request[BODY]
        return
    async for chunk in request.content.iter_chunked(size):
        yield chunk


async def upload(request: web.Request, size: int) -> AsyncIterator[bytes]:
    """Yield the body as it comes. Raises: Invalid for a sender that stops, and so holds on to our means."""
    if BODY in request:
        yield request[BODY]
        return
    while True:
        try:
            async with asyncio.timeout(STALL_S):
                chunk = await request.content.read(size)
        except TimeoutError:
            raise Invalid("STALLED", f"No byte of the upload came for {STALL_S:g} s; send it again") from None
        if not chunk:
            return
        yield chunk


def header(request: web.Request, name: str, default: str = "") -> str:
    """Return a header. Raises: Invalid for bytes that are no UTF-8, which no message could carry."""
    value = request.headers.get(name, default)
    return _clean(name, value)


def _clean(what: str, value: str) -> str:
    """Refuse what no command line, file or message can hold."""
    if "\0" in value or (not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value)):
        raise Invalid("BAD_TEXT", f"{what} must be UTF-8 text without NUL", about=what)
    return value


def parse_object(data: bytes) -> dict[str, Any]:
    try:
        parsed = orjson.loads(data)
    except ValueError as exc:
        raise Invalid("BAD_JSON", f"The body is not JSON: {exc}") from None
    if not isinstance(parsed, dict):
        raise Invalid("BAD_JSON", "The body must be a JSON object")
    return parsed


def text(data: dict[str, Any], field: str) -> str:
    value = data.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Invalid("BAD_TYPE", f"{field} must be a string", about=field)
    return _clean(field, value)


def flag(data: dict[str, Any], field: str) -> bool:
    value = data.get(field)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise Invalid("BAD_TYPE", f"{field} must be true or false", about=field)
    return value


def number(data: dict[str, Any], field: str) -> int:
    value = data.get(field)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > 1 << 31:
        raise Invalid("BAD_TYPE", f"{field} must be an integer", about=field)
    return value


def unsigned(data: dict[str, Any], field: str) -> int:
    """Return a number that an id can be."""
    value = number(data, field)
    if value < 0:
        raise Invalid("BAD_TYPE", f"{field} must not be negative", about=field)
    return value


def texts(data: dict[str, Any], field: str) -> list[str]:
    value = data.get(field)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise Invalid("BAD_TYPE", f"{field} must be a list of strings", about=field)
    return [_clean(field, item) for item in value]


def merged(data: dict[str, Any], shown: dict[str, Any]) -> dict[str, Any]:
    """Return what a PATCH makes of an object: what its body does not hold stays, and keys are merged."""
    return {**shown, **data, "config": {**shown["config"], **text_map(data, "config")}}


def text_map(data: dict[str, Any], field: str) -> dict[str, str]:
    """Return a map of strings; null values are dropped, numbers and booleans refused."""
    value = data.get(field)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Invalid("BAD_TYPE", f"{field} must be an object", about=field)
    if len(value) > _MOST_KEYS:
        raise Invalid("TOO_LARGE", f"{field} has more than {_MOST_KEYS} keys", about=field)
    for key, item in value.items():
        if item is not None and not isinstance(item, str):
            raise Invalid("BAD_TYPE", f"{field}.{key[:80]} must be a string", about=field)
    return {_clean(field, key): _clean(key[:80], item) for key, item in value.items() if item is not None}


def when(data: dict[str, Any], field: str) -> float:
    """Return a time (RFC 3339) in unix seconds; 0.0 where it is absent, or LXD's way to say never."""
    value = text(data, field)
    if not value:
        return 0.0
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        raise Invalid("BAD_TIME", f"{field} must be a time as 2030-01-31T12:00:00Z", about=field) from None
    if found.year == 1:
        return 0.0
    seconds = found.replace(tzinfo=found.tzinfo or UTC).timestamp()
    if seconds >= _YEAR_10000:
        raise Invalid("BAD_TIME", f"{field} must be a time before the year 10000", about=field)
    return max(seconds, 0.0)


def put_time(target: Any, seconds: float) -> None:
    """Set a timestamp of a message; 0.0 leaves it unset."""
    if seconds:
        target.FromNanoseconds(int(seconds * 1e9))


def object_of(data: dict[str, Any], field: str) -> dict[str, Any]:
    value = data.get(field)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Invalid("BAD_TYPE", f"{field} must be an object", about=field)
    return value


def device_map(data: dict[str, Any]) -> dict[str, dict[str, str]]:
    devices = object_of(data, "devices")
    return {key[:255]: text_map(devices, key) for key in devices}


def put_devices(target: Any, devices: dict[str, dict[str, str]]) -> None:
    for key, options in devices.items():
        target[key].options.update(options)
