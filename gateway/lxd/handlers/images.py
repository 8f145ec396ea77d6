"""Images and aliases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, quote

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from core.errors import Invalid, NotFound, Unsupported
from core.names import shown
from gateway.lxd import envelope, etag, filters, imagefiles
from gateway.lxd import request as req
from gateway.lxd.handlers import builds, downloads, exports, publish, pushed
from gateway.lxd.views.others import alias_json, image_json
from protos.podium.cluster.v1 import cluster_pb2
from protos.podium.image.v1 import download_pb2, share_pb2
from protos.podium.image.v1 import image_pb2 as pb

_CHUNK = 1 << 20
_JSON_LIMIT = 1 << 20
_STALL_S = 60.0
_PARTS = {"metadata": pb.IMAGE_PART_METADATA, "rootfs": pb.IMAGE_PART_ROOTFS}


_project = exports.home


async def list_images(request: web.Request) -> web.Response:
    text = request.query.get("filter", "")
    holds = filters.parse(text) if text.strip() else None
    public = request["caller"].is_guest_of(req.project(request))
    reply = await req.backend(request).images.ListImages(
        pb.ListImagesRequest(project=_project(request), public_only=public)
    )
    found = [image_json(i) for i in reply.images]
    found = [i for i in found if holds is None or holds(i)]
    if req.recursion(request):
        return envelope.sync(found)
    return envelope.sync([f"/1.0/images/{i['fingerprint']}" for i in found])


async def _image(request: web.Request) -> Any:
    project, name, who = _project(request), req.name(request), exports.reader(request)
    if who.is_guest:
        asked = share_pb2.GetFilesRequest(project=project, fingerprint=name, reader=who)
        reply = await req.backend(request).shares.GetFiles(asked)
    else:
        ref = pb.ImageRef(fingerprint=name)
        reply = await req.backend(request).images.GetImage(pb.GetImageRequest(project=project, image=ref))
    return reply.image


def _tag(image: Any) -> str:
    return etag.of(image.public, image.auto_update, dict(image.properties))


async def get_image(request: web.Request) -> web.Response:
    image = await _image(request)
    return envelope.sync(image_json(image), etag=_tag(image))


async def put_image(request: web.Request) -> web.Response:
    return await _change(request, merge=False)


async def patch_image(request: web.Request) -> web.Response:
    return await _change(request, merge=True)


async def _change(request: web.Request, *, merge: bool) -> web.Response:
    data, image = await req.body(request), await _image(request)
    etag.check(request, _tag(image))
    properties = req.text_map(data, "properties")
    for name in req.texts(data, "profiles"):
        await _require_profile(request, name)
    if merge:
        properties = {**image.properties, **properties}
    keeps = merge and data.get("profiles") is None
    change = pb.UpdateImageRequest(
        project=_project(request),
        fingerprint=image.fingerprint,
        properties={k: v for k, v in properties.items() if v},
        public=req.flag(data, "public") if "public" in data else merge and image.public,
        auto_update=req.flag(data, "auto_update") if "auto_update" in data else merge and image.auto_update,
        profiles=image.profiles if keeps else req.texts(data, "profiles"),
        without_profiles=not image.profiles if keeps else downloads.has_no_profiles(data),
        expected_revision=image.revision,
    )
    if not merge:
        req.put_time(change.expires_at, req.when(data, "expires_at"))
    await req.backend(request).images.UpdateImage(change)
    return envelope.empty()


async def _require_profile(request: web.Request, name: str) -> None:
    """Raises: Invalid, in LXD's words; an image with a profile that is not there could not be launched."""
    backend = req.backend(request)
    home = backend.effective_project(req.project(request), "profiles")
    try:
        await backend.profiles.GetProfile(cluster_pb2.GetProfileRequest(project=home, name=name))
    except NotFound as exc:
        raise Invalid("NO_PROFILE", f"Profile '{name[:64]}' doesn't exist", about=name[:64]) from exc


