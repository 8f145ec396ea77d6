"""Volumes of storage pools: those of instances and images to look at, custom ones to work with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from aiohttp import web

from core.configkeys.devices.disk import is_root
from core.errors import Invalid, NotFound
from core.names import in_project
from core.operations.convert import from_proto
from core.units import parse_bytes
from gateway.lxd import envelope, etag, filters
from gateway.lxd import request as req
from gateway.lxd.handlers import migration
from gateway.lxd.views.volumes import (
    custom_json,
    snapshot_as_volume,
    volume_json,
)
from protos.podium.runtime.v1 import instance_pb2 as instances
from protos.podium.runtime.v1 import storage_pb2 as storage
from protos.podium.runtime.v1 import volume_pb2 as pb

CUSTOM = "custom"
_TYPES = ("container", "virtual-machine", CUSTOM, "image")


def kind_of(request: web.Request) -> str:
    """Return the type that the path names. Raises: Invalid."""
    kind = request.match_info.get("type", "")
    if kind and kind not in _TYPES:
        raise Invalid("BAD_TYPE", "Invalid storage volume type name", about=kind[:40])
    return kind


def ref_of(request: web.Request) -> pb.VolumeRef:
    """Return the custom volume, or the snapshot of one, that the path names. Raises: NotFound."""
    if kind_of(request) != CUSTOM:
        raise missing(request)
    return pb.VolumeRef(
        pool=req.name(request),
        project=req.project(request),
        name=req.name(request, "volume"),
        snapshot=request.match_info.get("snapshot", ""),
    )


def missing(request: web.Request) -> NotFound:
    return NotFound("NO_VOLUME", "Storage pool volume not found", about=req.name(request, "volume")[:64])


# --- lists -------------------------------------------------------------------------------------------


async def list_volumes(request: web.Request) -> web.Response:
    kind = kind_of(request)
    text = request.query.get("filter", "")
    holds = filters.parse(text) if text.strip() else None
    found = await _system_volumes(request) if kind != CUSTOM else []
    if kind in ("", CUSTOM):
        found += await _custom_volumes(request)
    shown = [v for v in found if (not kind or v["type"] == kind) and (holds is None or holds(v))]
    if req.recursion(request):
        return envelope.sync(shown)
    return envelope.sync([_url(request, v) for v in shown])


async def _system_volumes(request: web.Request) -> list[dict[str, Any]]:
    reply = await req.backend(request).storage.ListVolumes(
        storage.ListVolumesRequest(
            pool=req.name(request), project=req.project(request), all_projects=_everywhere(request)
        )
    )
    return [volume_json(v) for v in reply.volumes]


async def _custom_volumes(request: web.Request) -> list[dict[str, Any]]:
    reply = await req.backend(request).volumes.ListCustomVolumes(
        pb.ListCustomVolumesRequest(
            pool=req.name(request), project=req.project(request), all_projects=_everywhere(request)
        )
    )
    found = []
    for volume in reply.volumes:
        found.append(custom_json(volume))
        found += [snapshot_as_volume(volume, snapshot) for snapshot in volume.snapshots]
    return found


def _everywhere(request: web.Request) -> bool:
    return request.query.get("all-projects") == "true"


def _url(request: web.Request, volume: dict[str, Any]) -> str:
    name, _, snapshot = volume["name"].partition("/")
    path = f"/1.0/storage-pools/{req.name(request)}/volumes/{volume['type']}/{quote(name)}"
    if snapshot:
        path += f"/snapshots/{quote(snapshot)}"
    return in_project(path, volume["project"])


# --- one ---------------------------------------------------------------------------------------------


async def get_volume(request: web.Request) -> web.Response:
    if kind_of(request) != CUSTOM:
        return envelope.sync(await system_volume(request))
    volume = await custom(request)
    return envelope.sync(custom_json(volume), etag=_tag(volume))


async def custom(request: web.Request) -> Any:
    reply = await req.backend(request).volumes.GetVolume(pb.GetVolumeRequest(volume=ref_of(request)))
    return reply.volume


def _tag(volume: Any) -> str:
    return etag.of(volume.name, CUSTOM, dict(volume.config))


async def system_volume(request: web.Request) -> dict[str, Any]:
    wanted = kind_of(request), req.name(request, "volume")
    for volume in await _system_volumes(request):
        if (volume["type"], volume["name"]) == wanted:
            return volume
    raise missing(request)


async def system_snapshots(request: web.Request) -> list[str]:
    """Return the names, as VOLUME/SNAPSHOT, of the snapshots of an instance's volume. Raises: NotFound."""
    await system_volume(request)
    kind, prefix = kind_of(request), f"{req.name(request, 'volume')}/"
    found = [volume for volume in await _system_volumes(request) if volume["type"] == kind]
    return [volume["name"] for volume in found if volume["name"].startswith(prefix)]


