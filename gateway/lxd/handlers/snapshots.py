"""/1.0/instances/NAME/snapshots, and the restore that LXD hides in a PUT of the instance."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from aiohttp import web

from core.errors import Invalid, Stale
from core.names import in_project
from gateway.lxd import envelope, etag
from gateway.lxd import request as req
from gateway.lxd.codes import stamp_text
from gateway.lxd.handlers import migration
from gateway.lxd.views.snapshots import snapshot_json
from protos.podium.runtime.v1 import snapshot_pb2 as pb

_RETRIES = 4


def _prefix(request: web.Request) -> str:
    return "/1.0/" + request.path.split("/")[2]


async def of_instance(request: web.Request) -> list[dict[str, Any]]:
    """Return the snapshots of the instance that the request names, as they are shown."""
    return [snapshot_json(s) for s in await _of_instance(request)]


async def _of_instance(request: web.Request) -> list[Any]:
    message = pb.ListSnapshotsRequest(project=req.project(request), instance=req.name(request))
    return list((await req.backend(request).snapshots.ListSnapshots(message)).snapshots)


async def of_all(request: web.Request, *, all_projects: bool) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return the snapshots of all instances, by project and name of the instance."""
    message = pb.ListSnapshotsRequest(project=req.project(request), all_projects=all_projects)
    found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for snapshot in (await req.backend(request).snapshots.ListSnapshots(message)).snapshots:
        found[snapshot.project, snapshot.instance_name].append(snapshot_json(snapshot))
    return found


async def list_snapshots(request: web.Request) -> web.Response:
    if req.recursion(request):
        return envelope.sync(await of_instance(request))
    own = f"{_prefix(request)}/{req.name(request)}/snapshots"
    return envelope.sync(
        [in_project(f"{own}/{s.name}", req.project(request)) for s in await _of_instance(request)]
    )


async def create_snapshot(request: web.Request) -> web.Response:
    data = await req.body(request)
    message = pb.CreateSnapshotRequest(
        project=req.project(request),
        instance=req.name(request),
        name=_new_name(req.text(data, "name")),
        stateful=req.flag(data, "stateful"),
    )
    _put_expiry(message, data)
    backend = req.backend(request)
    return envelope.accepted(backend.accepted((await backend.snapshots.CreateSnapshot(message)).operation))


def _new_name(name: str) -> str:
    if "/" in name:
        raise Invalid("BAD_NAME", 'Invalid snapshot name: Cannot contain "/"', about=name[:64])
    return name


def _put_expiry(message: Any, data: dict[str, Any]) -> None:
    """Year 1 is how Go writes that there is none: never."""
    if req.text(data, "expires_at"):
        expires_at = req.when(data, "expires_at")
        message.never_expires = not expires_at
        req.put_time(message.expires_at, expires_at)


async def _get(request: web.Request) -> Any:
    reply = await req.backend(request).snapshots.GetSnapshot(
        pb.GetSnapshotRequest(
            project=req.project(request), instance=req.name(request), name=req.name(request, "snapshot")
        )
    )
    return reply.snapshot


def etag_of(s: Any) -> str:
    return etag.of(stamp_text(s, "expires_at"))


async def get_snapshot(request: web.Request) -> web.Response:
    snapshot = await _get(request)
    return envelope.sync(snapshot_json(snapshot), etag=etag_of(snapshot))


async def put_snapshot(request: web.Request) -> web.Response:
    """PUT and PATCH alike: there is only the expiry to change, and what is not named stays."""
    data, backend = await req.body(request), req.backend(request)
    for _ in range(_RETRIES):
        current = await _get(request)
        etag.check(request, etag_of(current))
        message = pb.UpdateSnapshotRequest(
            project=req.project(request),
            instance=req.name(request),
            name=req.name(request, "snapshot"),
            expected_revision=current.revision,
        )
        _put_expiry(message, data)
        try:
            reply = await backend.snapshots.UpdateSnapshot(message)
        except Stale:
            continue
        return envelope.accepted(backend.accepted(reply.operation))
    raise Stale("STALE", "The snapshot changes too often right now; read it again")


async def post_snapshot(request: web.Request) -> web.Response:
    await _get(request)
    data, backend = await req.body(request), req.backend(request)
    if req.flag(data, "migration"):
        return await migration.send_instance(request, data, snapshot=req.name(request, "snapshot"))
    message = pb.RenameSnapshotRequest(
        project=req.project(request),
        instance=req.name(request),
        name=req.name(request, "snapshot"),
        new_name=_new_name(req.text(data, "name")),
    )
    return envelope.accepted(backend.accepted((await backend.snapshots.RenameSnapshot(message)).operation))


async def delete_snapshot(request: web.Request) -> web.Response:
    backend = req.backend(request)
    message = pb.DeleteSnapshotRequest(
        project=req.project(request), instance=req.name(request), name=req.name(request, "snapshot")
    )
    return envelope.accepted(backend.accepted((await backend.snapshots.DeleteSnapshot(message)).operation))


async def restore(request: web.Request, data: dict[str, Any]) -> web.Response:
    """Answer a PUT of an instance whose body says restore; all else in it is ignored."""
    name = req.text(data, "restore").removeprefix(f"{req.name(request)}/")
    message = pb.RestoreSnapshotRequest(
        project=req.project(request),
        instance=req.name(request),
        name=name,
        stateful=req.flag(data, "stateful"),
    )
    backend = req.backend(request)
    return envelope.accepted(backend.accepted((await backend.snapshots.RestoreSnapshot(message)).operation))
