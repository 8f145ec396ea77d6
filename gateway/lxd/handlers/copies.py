"""Copies, moves and rebuilds: what LXD's clients ask for by POSTs to instances and to one of them."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from gateway.lxd import envelope
from gateway.lxd import request as req
from gateway.lxd.sources import source_of
from protos.podium.runtime.v1 import copy_pb2 as pb


async def copy_instance(request: web.Request, data: dict[str, Any]) -> web.Response:
    """Answer a POST to instances whose source is of type copy."""
    source, project = req.object_of(data, "source"), req.project(request)
    name, _, snapshot = req.text(source, "source").partition("/")
    message = pb.CopyInstanceRequest(
        project=project,
        name=req.text(data, "name"),
        source=pb.CopySource(project=req.text(source, "project") or project, name=name, snapshot=snapshot),
        description=req.text(data, "description"),
        ephemeral=req.flag(data, "ephemeral"),
        config=req.text_map(data, "config"),
        instance_only=_instance_only(source),
        refresh=req.flag(source, "refresh"),
        start=req.flag(data, "start"),
    )
    if data.get("profiles") is not None:
        message.profiles.names.extend(req.texts(data, "profiles"))
        message.profiles.SetInParent()
    req.put_devices(message.devices, req.device_map(data))
    backend = req.backend(request)
    return envelope.accepted(backend.accepted((await backend.copies.CopyInstance(message)).operation))


def _instance_only(data: dict[str, Any]) -> bool:
    return req.flag(data, "instance_only") or req.flag(data, "container_only")


def is_local_move(data: dict[str, Any]) -> bool:
    """Say whether a POST to an instance moves it within this server."""
    return bool(req.text(data, "pool") or req.text(data, "project"))


async def move_instance(request: web.Request, data: dict[str, Any]) -> web.Response:
    message = pb.MoveInstanceRequest(
        project=req.project(request),
        name=req.name(request),
        new_name=req.text(data, "name"),
        pool=req.text(data, "pool"),
        instance_only=_instance_only(data),
    )
    if project := req.text(data, "project"):
        message.to.project = project
    backend = req.backend(request)
    return envelope.accepted(backend.accepted((await backend.copies.MoveInstance(message)).operation))


async def rebuild_instance(request: web.Request) -> web.Response:
    data = await req.body(request)
    source = req.object_of(data, "source")
    message = pb.RebuildInstanceRequest(
        project=req.project(request), name=req.name(request), source=source_of(source)
    )
    backend = req.backend(request)
    return envelope.accepted(backend.accepted((await backend.copies.RebuildInstance(message)).operation))