async def delete_image(request: web.Request) -> web.Response:
    backend = req.backend(request)
    reply = await backend.images.DeleteImage(
        pb.DeleteImageRequest(
            project=_project(request), fingerprint=req.name(request), asked_in=req.project(request)
        )
    )
    return envelope.accepted(backend.accepted(reply.operation))


async def post_image(request: web.Request) -> web.Response:
    """Receive an image; JSON bodies (publish, pull, push, by URL) are told apart by their first byte."""
    is_guest = request["caller"].is_guest_of(req.project(request))
    header = await pushed.header_of_stranger(request, _project(request)) if is_guest else None
    if request.content_type.startswith("multipart/"):
        parts = _multipart(request)
    else:
        first = await _in_time(_first(request))
        if first.lstrip()[:1] == b"{" and header is None:
            return await _from_source(request, first)
        parts = _raw(request, first)
    backend = req.backend(request)
    reply = await imagefiles.upload(backend, header or await _header(request), parts)
    return envelope.accepted(backend.accepted(reply.operation))


async def _first(request: web.Request) -> bytes:
    """Return what came first of the body; all of it where it was read already for its key."""
    return request[req.BODY] if req.BODY in request else await request.content.readany()


async def _from_source(request: web.Request, body: bytes) -> web.Response:
    while len(body) <= _JSON_LIMIT and (more := await _in_time(request.content.readany())):
        body += more
    data = req.parse_object(body)
    kind = req.text(req.object_of(data, "source"), "type")
    if req.text(req.object_of(data, "source"), "mode") == "push":
        return await pushed.expect_image(request, data, _project(request))
    if kind in publish.SOURCES:
        return await publish.publish(request, data)
    if kind in builds.SOURCES:
        return await builds.build(request, data, _project(request))
    if kind not in downloads.SOURCES:
        raise Invalid("BAD_SOURCE", f"Unknown source type {kind[:40]!r}", about="source.type")
    return await downloads.download(request, data, _project(request))


async def _header(request: web.Request) -> pb.UploadHeader:
    if "X-LXD-secret" in request.headers:
        # Also from one who needs none: what was asked for with it counts.
        return await pushed.header_of_stranger(request, _project(request))
    return pb.UploadHeader(
        project=_project(request),
        filename=req.header(request, "X-LXD-filename"),
        public=req.header(request, "X-LXD-public") in ("1", "true"),
        properties=_properties(request),
        expected_fingerprint=req.header(request, "X-LXD-fingerprint"),
        asked_in=req.project(request),
    )


def _properties(request: web.Request) -> dict[str, str]:
    found: dict[str, str] = {}
    for value in request.headers.getall("X-LXD-properties", []):
        found.update(parse_qsl(value))
    return req.text_map({"X-LXD-properties": found}, "X-LXD-properties")


async def _raw(request: web.Request, first: bytes) -> AsyncIterator[imagefiles.Part]:
    async def chunks() -> AsyncIterator[bytes]:
        if first:
            yield first
        request.content.set_read_chunk_size(_CHUNK)
        while chunk := await _in_time(request.content.read(_CHUNK)):
            yield chunk

    yield pb.IMAGE_PART_UNIFIED, chunks()


async def _in_time(reading: Awaitable[bytes]) -> bytes:
    """Return the next bytes of an upload; a sender that stops must not hold on to what others need."""
    try:
        async with asyncio.timeout(_STALL_S):
            return await reading
    except TimeoutError:
        raise Invalid("STALLED", f"No byte of the upload came for {_STALL_S:g} s; send it again") from None


