"""This server as a simplestreams server, for anybody, of the public images of the default project."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from typing import Any

import orjson
from aiohttp import web

from core.errors import NotFound
from core.projects import DEFAULT
from gateway import pieces
from gateway.lxd import request as req
from gateway.lxd.handlers import exports
from gateway.lxd.views import simplestreams as view
from protos.podium.image.v1 import share_pb2 as pb

_GUEST = pb.Reader(is_guest=True)
# When a list was first seen as it is, by its hash: what it is made of has no time of its last change.
_seen: OrderedDict[str, float] = OrderedDict()
_MOST_SEEN = 16


async def get_index(request: web.Request) -> web.Response:
    return _listed(request, view.index(await _offers(request)))


async def get_products(request: web.Request) -> web.Response:
    return _listed(request, view.products(await _offers(request)))


async def _offers(request: web.Request) -> list[pb.Offer]:
    reply = await req.backend(request).shares.ListOffers(pb.ListOffersRequest(project=DEFAULT))
    return list(reply.offers)


def _listed(request: web.Request, found: dict[str, Any]) -> web.Response:
    body = orjson.dumps(found)
    tag = hashlib.sha256(body).hexdigest()
    answer = pieces.answer(request.headers, size=len(body), etag=tag, modified=_first_seen(tag))
    piece = body[answer.start : answer.start + answer.length]
    headers = {name: value for name, value in answer.headers.items() if name != "Content-Length"}
    return web.Response(body=piece, status=answer.status, headers=headers, content_type="application/json")


def _first_seen(tag: str) -> float:
    when = _seen.setdefault(tag, time.time())
    if len(_seen) > _MOST_SEEN:
        _seen.popitem(last=False)
    return when


async def get_file(request: web.Request) -> web.StreamResponse:
    """Send one file of a public image."""
    wanted = pb.GetFilesRequest(project=DEFAULT, fingerprint=req.name(request), reader=_GUEST)
    found = await req.backend(request).shares.GetFiles(wanted)
    file = next((file for file in found.files if file.filename == req.name(request, "file")), None)
    if file is None or req.name(request) != found.image.fingerprint:
        raise NotFound("NO_FILE", "not found")
    return await exports.send(
        request,
        req.backend(request),
        found.image,
        [pieces.Piece(file.size_bytes, file=file)],
        _GUEST,
        headers={"Content-Type": "application/octet-stream"},
        etag=f"{found.image.fingerprint}-{file.part}",
    )
