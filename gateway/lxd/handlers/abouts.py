"""Metadata and templates of instances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web

from core.errors import Invalid, NotFound
from core.templates import MOST_TEMPLATE_BYTES, is_template_name
from gateway.lxd import envelope, etag, feed
from gateway.lxd import request as req
from protos.podium.runtime.v1 import about_pb2 as pb

_TEMPLATES = "metadata/templates"
_NONE: dict[str, Any] = {
    "architecture": "",
    "creation_date": 0,
    "expiry_date": 0,
    "properties": None,
    "templates": None,
}


async def _about(request: web.Request) -> Any:
    message = pb.GetInstanceAboutRequest(project=req.project(request), name=req.name(request))
    return await req.backend(request).abouts.GetInstanceAbout(message)


async def _metadata(request: web.Request) -> dict[str, Any]:
    about = await _about(request)
    return {**_NONE, **orjson.loads(about.metadata_json or "{}")}


async def get_metadata(request: web.Request) -> web.Response:
    metadata = await _metadata(request)
    feed.announce(request, "instance-metadata-retrieved", part="metadata")
    return envelope.sync(metadata, etag=etag.of(metadata))


async def put_metadata(request: web.Request) -> web.Response:
    return await _set(request, merge=False)


async def patch_metadata(request: web.Request) -> web.Response:
    return await _set(request, merge=True)


async def _set(request: web.Request, *, merge: bool) -> web.Response:
    data = _checked(await req.body(request))
    etag.check(request, etag.of(await _metadata(request)))
    message = pb.SetInstanceMetadataRequest(
        project=req.project(request),
        name=req.name(request),
        metadata_json=orjson.dumps(data).decode(),
        merge=merge,
    )
    await req.backend(request).abouts.SetInstanceMetadata(message)
    feed.announce(request, "instance-metadata-updated", part="metadata")
    return envelope.empty()


def _checked(data: dict[str, Any]) -> dict[str, Any]:
    """Return what is given of the fields of metadata, each of its type. Raises: Invalid."""
    found: dict[str, Any] = {}
    for field, read in _FIELDS.items():
        if data.get(field) is not None:
            found[field] = read(data, field)
    return found


def _time(data: dict[str, Any], field: str) -> int:
    value = data[field]
    if not isinstance(value, int) or isinstance(value, bool):
        raise Invalid("BAD_TYPE", f"{field} must be a time in seconds since 1970", about=field)
    return value


def _templates(data: dict[str, Any], field: str) -> dict[str, Any]:
    items = req.object_of(data, field)
    return {path: _template(req.object_of(items, path)) for path in items}


def _template(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "when": req.texts(item, "when"),
        "create_only": req.flag(item, "create_only"),
        "template": req.text(item, "template"),
        "properties": req.text_map(item, "properties"),
    }


_FIELDS: dict[str, Callable[[dict[str, Any], str], Any]] = {
    "architecture": req.text,
    "creation_date": _time,
    "expiry_date": _time,
    "properties": req.text_map,
    "templates": _templates,
}


async def get_templates(request: web.Request) -> web.Response:
    """List the templates, or show the one that is named."""
    templates = (await _about(request)).templates
    if not request.query.get("path"):
        return envelope.sync(sorted(templates))
    name = _name(request)
    if name not in templates:
        raise NotFound("NO_TEMPLATE", f'Template "{name}" not found', about=name)
    feed.announce(request, "instance-metadata-template-retrieved", part=_TEMPLATES, path=name)
    headers = {"Content-Disposition": f'inline;filename="{name.encode("ascii", "replace").decode()}"'}
    return web.Response(body=templates[name], content_type="application/octet-stream", headers=headers)


async def post_template(request: web.Request) -> web.Response:
    name, content = _name(request), bytearray()
    async for chunk in req.chunks(request, 1 << 16):
        content += chunk
        if len(content) > MOST_TEMPLATE_BYTES:
            raise Invalid("TEMPLATE_TOO_LARGE", f"A template may have {MOST_TEMPLATE_BYTES >> 10} KiB")
    message = pb.WriteTemplateRequest(
        project=req.project(request), name=req.name(request), template=name, content=bytes(content)
    )
    await req.backend(request).abouts.WriteTemplate(message)
    feed.announce(request, "instance-metadata-template-created", part=_TEMPLATES, path=name)
    return envelope.empty()


async def delete_template(request: web.Request) -> web.Response:
    name = _name(request)
    message = pb.DeleteTemplateRequest(project=req.project(request), name=req.name(request), template=name)
    await req.backend(request).abouts.DeleteTemplate(message)
    feed.announce(request, "instance-metadata-template-deleted", part=_TEMPLATES, path=name)
    return envelope.empty()


def _name(request: web.Request) -> str:
    name = request.query.get("path", "")
    if not name:
        raise Invalid("NO_PATH", "missing path argument")
    if not is_template_name(name):
        raise Invalid("BAD_TEMPLATE_NAME", "Invalid template filename", about=name[:64])
    return name
