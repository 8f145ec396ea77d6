"""/1.0/instances/NAME/backups, and the import that LXD hides in a POST of instances."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from gateway.lxd import envelope, streams
from gateway.lxd import request as req
from gateway.lxd.views.backups import backup_json
from protos.podium.image.v1 import base_pb2
from protos.podium.runtime.v1 import transfer_pb2 as pb

_CHUNK = 1 << 20


def _ref(request: web.Request) -> pb.InstanceRef:
    return pb.InstanceRef(project=req.project(request), name=req.name(request))


async def of_instance(request: web.Request) -> list[dict[str, Any]]:
    """Return the backups of the instance that the request names, as they are shown."""
    reply = await req.backend(request).transfers.ListBackups(pb.ListBackupsRequest(instance=_ref(request)))
    return [backup_json(backup) for backup in reply.backups]


async def list_backups(request: web.Request) -> web.Response:
    found = await of_instance(request)
    if req.recursion(request):
        return envelope.sync(found)
    prefix = "/1.0/" + request.path.split("/")[2]
    return envelope.sync([f"{prefix}/{req.name(request)}/backups/{b['name']}" for b in found])


def compression(request: web.Request, data: dict[str, Any]) -> str:
    """Return what was asked for, else what the project or the server says; empty for the default."""
    backend, key = req.backend(request), "backups.compression_algorithm"
    ways = (backend.project_config(req.project(request)), backend.facts.now.config)
    return req.text(data, "compression_algorithm") or next((c[key] for c in ways if c.get(key)), "")


async def post_backup(request: web.Request) -> web.Response:
    data, backend = await req.body(request), req.backend(request)
    message = pb.CreateBackupRequest(
        instance=_ref(request),
        name=req.text(data, "name"),
        instance_only=req.flag(data, "instance_only") or req.flag(data, "container_only"),
        compression=compression(request, data),
    )
    req.put_time(message.expires_at, req.when(data, "expires_at"))
    # As LXD does where a pool cannot optimize: what is made instead, anybody can read.
    req.flag(data, "optimized_storage")
    reply = await backend.transfers.CreateBackup(message)
    return envelope.accepted(backend.accepted(reply.operation))


async def get_backup(request: web.Request) -> web.Response:
    message = pb.GetBackupRequest(instance=_ref(request), name=req.name(request, "backup"))
    return envelope.sync(backup_json((await req.backend(request).transfers.GetBackup(message)).backup))


async def rename_backup(request: web.Request) -> web.Response:
    data, backend = await req.body(request), req.backend(request)
    message = pb.RenameBackupRequest(
        instance=_ref(request), name=req.name(request, "backup"), new_name=req.text(data, "name")
    )
    return envelope.accepted(backend.accepted((await backend.transfers.RenameBackup(message)).operation))


async def delete_backup(request: web.Request) -> web.Response:
    backend = req.backend(request)
    message = pb.DeleteBackupRequest(instance=_ref(request), name=req.name(request, "backup"))
    return envelope.accepted(backend.accepted((await backend.transfers.DeleteBackup(message)).operation))


async def export_backup(request: web.Request) -> web.StreamResponse:
    backend, name = req.backend(request), req.name(request, "backup")
    found = await backend.transfers.GetBackup(pb.GetBackupRequest(instance=_ref(request), name=name))
    stream = backend.transfers.ExportBackup(pb.ExportBackupRequest(instance=_ref(request), name=name))
    headers = {
        "Content-Disposition": "inline;filename=",
        "Content-Length": str(found.backup.size_bytes),
    }
    return await streams.answer(request, stream, headers)


async def import_instance(request: web.Request) -> web.Response:
    """Receive a backup; it is converted outside root while it arrives, and then becomes an instance."""
    backend, project = req.backend(request), req.project(request)
    ticket = await uploaded(request, project)
    message = pb.ImportInstanceRequest(
        project=project,
        name=req.header(request, "X-LXD-name"),
        pool=req.header(request, "X-LXD-pool"),
        ticket=ticket,
    )
    reply = await backend.transfers.ImportInstance(message)
    return envelope.accepted(backend.accepted(reply.operation))


async def uploaded(request: web.Request, project: str) -> str:
    """Have the backup in the body converted while it arrives, and return the ticket of what it became."""
    return str((await req.backend(request).bases.UploadBackup(_pieces(request, project))).ticket)


async def _pieces(request: web.Request, project: str) -> AsyncIterator[base_pb2.UploadBackupRequest]:
    yield base_pb2.UploadBackupRequest(header=base_pb2.BackupHeader(project=project))
    request.content.set_read_chunk_size(_CHUNK)
    async for chunk in req.upload(request, _CHUNK):
        yield base_pb2.UploadBackupRequest(chunk=chunk)
