"""/, /1.0, resources, metrics."""

from __future__ import annotations

import asyncio
from functools import lru_cache

from aiohttp import web

from core.configkeys.others import SECRETS
from core.errors import Unsupported
from gateway.facts import Facts
from gateway.hardware import whole
from gateway.hardware.files import Host
from gateway.lxd import envelope, etag
from gateway.lxd import request as req
from gateway.lxd.views.metrics import metrics_text
from gateway.lxd.views.server import config_json, environment_json, head_json
from protos.podium.cluster.v1 import cluster_pb2 as pb
from protos.podium.runtime.v1 import instance_pb2 as runtime_pb


async def versions(request: web.Request) -> web.Response:
    return envelope.sync(["/1.0"])


async def get_server(request: web.Request) -> web.Response:
    caller = request["caller"]
    if not caller.trusted:
        return envelope.sync(head_json(trusted=False))
    body, tag = _rendered(req.backend(request).facts.now, req.project(request), caller.is_admin)
    return envelope.ready(body, etag=tag)


@lru_cache(256)
def _rendered(facts: Facts, project: str, is_admin: bool) -> tuple[bytes, str]:
    """Return body and ETag. Facts are compared by identity: a change makes a new object."""
    shown = head_json(trusted=True)
    config = config_json(facts.config, facts.https_address)
    shown["config"] = config if is_admin else {}  # not null: the stock client panics on that
    shown["environment"] = environment_json(facts, project)
    return envelope.sync_bytes(shown), etag.of(config)


async def put_server(request: web.Request) -> web.Response:
    return await _change(request, merge=False)


async def patch_server(request: web.Request) -> web.Response:
    return await _change(request, merge=True)


async def _change(request: web.Request, *, merge: bool) -> web.Response:
    config = req.object_of(await req.body(request), "config")
    unchanged = [name for name in SECRETS if config.get(name) is True]
    for name in unchanged:
        config.pop(name)
    backend = req.backend(request)
    server = await backend.server.GetServer(pb.GetServerRequest())
    etag.check(request, etag.of(config_json(server.config, backend.settings.https_address)))
    wanted = req.text_map({"config": config}, "config")
    if wanted.get("core.https_address") == backend.settings.https_address:
        wanted.pop("core.https_address")
    elif "core.https_address" in wanted:
        raise Unsupported(
            "ADDRESS_FIXED", "core.https_address is set by PODIUM_HTTPS when Podium starts; restart with it"
        )
    reply = await backend.server.UpdateServer(
        pb.UpdateServerRequest(
            config=wanted, unchanged=unchanged, merge=merge, expected_revision=server.revision
        )
    )
    await backend.facts.caught_up(reply.revision)
    return envelope.empty()


async def resources(request: web.Request) -> web.Response:
    return envelope.sync(await asyncio.to_thread(whole.read, Host()))


async def metrics(request: web.Request) -> web.Response:
    confined = request["caller"].projects is not None
    project = req.project(request) if confined else request.query.get("project", "")
    reply = await req.backend(request).instances.GetInstanceMetrics(
        runtime_pb.GetInstanceMetricsRequest(project=project)
    )
    return web.Response(text=metrics_text(reply), content_type="text/plain")
