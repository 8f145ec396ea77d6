"""Storage pools."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from core.errors import Unsupported
from gateway.lxd import envelope
from gateway.lxd import request as req
from gateway.lxd.nouns import Noun
from gateway.lxd.views.others import pool_json
from protos.podium.runtime.v1 import storage_pb2 as pb


async def _get(request: web.Request) -> Any:
    reply = await req.backend(request).storage.GetPool(pb.GetPoolRequest(name=req.name(request)))
    return reply.pool


def _writable(pool: Any) -> tuple[Any, ...]:
    return pool.name, pool.driver, dict(pool.config)


_POOL = Noun("/1.0/storage-pools", _get, pool_json, _writable)


async def list_pools(request: web.Request) -> web.Response:
    reply = await req.backend(request).storage.ListPools(pb.ListPoolsRequest())
    return _POOL.listing(request, reply.pools)


async def post_pool(request: web.Request) -> web.Response:
    data = await req.body(request)
    message = pb.CreatePoolRequest(
        name=req.text(data, "name"),
        driver=req.text(data, "driver"),
        config=req.text_map(data, "config"),
        description=req.text(data, "description"),
    )
    await req.backend(request).storage.CreatePool(message)
    return _POOL.created(message.name)


async def get_pool(request: web.Request) -> web.Response:
    pool = await _get(request)
    shown = pool_json(pool)
    if not request["caller"].is_admin:
        shown["config"] = None
    return envelope.sync(shown, etag=_POOL.tag(pool))


async def put_pool(request: web.Request) -> web.Response:
    data, pool = await _POOL.change(request)
    await req.backend(request).storage.UpdatePool(
        pb.UpdatePoolRequest(
            name=pool.name,
            config=req.text_map(data, "config"),
            description=req.text(data, "description"),
            merge=request.method == "PATCH",
            expected_revision=pool.revision,
        )
    )
    return envelope.empty()


async def delete_pool(request: web.Request) -> web.Response:
    await req.backend(request).storage.DeletePool(pb.DeletePoolRequest(name=req.name(request)))
    return envelope.empty()


async def no_buckets(request: web.Request) -> web.Response:
    await _get(request)
    raise Unsupported(
        "NO_BUCKETS", "Storage buckets are not supported: no S3 server runs here; use a custom volume"
    )


async def pool_resources(request: web.Request) -> web.Response:
    r = await req.backend(request).storage.GetPoolResources(
        pb.GetPoolResourcesRequest(name=req.name(request))
    )
    return envelope.sync(
        {
            "space": {"used": r.space_used_bytes, "total": r.space_total_bytes},
            "inodes": {"used": r.inodes_used, "total": r.inodes_total},
        }
    )
