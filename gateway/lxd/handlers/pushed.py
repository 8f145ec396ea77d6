"""Images that strangers bring, by a secret that a client of ours was given for them."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from core.errors import Forbidden
from core.rpc.identity import Identity, as_ourselves, set_identity
from gateway.lxd import envelope
from gateway.lxd import request as req
from gateway.lxd.handlers.publish import described_aliases
from protos.podium.image.v1 import image_pb2
from protos.podium.image.v1 import share_pb2 as pb


async def expect_image(request: web.Request, data: dict[str, Any], project: str) -> web.Response:
    """Answer a POST to images with source.mode push: with the secret for whoever brings the image."""
    backend = req.backend(request)
    message = pb.AwaitImageRequest(
        project=project,
        fingerprint=req.text(req.object_of(data, "source"), "fingerprint"),
        public=req.flag(data, "public"),
        auto_update=req.flag(data, "auto_update"),
        properties=req.text_map(data, "properties"),
        aliases=[image_pb2.Alias(name=n, description=d) for n, d in described_aliases(data).items()],
        profiles=req.texts(data, "profiles"),
        asked_in=req.project(request),
    )
    req.put_time(message.expires_at, req.when(data, "expires_at"))
    reply = await backend.shares.AwaitImage(message)
    return envelope.accepted(backend.accepted(reply.operation))


async def header_of_stranger(request: web.Request, project: str) -> image_pb2.UploadHeader:
    """Use up the secret in the headers, and go on for the client it was given to, in that project alone.

    Raises: Forbidden.
    """
    secret, fingerprint = req.header(request, "X-LXD-secret"), req.header(request, "X-LXD-fingerprint")
    if not secret or not fingerprint:
        raise Forbidden("NOT_AUTHORIZED", "not authorized")
    wanted = pb.TakeAwaitedRequest(project=project, fingerprint=fingerprint, secret=secret)
    with as_ourselves():
        taken = await req.backend(request).shares.TakeAwaited(wanted)
    who = taken.requestor
    own = tuple(filter(None, (project, taken.header.asked_in)))
    set_identity(Identity(who.username, who.protocol, who.address, projects=own))
    header: image_pb2.UploadHeader = taken.header
    header.filename = req.header(request, "X-LXD-filename")
    return header
