"""Storage pools and their volumes."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from core.errors import NotFound
from gateway.lxd import envelope, etag
from gateway.lxd import request as req
from gateway.lxd.nouns import Noun
from gateway.lxd.views.others import pool_json, volume_json
from protos.podium.runtime.v1 import instance_pb2 as instances
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


async def _volumes(request: web.Request) -> list[Any]:
    """Return the volumes of the type that the path names, or all."""
    reply = await req.backend(request).storage.ListVolumes(
        pb.ListVolumesRequest(
            pool=req.name(request),
            project=req.project(request),
            all_projects=request.query.get("all-projects") == "true",
        )
    )
    wanted = request.match_info.get("type", "")
    return [v for v in reply.volumes if not wanted or v.type == wanted]


async def list_volumes(request: web.Request) -> web.Response:
    found = await _volumes(request)
    if req.recursion(request):
        return envelope.sync([volume_json(v) for v in found])
    base = f"/1.0/storage-pools/{req.name(request)}/volumes"
    return envelope.sync([f"{base}/{v.type}/{v.name}" for v in found])


async def _volume(request: web.Request) -> Any:
    name = req.name(request, "volume")
    for volume in await _volumes(request):
        if volume.name == name:
            return volume
    raise NotFound("NO_VOLUME", "Storage pool volume not found", about=name[:64])


async def get_volume(request: web.Request) -> web.Response:
    volume = await _volume(request)
    return envelope.sync(volume_json(volume), etag=etag.of(volume.name, volume.type, dict(volume.config)))


async def volume_state(request: web.Request) -> web.Response:
    """What the volume of an instance uses is in the state of the instance."""
    volume = await _volume(request)
    found = await req.backend(request).instances.GetInstance(
        instances.GetInstanceRequest(
            project=volume.project, name=volume.name, view=instances.INSTANCE_VIEW_FULL
        )
    )
    used = sum(found.instance.state.disk_usage_bytes.values())
    return envelope.sync({"usage": {"used": used, "total": 0}})


async def no_snapshots(request: web.Request) -> web.Response:
    """None exist yet; the volume must."""
    await _volume(request)
    return envelope.sync([])


async def no_custom_volumes(request: web.Request) -> web.Response:
    await (_volume if "volume" in request.match_info else _volumes)(request)
    raise req.not_yet()
