"""Backups of custom volumes, and the import that LXD hides in a POST of volumes."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from aiohttp import web

from core.names import in_project
from gateway.lxd import envelope, streams
from gateway.lxd import request as req
from gateway.lxd.handlers import backups, volumes
from gateway.lxd.handlers.backups import compression
from gateway.lxd.views.volumes import backup_json
from protos.podium.runtime.v1 import volume_pb2
from protos.podium.runtime.v1 import volumebackup_pb2 as pb


async def list_backups(request: web.Request) -> web.Response:
    ref = volumes.ref_of(request)
    reply = await req.backend(request).volume_backups.ListVolumeBackups(
        pb.ListVolumeBackupsRequest(volume=ref)
    )
    if req.recursion(request):
        return envelope.sync([backup_json(backup) for backup in reply.backups])
    base = f"/1.0/storage-pools/{ref.pool}/volumes/custom/{quote(ref.name)}/backups"
    return envelope.sync(
        [in_project(f"{base}/{quote(backup.name)}", ref.project) for backup in reply.backups]
    )


async def post_backup(request: web.Request) -> web.Response:
    data, backend = await req.body(request), req.backend(request)
    message = pb.CreateVolumeBackupRequest(
        volume=volumes.ref_of(request),
        name=req.text(data, "name"),
        volume_only=req.flag(data, "volume_only"),
        compression=compression(request, data),
    )
    req.put_time(message.expires_at, req.when(data, "expires_at"))
    # What is made instead of a driver's own stream, anybody can read.
    req.flag(data, "optimized_storage")
    reply = await backend.volume_backups.CreateVolumeBackup(message)
    return envelope.accepted(backend.accepted(reply.operation))


async def get_backup(request: web.Request) -> web.Response:
    return envelope.sync(backup_json(await _get(request)))


async def _get(request: web.Request) -> Any:
    message = pb.GetVolumeBackupRequest(volume=volumes.ref_of(request), name=req.name(request, "backup"))
    return (await req.backend(request).volume_backups.GetVolumeBackup(message)).backup


async def rename_backup(request: web.Request) -> web.Response:
    data, backend = await req.body(request), req.backend(request)
    message = pb.RenameVolumeBackupRequest(
        volume=volumes.ref_of(request), name=req.name(request, "backup"), new_name=req.text(data, "name")
    )
    reply = await backend.volume_backups.RenameVolumeBackup(message)
    return envelope.accepted(backend.accepted(reply.operation))


async def delete_backup(request: web.Request) -> web.Response:
    backend = req.backend(request)
    message = pb.DeleteVolumeBackupRequest(volume=volumes.ref_of(request), name=req.name(request, "backup"))
    reply = await backend.volume_backups.DeleteVolumeBackup(message)
    return envelope.accepted(backend.accepted(reply.operation))


async def export_backup(request: web.Request) -> web.StreamResponse:
    found = await _get(request)
    message = pb.ExportVolumeBackupRequest(volume=volumes.ref_of(request), name=found.name)
    stream = req.backend(request).volume_backups.ExportVolumeBackup(message)
    headers = {"Content-Disposition": "inline;filename=", "Content-Length": str(found.size_bytes)}
    return await streams.answer(request, stream, headers)


async def post_volume(request: web.Request) -> web.Response:
    """Make a volume of the JSON in the body, or of the archive that it is."""
    if request.headers.get("Content-Type") != "application/octet-stream":
        return await volumes.post_volume(request)
    backend, project = req.backend(request), req.project(request)
    ticket = await backups.uploaded(request, project)
    ref = volume_pb2.VolumeRef(
        pool=req.name(request), project=project, name=req.header(request, "X-LXD-name")
    )
    reply = await backend.volume_backups.ImportVolume(pb.ImportVolumeRequest(volume=ref, ticket=ticket))
    return envelope.accepted(backend.accepted(reply.operation))
