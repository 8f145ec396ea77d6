"""Snapshots of custom volumes."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from aiohttp import web

from core.errors import Invalid
from gateway.lxd import envelope, etag
from gateway.lxd import request as req
from gateway.lxd.codes import stamp_text
from gateway.lxd.handlers import migration, volumes
from gateway.lxd.views.volumes import (
    snapshot_in_list,
    snapshot_json,
    system_snapshot_in_list,
    system_snapshot_json,
)
from protos.podium.runtime.v1 import volume_pb2 as pb


async def list_snapshots(request: web.Request) -> web.Response:
    if volumes.kind_of(request) != volumes.CUSTOM:
        return await _of_system_volume(request)
    volume = await volumes.custom(request)
    if req.recursion(request):
        return envelope.sync([snapshot_in_list(volume, s) for s in volume.snapshots])
    base = f"/1.0/storage-pools/{volume.pool}/volumes/custom/{quote(volume.name)}/snapshots"
    return envelope.sync([f"{base}/{quote(s.name)}" for s in volume.snapshots])


async def _of_system_volume(request: web.Request) -> web.Response:
    names = await volumes.system_snapshots(request)
    if req.recursion(request):
        return envelope.sync([system_snapshot_in_list(name) for name in names])
    return envelope.sync([f"{request.path}/{quote(name.partition('/')[2])}" for name in names])


async def get_snapshot(request: web.Request) -> web.Response:
    if volumes.kind_of(request) != volumes.CUSTOM:
        name = req.name(request, "snapshot")
        if f"{req.name(request, 'volume')}/{name}" not in await volumes.system_snapshots(request):
            raise volumes.missing(request)
        return envelope.sync(system_snapshot_json(name))
    snapshot = await _snapshot_of(request)
    return envelope.sync(snapshot_json(snapshot), etag=etag_of(snapshot))


async def _snapshot_of(request: web.Request) -> Any:
    """Raises: NotFound."""
    for snapshot in (await volumes.custom(request)).snapshots:
        if snapshot.name == req.name(request, "snapshot"):
            return snapshot
    raise volumes.missing(request)


def etag_of(snapshot: Any) -> str:
    return etag.of(snapshot.description, stamp_text(snapshot, "expires_at"))


async def post_snapshot(request: web.Request) -> web.Response:
    data, backend = await req.body(request), req.backend(request)
    message = pb.CreateVolumeSnapshotRequest(
        volume=volumes.ref_of(request), description=req.text(data, "description")
    )
    message.volume.snapshot = req.text(data, "name")
    if data.get("expires_at") is not None:
        message.expires_at = req.when(data, "expires_at")
    reply = await backend.volumes.CreateVolumeSnapshot(message)
    return envelope.accepted(backend.accepted(reply.operation))


async def put_snapshot(request: web.Request) -> web.Response:
    data, snapshot = await req.body(request), await _snapshot_of(request)
    etag.check(request, etag_of(snapshot))
    if data.get("config") is not None and req.text_map(data, "config") != dict(snapshot.config):
        raise Invalid("READ_ONLY", "Snapshots are read-only and can't have their configuration changed")
    message = pb.UpdateVolumeSnapshotRequest(
        volume=volumes.ref_of(request), expected_revision=snapshot.revision
    )
    is_whole = request.method == "PUT"
    if is_whole or data.get("description") is not None:
        message.description = req.text(data, "description")
    if is_whole or data.get("expires_at") is not None:
        message.expires_at = req.when(data, "expires_at")
    await req.backend(request).volumes.UpdateVolumeSnapshot(message)
    return envelope.empty()


async def rename_snapshot(request: web.Request) -> web.Response:
    """Rename it, or send it to another server, where it becomes a volume."""
    data, backend = await req.body(request), req.backend(request)
    if req.flag(data, "migration"):
        return await migration.send_volume(request, data, volumes.ref_of(request))
    reply = await backend.volumes.RenameVolumeSnapshot(
        pb.RenameVolumeSnapshotRequest(volume=volumes.ref_of(request), new_name=req.text(data, "name"))
    )
    return envelope.accepted(backend.accepted(reply.operation))


async def delete_snapshot(request: web.Request) -> web.Response:
    backend = req.backend(request)
    reply = await backend.volumes.DeleteVolumeSnapshot(
        pb.DeleteVolumeSnapshotRequest(volume=volumes.ref_of(request))
    )
    return envelope.accepted(backend.accepted(reply.operation))
