"""/1.0/warnings."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from core.errors import Invalid
from gateway.lxd import envelope, etag
from gateway.lxd import request as req
from gateway.lxd.views.others import warning_json
from protos.podium.cluster.v1 import warning_pb2 as pb


async def list_warnings(request: web.Request) -> web.Response:
    reply = await req.backend(request).warnings.ListWarnings(
        pb.ListWarningsRequest(project=request.query.get("project", ""))
    )
    if req.recursion(request):
        return envelope.sync([warning_json(w) for w in reply.warnings])
    return envelope.sync([f"/1.0/warnings/{w.id}" for w in reply.warnings])


async def _warning(request: web.Request) -> dict[str, Any]:
    message = pb.GetWarningRequest(id=req.name(request))
    return warning_json((await req.backend(request).warnings.GetWarning(message)).warning)


async def get_warning(request: web.Request) -> web.Response:
    shown = await _warning(request)
    return envelope.sync(shown, etag=etag.of(shown["uuid"], shown["status"]))


async def put_warning(request: web.Request) -> web.Response:
    """The status is all that may change; clients send back the rest as they got it."""
    data, old = await req.body(request), await _warning(request)
    etag.check(request, etag.of(old["uuid"], old["status"]))
    status = req.text(data, "status") or (old["status"] if request.method == "PATCH" else "")
    if not status:
        raise Invalid("NO_STATUS", "A warning's status is missing; use new or acknowledged")
    await req.backend(request).warnings.AcknowledgeWarning(
        pb.AcknowledgeWarningRequest(id=old["uuid"], status=status)
    )
    return envelope.empty()


async def delete_warning(request: web.Request) -> web.Response:
    await req.backend(request).warnings.DeleteWarning(pb.DeleteWarningRequest(id=req.name(request)))
    return envelope.empty()
