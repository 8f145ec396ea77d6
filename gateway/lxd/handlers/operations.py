"""Operations."""

from __future__ import annotations

import hmac
import math
import time
from typing import Any

from aiohttp import web

from core.errors import Forbidden, Invalid, NotFound
from core.operations.operation import Operation
from gateway import sockets
from gateway.lxd import envelope
from gateway.lxd import request as req
from gateway.lxd.codes import OPERATION
from gateway.lxd.views.operations import operation_json, operation_url
from protos.podium.common.v1 import common_pb2 as pb

_SHOWN_AFTER_END_S = 5.0


async def list_operations(request: web.Request) -> web.Response:
    """Running ones, and those that ended a moment ago; older ones are kept but not listed."""
    project, horizon = req.project(request), time.time() - _SHOWN_AFTER_END_S
    found: dict[str, list[Any]] = {}
    for operation in req.backend(request).all_operations():
        if not _visible(request, operation):
            continue
        if operation.project not in ("", project) or (operation.is_final and operation.updated_at < horizon):
            continue
        status = OPERATION[operation.state][0].lower()
        shown: Any = _shown(request, operation) if req.recursion(request) else operation_url(operation.id)
        found.setdefault(status, []).append(shown)
    return envelope.sync(found)


async def get_operation(request: web.Request) -> web.Response:
    return envelope.sync(_shown(request, await _operation(request)))


async def _operation(request: web.Request) -> Operation:
    """Raises: NotFound, also for what is none of the caller's business."""
    operation = await req.backend(request).operation(req.name(request))
    if not _visible(request, operation):
        raise NotFound("NO_OPERATION", "Operation not found", about=operation.id)
    return operation


def _shown(request: web.Request, operation: Operation) -> dict[str, Any]:
    may_use = request["caller"].may_use(operation.requestor.get("username", ""))
    return operation_json(operation, secrets=may_use)


def _visible(request: web.Request, operation: Operation) -> bool:
    seen: bool = request["caller"].may_see(operation.project, operation.requestor.get("username", ""))
    return seen


async def wait_operation(request: web.Request) -> web.Response:
    id = req.name(request)
    operation = await _operation(request)
    if not request["caller"].trusted:
        given, wanted = request.query.get("secret", ""), str(operation.metadata.get("secret", ""))
        # As bytes: texts beyond ASCII cannot be compared so.
        if not wanted or not hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode()):
            raise Forbidden("NOT_AUTHORIZED", "not authorized")
    try:
        timeout = float(request.query.get("timeout", "-1"))
    except ValueError:
        raise Invalid("BAD_TIMEOUT", "timeout must be a number of seconds") from None
    if not math.isfinite(timeout):
        raise Invalid("BAD_TIMEOUT", "timeout must be a finite number of seconds")
    return envelope.sync(_shown(request, await _waited(request, id, math.inf if timeout < 0 else timeout)))


async def _waited(request: web.Request, id: str, timeout_s: float) -> Operation:
    """Return the operation when it is final or time is up; give up when the client is gone."""
    end = time.monotonic() + timeout_s
    while True:
        left = end - time.monotonic()
        operation = await req.backend(request).wait(id, max(0.0, min(left, sockets.KEEPALIVE_S)))
        if operation.is_final or left <= sockets.KEEPALIVE_S or request.transport is None:
            return operation


async def delete_operation(request: web.Request) -> web.Response:
    backend, id = req.backend(request), req.name(request)
    operation = await _operation(request)
    service = backend.operation_service(operation)
    reply = await service.CancelOperation(pb.CancelOperationRequest(id=id))
    backend.accepted(reply.operation)
    return envelope.empty()
