"""The three replies of LXD's API: sync, async, error. Every one has the same seven keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from core.errors import PodiumError
from core.operations.operation import Operation
from gateway.lxd.views.operations import operation_json, operation_url

_LONGEST_MESSAGE = 2000


def _reply(body: dict[str, Any], status: int, headers: dict[str, str] | None = None) -> web.Response:
    return _response(orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE), status, headers)


def _response(data: bytes, status: int, headers: dict[str, str] | None) -> web.Response:
    return web.Response(body=data, status=status, headers=headers, content_type="application/json")


def sync(metadata: Any, *, etag: str = "", headers: Mapping[str, str] | None = None) -> web.Response:
    more = {**(headers or {}), **({"ETag": f'"{etag}"'} if etag else {})}
    return _reply(_sync_body(metadata), 200, more or None)


def sync_bytes(metadata: Any) -> bytes:
    """Return the body of a sync reply, to be kept and sent again with ready()."""
    return orjson.dumps(_sync_body(metadata), option=orjson.OPT_APPEND_NEWLINE)


def ready(body: bytes, *, etag: str = "") -> web.Response:
    return _response(body, 200, {"ETag": f'"{etag}"'} if etag else None)


def empty() -> web.Response:
    return sync({})


def created(location: str) -> web.Response:
    return _reply(_sync_body(None), 201, {"Location": location})


def _sync_body(metadata: Any) -> dict[str, Any]:
    return {
        "type": "sync",
        "status": "Success",
        "status_code": 200,
        "operation": "",
        "error_code": 0,
        "error": "",
        "metadata": metadata,
    }


def accepted(operation: Operation) -> web.Response:
    url = operation_url(operation.id)
    body = {
        "type": "async",
        "status": "Operation created",
        "status_code": 100,
        "operation": url,
        "error_code": 0,
        "error": "",
        "metadata": operation_json(operation),
    }
    return _reply(body, 202, {"Location": url})


def error(code: int, message: str) -> web.Response:
    """Return the refusal; *message* may quote what a client sent, whatever it is made of."""
    message = message.encode("utf-8", "replace").decode()[:_LONGEST_MESSAGE]
    body = {
        "type": "error",
        "status": "",
        "status_code": 0,
        "operation": "",
        "error_code": code,
        "error": message,
        "metadata": None,
    }
    return _reply(body, code, {"X-Content-Type-Options": "nosniff"})


def failure(exc: PodiumError) -> web.Response:
    return error(exc.kind.http, exc.message)
