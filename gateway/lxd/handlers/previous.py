"""What an instance was before its last change."""

from __future__ import annotations

from aiohttp import web

from gateway.lxd import envelope
from gateway.lxd import request as req
from gateway.lxd.codes import stamp_text
from gateway.lxd.views.instances import instance_json
from protos.podium.runtime.v1 import previous_pb2 as pb

_KEPT = ("name", "description", "architecture", "config", "devices", "ephemeral", "profiles")


async def get_previous(request: web.Request) -> web.Response:
    message = pb.GetPreviousRequest(project=req.project(request), name=req.name(request))
    reply = await req.backend(request).previous.GetPrevious(message)
    was = instance_json(reply.instance)
    found = {key: was[key] for key in _KEPT}
    return envelope.sync(
        {**found, "changed_at": stamp_text(reply, "changed_at"), "changed_by": reply.changed_by}
    )