async def _multipart(request: web.Request) -> AsyncIterator[imagefiles.Part]:
    async def chunks(part: BodyPartReader) -> AsyncIterator[bytes]:
        with _whole_forms():
            while chunk := await _in_time(part.read_chunk(_CHUNK)):
                yield chunk

    left = dict(_PARTS)
    with _whole_forms():
        async for part in await request.multipart():
            name = part.name if isinstance(part, BodyPartReader) else None
            if name == "rootfs.img":
                raise Unsupported("NO_VMS", "Images of virtual machines are not supported")
            if name not in left or not isinstance(part, BodyPartReader):
                raise Invalid("BAD_PART", "An image has the parts metadata and rootfs, once each")
            yield left.pop(name), chunks(part)


@contextmanager
def _whole_forms() -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError, AssertionError, HttpProcessingError) as exc:
        raise Invalid("BAD_MULTIPART", f"The body is not a whole multipart form: {str(exc)[:200]}") from exc


async def list_aliases(request: web.Request) -> web.Response:
    reply = await req.backend(request).images.ListAliases(pb.ListAliasesRequest(project=_project(request)))
    if req.recursion(request):
        return envelope.sync([alias_json(a) for a in reply.aliases])
    return envelope.sync([f"/1.0/images/aliases/{quote(a.name, safe='')}" for a in reply.aliases])


async def post_alias(request: web.Request) -> web.Response:
    data = await req.body(request)
    if not req.text(data, "name") or not req.text(data, "target"):
        raise Invalid("NO_NAME", "name and target are required")
    alias = pb.Alias(
        project=_project(request),
        name=req.text(data, "name"),
        description=req.text(data, "description"),
        target=req.text(data, "target"),
    )
    await req.backend(request).images.CreateAlias(pb.CreateAliasRequest(alias=alias))
    return envelope.created(f"/1.0/images/aliases/{quote(alias.name, safe='')}")


async def _alias(request: web.Request) -> Any:
    reply = await req.backend(request).images.GetAlias(
        pb.GetAliasRequest(project=_project(request), name=req.name(request))
    )
    return reply.alias


async def get_alias(request: web.Request) -> web.Response:
    who = exports.reader(request)
    try:
        alias = await _alias(request)
        if who.is_guest:
            asked = share_pb2.GetFilesRequest(project=_project(request), fingerprint=alias.target, reader=who)
            await req.backend(request).shares.GetFiles(asked)
    except NotFound:
        raise NotFound("NO_ALIAS", f"Image alias not found: {shown(req.name(request))}") from None
    return envelope.sync(alias_json(alias), etag=etag.of(alias_json(alias)))


async def put_alias(request: web.Request) -> web.Response:
    data, alias = await req.body(request), await _alias(request)
    etag.check(request, etag.of(alias_json(alias)))
    patching = request.method == "PATCH"
    if not patching and not req.text(data, "target"):
        raise Invalid("NO_TARGET", "The target field is required", about="target")
    changed = pb.Alias(
        project=alias.project,
        name=alias.name,
        description=req.text(data, "description") or (alias.description if patching else ""),
        target=req.text(data, "target") or alias.target,
    )
    await req.backend(request).images.UpdateAlias(
        pb.UpdateAliasRequest(alias=changed, expected_revision=alias.revision)
    )
    return envelope.empty()


async def rename_alias(request: web.Request) -> web.Response:
    new_name = req.text(await req.body(request), "name")
    await req.backend(request).images.RenameAlias(
        pb.RenameAliasRequest(project=_project(request), name=req.name(request), new_name=new_name)
    )
    return envelope.created(f"/1.0/images/aliases/{quote(new_name, safe='')}")


async def delete_alias(request: web.Request) -> web.Response:
    await req.backend(request).images.DeleteAlias(
        pb.DeleteAliasRequest(project=_project(request), name=req.name(request))
    )
    return envelope.empty()


async def refresh_image(request: web.Request) -> web.Response:
    backend = req.backend(request)
    message = download_pb2.RefreshImageRequest(
        project=_project(request), fingerprint=req.name(request), asked_in=req.project(request)
    )
    reply = await backend.downloads.RefreshImage(message)
    return envelope.accepted(backend.accepted(reply.operation))