async def volume_state(request: web.Request) -> web.Response:
    if kind_of(request) == CUSTOM:
        found = await req.backend(request).volumes.GetVolumeState(
            pb.GetVolumeStateRequest(volume=ref_of(request))
        )
        known = found.HasField("used_bytes")
        return envelope.sync(_usage(found.used_bytes, found.total_bytes) if known else {"usage": None})
    if kind_of(request) != "container":
        raise missing(request)
    return await _instance_state(request)


async def _instance_state(request: web.Request) -> web.Response:
    """What the volume of an instance uses is in the state of the instance."""
    reply = await req.backend(request).instances.GetInstance(
        instances.GetInstanceRequest(
            project=req.project(request),
            name=req.name(request, "volume"),
            view=instances.INSTANCE_VIEW_FULL,
        )
    )
    used = reply.instance.state.disk_usage_bytes
    devices = {name: device.options for name, device in reply.instance.expanded_devices.items()}
    roots = {name: options for name, options in devices.items() if is_root(options)}
    return envelope.sync(_usage(sum(used[name] for name in roots if name in used), root_size(roots)))


def root_size(roots: Mapping[str, Mapping[str, str]]) -> int:
    """Return the bound in bytes of an instance's root disk; 0 for none."""
    return max((parse_bytes(options["size"]) for options in roots.values() if options.get("size")), default=0)


def _usage(used: int, total: int) -> dict[str, Any]:
    return {"usage": {"used": used, "total": total}}


# --- changes -----------------------------------------------------------------------------------------


async def post_volume(request: web.Request) -> web.Response:
    data = await req.body(request)
    _check_new(request, data)
    message = pb.CreateVolumeRequest(
        volume=pb.VolumeRef(
            pool=req.name(request), project=req.project(request), name=req.text(data, "name")
        ),
        content_type=req.text(data, "content_type"),
        description=req.text(data, "description"),
        config=req.text_map(data, "config"),
    )
    backend, source = req.backend(request), req.object_of(data, "source")
    if req.text(source, "type") == "migration":
        return await migration.receive_volume(request, source, message)
    if not _add_source(request, message, source):
        done(await backend.volumes.CreateVolume(message))
        return envelope.empty()
    reply = await backend.volumes.CreateVolume(message)
    return envelope.accepted(backend.accepted(reply.operation))


def _add_source(request: web.Request, message: pb.CreateVolumeRequest, source: dict[str, Any]) -> bool:
    """Say what the volume is a copy of, if it is one. Raises: Invalid."""
    kind = req.text(source, "type")
    if not kind:
        return False
    if kind != "copy":
        raise Invalid("BAD_SOURCE", f'Unknown source type "{kind[:40]}"', about="source.type")
    name, _, snapshot = req.text(source, "name").partition("/")
    message.source.pool = req.text(source, "pool") or req.name(request)
    message.source.project = req.text(source, "project") or req.project(request)
    message.source.name, message.source.snapshot = name, snapshot
    message.volume_only, message.refresh = req.flag(source, "volume_only"), req.flag(source, "refresh")
    return True


