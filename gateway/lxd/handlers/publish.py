"""POST /1.0/images with an instance or snapshot as source."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from core.errors import Invalid, NotFound
from gateway.lxd import envelope
from gateway.lxd import request as req
from protos.podium.image.v1 import image_pb2, publish_pb2
from protos.podium.runtime.v1 import transfer_pb2

SOURCES = ("instance", "container", "virtual-machine", "snapshot")


async def publish(request: web.Request, data: dict[str, Any]) -> web.Response:
    backend, project = req.backend(request), req.project(request)
    home = backend.effective_project(project, "images")
    name, snapshot = source_of(req.object_of(data, "source"))
    message = publish_pb2.PublishInstanceRequest(
        project=home,
        instance=transfer_pb2.InstanceRef(project=project, name=name, snapshot=snapshot),
        public=req.flag(data, "public"),
        aliases=[image_pb2.Alias(project=home, name=alias) for alias in alias_names(data)],
        compression=req.text(data, "compression_algorithm"),
    )
    if data.get("properties") is not None:
        message.properties.values.update(req.text_map(data, "properties"))
        message.properties.SetInParent()
    req.put_time(message.expires_at, req.when(data, "expires_at"))
    reply = await backend.publish.PublishInstance(message)
    return envelope.accepted(backend.accepted(reply.operation))


def source_of(source: dict[str, Any]) -> tuple[str, str]:
    """Return the names of an instance and, for one of its snapshots, of that. Raises: Invalid, NotFound."""
    whole, is_snapshot = req.text(source, "name"), source.get("type") == "snapshot"
    name, slash, snapshot = whole.partition("/")
    if not whole:
        raise Invalid("NO_SOURCE", "No source provided")
    if bool(slash) != is_snapshot:
        raise Invalid(
            "BAD_SOURCE", "Not a snapshot" if is_snapshot else "This is a snapshot", about=whole[:64]
        )
    if is_snapshot and not snapshot:
        raise NotFound("NO_INSTANCE", "Instance not found", about=whole[:64])
    return name, snapshot


def alias_names(data: dict[str, Any]) -> list[str]:
    return list(described_aliases(data))


def described_aliases(data: dict[str, Any]) -> dict[str, str]:
    """Return the aliases in a body, name to description. Raises: Invalid."""
    found = data.get("aliases") or []
    if not isinstance(found, list):
        raise Invalid("BAD_TYPE", "aliases must be a list", about="aliases")
    objects = [alias if isinstance(alias, dict) else {} for alias in found]
    return {req.text(alias, "name"): req.text(alias, "description") for alias in objects}
