"""The aiohttp application: routes, and one middleware that knows callers and errors."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from aiohttp import hdrs, web
from aiohttp.web_protocol import RequestPayloadError

from core.errors import Forbidden, Invalid, NotFound, PodiumError, internal
from core.logs import get_logger, request_id
from core.metrics import REQUESTS
from core.projects import DEFAULT
from core.rpc.identity import set_identity
from core.state import keys
from gateway import auth
from gateway.backend import Backend, Handler
from gateway.browsers import is_foreign
from gateway.lxd import envelope, etag, idempotency
from gateway.lxd import request as req
from gateway.lxd.feed import FEED, Feed
from gateway.lxd.handlers.migration import VOYAGES
from gateway.lxd.missing import unknown_project
from gateway.lxd.routes import table
from gateway.migration.voyages import Voyages

log = get_logger(__name__)
# How a server without a cluster names itself, and what clients may ask of a member by name.
_ALONE = "none"
_PARAMETER = re.compile(r"\{(\w+)\}")
_OF_MEMBERS = ("/1.0/storage-pools", "/1.0/networks")


def application(backend: Backend) -> web.Application:
    app = web.Application(middlewares=[_guard], client_max_size=req.MAX_JSON)
    app[req.BACKEND] = backend
    for method, path, access, handler in table():
        app.router.add_route(method, resource(path), _checked(handler, access))
    app[etag.SHOWN] = etag.Shown()
    app[FEED] = Feed(backend.store, backend.heard)
    backend.told.on_change(app[FEED].tell_early)
    app[VOYAGES] = Voyages(backend)
    app.cleanup_ctx.append(_fed)
    app.on_response_prepare.append(_unsigned)
    return app


def resource(path: str) -> str:
    """Return the route of *path* for names of anything but slashes: aiohttp alone leaves out braces."""
    return _PARAMETER.sub(r"{\1:[^/]+}", path)


async def _unsigned(request: web.Request, response: web.StreamResponse) -> None:
    """Strangers need not know what answers them, and LXD says nothing either."""
    response.headers.popall(hdrs.SERVER, None)


async def _fed(app: web.Application) -> AsyncIterator[None]:
    await app[FEED].start()
    yield
    await app[VOYAGES].stop()
    await app[FEED].stop()


def _checked(handler: Handler, access: str) -> Handler:
    async def run(request: web.Request) -> web.StreamResponse:
        everywhere = request.query.get("all-projects") == "true"
        needed = "public" if access == "metrics" and _metrics_are_public(request) else access
        auth.require(request["caller"], needed, req.project(request), everywhere=everywhere)
        is_shown = request.method in ("GET", "HEAD") and needed == "public"
        if is_shown and request["caller"].is_guest_of(req.project(request)):
            # The handler shows only what is public; the services would refuse to show even that.
            set_identity(replace(request["caller"].identity, projects=None))
        return await idempotency.once(request, handler)

    return run


def _metrics_are_public(request: web.Request) -> bool:
    return req.backend(request).facts.now.metrics_are_public


@web.middleware
async def _guard(request: web.Request, handler: Any) -> web.StreamResponse:
    """Name the caller, run the handler, and turn whatever it raises into LXD's error envelope."""
    request_id.set(uuid.uuid4().hex[:16])
    try:
        response = await _answered(request, handler)
    except Exception as exc:
        if request.writer.output_size:
            raise ConnectionResetError("The answer had begun; only its end can tell") from exc
        response = _refusal(request, exc)
    method = request.method if request.method in hdrs.METH_ALL else "other"
    REQUESTS.labels(method, str(response.status)).inc()
    return response


def _refusal(request: web.Request, exc: Exception) -> web.StreamResponse:
    """Return what a failure is in LXD's envelope; what nobody foresaw is logged and said without detail."""
    match exc:
        case PodiumError():
            return envelope.failure(exc)
        case web.HTTPNotFound():
            return envelope.error(404, "not found")
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(exc.allowed_methods))
            refusal = envelope.error(405, f"{request.method[:20]} is not possible here; use {allowed}")
            refusal.headers["Allow"] = allowed
            return refusal
        case web.HTTPRequestEntityTooLarge():
            return envelope.error(413, f"The body is larger than {req.MAX_JSON >> 20} MiB")
        case web.HTTPException():
            return envelope.error(exc.status, exc.reason)
        case ConnectionError():
            raise exc
        case RequestPayloadError() | web.PayloadAccessError():
            return envelope.error(400, "The body ended before all of it was sent")
    log.exception("request_crashed", method=request.method, path=request.path[:200])
    return envelope.failure(internal())


async def _answered(request: web.Request, handler: Any) -> web.StreamResponse:
    if request.method == "OPTIONS":
        return web.Response()
    caller = auth.caller_of(request, request.app[req.BACKEND])
    request["caller"] = caller
    set_identity(caller.identity)
    if caller.identity.protocol != "unix" and is_foreign(request.method, request.headers):
        raise Forbidden("FOREIGN_PAGE", "not authorized: a page of another site may not do this")
    if not caller.trusted and "X-LXD-authenticated" in request.headers:
        # The client wants the answer for the trusted or none, so as not to take one for the other.
        raise Forbidden("NOT_AUTHORIZED", "not authorized")
    if "\0" in request.path or len(request.path_qs) > 16384:
        raise Invalid("BAD_URL", "The URL is too long or contains NUL")
    if caller.trusted:
        _refuse_unknown(request, is_guest=caller.is_guest_of(req.project(request)))
    answer: web.StreamResponse = await handler(request)
    return answer


def _refuse_unknown(request: web.Request, *, is_guest: bool) -> None:
    """Refuse a project or member that is not there and would be asked. Raises: NotFound.

    Whose project it is not is refused later, and in the same words as for one that is there.
    """
    project, target = req.project(request), request.query.get("target", "")
    words = unknown_project(request.method, request.path, project)
    if words and project != DEFAULT and not is_guest:
        request.app[req.BACKEND].require_project(project, words)
    if target not in ("", _ALONE) and request.path.startswith(_OF_MEMBERS):
        cluster = request.app[req.BACKEND].cluster
        if cluster and cluster.members.get(keys.member(target)):
            return
        raise NotFound("NO_MEMBER", "Cluster member not found", about=target[:64])


def split_address(address: str) -> tuple[str | None, int]:
    """Return host (None for all) and port of "[::]:8443", ":8443" or "127.0.0.1:8443"."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    return (None if host in ("", "::") else host), int(port)