def _check_new(request: web.Request, data: dict[str, Any]) -> None:
    kind = kind_of(request) or req.text(data, "type")
    if not req.text(data, "name"):
        raise Invalid("NO_NAME", "No name provided", about="name")
    if not kind:
        raise Invalid("NO_TYPE", "You must provide a storage volume type of the storage volume", about="type")
    if kind != CUSTOM:
        raise Invalid(
            "BAD_TYPE", f'Currently not allowed to create storage volumes of type "{kind[:40]}"', about="type"
        )


async def _refuse_of_instance(request: web.Request, data: dict[str, Any]) -> None:
    """Volumes of instances are changed with these. Raises: NotFound, Invalid."""
    if kind_of(request) == CUSTOM:
        return
    await system_volume(request)
    if "/" in req.text(data, "name"):
        raise Invalid("BAD_NAME", "Storage volume names may not contain slashes")
    if "size" in req.text_map(data, "config"):
        raise Invalid("BAD_VALUE", 'Volume "size" property is not valid for volume type', about="size")
    raise Invalid("OF_INSTANCE", "The volume of an instance has no keys of its own; set them on the instance")


async def put_volume(request: web.Request) -> web.Response:
    data = await req.body(request)
    await _refuse_of_instance(request, data)
    volume = await custom(request)
    etag.check(request, _tag(volume))
    if snapshot := req.text(data, "restore"):
        wanted = ref_of(request)
        wanted.snapshot = snapshot
        done(await req.backend(request).volumes.RestoreVolume(pb.RestoreVolumeRequest(volume=wanted)))
        return envelope.empty()
    message = pb.UpdateVolumeRequest(
        volume=ref_of(request),
        config=req.text_map(data, "config"),
        merge=request.method == "PATCH",
        expected_revision=volume.revision,
    )
    if request.method == "PUT" or data.get("description") is not None:
        message.description = req.text(data, "description")
    done(await req.backend(request).volumes.UpdateVolume(message))
    return envelope.empty()


async def move_volume(request: web.Request) -> web.Response:
    """Send it to another server, move it when a pool or project is named, or rename it."""
    data, backend = await req.body(request), req.backend(request)
    if (kind := kind_of(request)) != CUSTOM:
        await system_volume(request)
        raise Invalid("BAD_TYPE", f'Renaming storage volumes of type "{kind}" is not allowed')
    if req.flag(data, "migration"):
        return await migration.send_volume(request, data, ref_of(request))
    name, pool, project = (req.text(data, field) for field in ("name", "pool", "project"))
    if (pool and pool != req.name(request)) or (project and project != req.project(request)):
        target = pb.VolumeRef(
            pool=pool or req.name(request), project=project or req.project(request), name=name
        )
        reply = await backend.volumes.MoveVolume(pb.MoveVolumeRequest(volume=ref_of(request), target=target))
        return envelope.accepted(backend.accepted(reply.operation))
    await backend.volumes.RenameVolume(pb.RenameVolumeRequest(volume=ref_of(request), new_name=name))
    return envelope.created(f"/1.0/storage-pools/{req.name(request)}/volumes/custom/{quote(name)}")


async def delete_volume(request: web.Request) -> web.Response:
    if kind_of(request) != CUSTOM:
        await system_volume(request)
        kind = kind_of(request)
        raise Invalid("BAD_TYPE", f'Storage volumes of type "{kind}" cannot be deleted with the storage API')
    done(await req.backend(request).volumes.DeleteVolume(pb.DeleteVolumeRequest(volume=ref_of(request))))
    return envelope.empty()


def done(reply: Any) -> None:
    """Raises: what the operation of a short call failed with."""
    if error := from_proto(reply.operation).error():
        raise error
