"""Copies and moves between servers: what LXD's clients ask of the source, and of the target."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from core.errors import Forbidden, Invalid
from core.units import parse_bool
from gateway.lxd import envelope
from gateway.lxd import request as req
from gateway.migration.channels import There
from gateway.migration.voyages import Voyages
from protos.podium.runtime.v1 import instance_pb2, transfer_pb2
from protos.podium.runtime.v1.volume_pb2 import CreateVolumeRequest, VolumeRef

VOYAGES = web.AppKey("voyages", Voyages)


async def send_instance(request: web.Request, data: dict[str, Any], *, snapshot: str = "") -> web.Response:
    """Answer a POST to an instance or snapshot that says migration: true, and neither pool nor project."""
    target = req.object_of(data, "target")
    there = _there(request, target) if target else None
    going = transfer_pb2.TransferOut(
        instance=transfer_pb2.InstanceRef(
            project=req.project(request), name=req.name(request), snapshot=snapshot
        ),
        instance_only=_instance_only(data),
        live=data.get("live") is not False,
        passive=there is None,
    )
    operation = await request.app[VOYAGES].begin(transfer_pb2.RunTransferRequest(going=going), there)
    return envelope.accepted(operation)


async def receive_instance(request: web.Request, data: dict[str, Any]) -> web.Response:
    """Answer a POST to instances whose source is of type migration."""
    source, project = req.object_of(data, "source"), req.project(request)
    there = _origin(request, source, "instances")
    message = instance_pb2.CreateInstanceRequest(
        project=project,
        name=req.text(data, "name"),
        description=req.text(data, "description"),
        architecture=req.text(data, "architecture"),
        ephemeral=req.flag(data, "ephemeral"),
        config=req.text_map(data, "config"),
    )
    if data.get("profiles") is not None:
        message.profiles.names.extend(req.texts(data, "profiles"))
        message.profiles.SetInParent()
    req.put_devices(message.devices, req.device_map(data))
    coming = transfer_pb2.TransferIn(
        instance=message,
        refresh=req.flag(source, "refresh"),
        instance_only=_instance_only(source),
        passive=there is None,
    )
    first = transfer_pb2.RunTransferRequest(coming=coming)
    return envelope.accepted(await request.app[VOYAGES].begin(first, there))


async def send_volume(request: web.Request, data: dict[str, Any], volume: VolumeRef) -> web.Response:
    """Answer a POST to a custom volume that says migration: true."""
    target = req.object_of(data, "target")
    there = _there(request, target) if target else None
    going = transfer_pb2.VolumeOut(
        volume=volume, volume_only=req.flag(data, "volume_only"), passive=there is None
    )
    operation = await request.app[VOYAGES].begin(transfer_pb2.RunTransferRequest(volume_going=going), there)
    return envelope.accepted(operation)


async def receive_volume(
    request: web.Request, source: dict[str, Any], wanted: CreateVolumeRequest
) -> web.Response:
    """Answer a POST to volumes whose source is of type migration."""
    there = _origin(request, source, "volumes")
    wanted.volume_only, wanted.refresh = req.flag(source, "volume_only"), req.flag(source, "refresh")
    coming = transfer_pb2.VolumeIn(volume=wanted, passive=there is None)
    operation = await request.app[VOYAGES].begin(transfer_pb2.RunTransferRequest(volume_coming=coming), there)
    return envelope.accepted(operation)


def _origin(request: web.Request, source: dict[str, Any], what: str) -> There | None:
    """Return where to fetch from; None when the other side comes here. Raises: Invalid, Forbidden."""
    mode = req.text(source, "mode")
    if mode not in ("pull", "push"):
        raise Invalid("BAD_MODE", f'Mode "{mode[:40]}" not implemented', about="source.mode")
    if mode == "push":
        return None
    if _is_restricted(request, req.project(request)):
        why = f"Project is restricted: {what} may not be fetched from other servers"
        raise Forbidden("RESTRICTED", why)
    return _there(request, source)


def _there(request: web.Request, data: dict[str, Any]) -> There:
    return There(
        req.text(data, "operation"),
        req.text(data, "certificate"),
        req.text_map(data, "secrets"),
        outside_only=request["caller"].projects is not None,
    )


def _instance_only(data: dict[str, Any]) -> bool:
    return req.flag(data, "instance_only") or req.flag(data, "container_only")


def _is_restricted(request: web.Request, project: str) -> bool:
    config = req.backend(request).project_config(project)
    return parse_bool(config.get("restricted") or "false")
