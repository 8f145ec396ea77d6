"""/internal: what only the host's own programs ask for."""

from __future__ import annotations

from aiohttp import web

from gateway.lxd import envelope
from gateway.lxd import request as req
from protos.podium.runtime.v1 import power_pb2 as pb


async def shutdown(request: web.Request) -> web.Response:
    """Stop all instances, as they are stopped when the host goes down; answer when none runs."""
    done = await req.backend(request).host_power.StopInstances(pb.StopInstancesRequest(), timeout=None)
    return envelope.sync({"failed": list(done.failed)})
