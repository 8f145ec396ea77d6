"""What a guest may ask of the guest API, and the answers: LXD's /dev/lxd/sock, without envelopes.

Nothing a guest sends is trusted: it is one of a few paths, and it is answered for the instance that the
socket belongs to. Source: LXD 5.0's doc/dev-lxd.md, and what its daemon was seen to answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import orjson
from aiohttp import web

from core.configkeys.guest import of_guest
from core.errors import Kind, NotFound, PodiumError
from core.logs import get_logger
from core.rpc.identity import Identity, set_identity
from gateway.backend import Backend
from gateway.guests import listening
from gateway.lxd import envelope
from gateway.lxd.handlers.exports import send_image
from protos.podium.image.v1 import share_pb2
from protos.podium.runtime.v1 import guest_pb2 as pb

log = get_logger(__name__)
_MOST_BODY = 4096
_BODY_S = 10.0
_STATES = {pb.GUEST_STATE_READY: "Ready", pb.GUEST_STATE_STARTED: "Started"}
_SAID = {"Ready": pb.GUEST_STATE_READY, "Started": pb.GUEST_STATE_STARTED}
_READS = ("GET", "HEAD")

Answer = Callable[["Asked"], Awaitable[web.StreamResponse]]


class Asked:
    """One request of one guest."""

    def __init__(self, request: web.BaseRequest, backend: Backend, id: str, guest: Any) -> None:
        self.request = request
        self.backend = backend
        self.id = id
        self.guest = guest


async def answer(request: web.BaseRequest, backend: Backend, id: str, uid: int) -> web.StreamResponse:
    """Answer a request that came through the socket of instance *id* from the host's user *uid*."""
    try:
        return await _answered(request, backend, id, uid)
    except PodiumError as exc:
        if exc.kind is Kind.UNAVAILABLE:
            return text(503, "the host is restarting; try again")
        return text(exc.kind.http, exc.message)
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception:
        log.exception("guest_request_crashed", id=id, path=request.path[:200])
        return text(500, "internal error")


async def _answered(request: web.BaseRequest, backend: Backend, id: str, uid: int) -> web.StreamResponse:
    set_identity(Identity("", "devlxd"))
    guest = await backend.guests.GetGuest(pb.GetGuestRequest(instance_id=id))
    if not guest.allowed:
        return text(403, "not authorized")
    if uid != guest.root_uid:
        return text(401, "Access denied for non-root user")
    asked = Asked(request, backend, id, guest)
    parts = request.path.strip("/").split("/")
    if request.method == "PATCH" and parts == ["1.0"]:
        return await _say(asked)
    if request.method not in _READS:
        return text(405, "method not allowed")
    return await _read(asked, parts)


async def _read(asked: Asked, parts: list[str]) -> web.StreamResponse:
    match parts:
        case [""]:
            return _json(["/1.0"])
        case ["1.0"]:
            return _json(_about(asked.guest))
        case ["1.0", "config"]:
            return _json([f"/1.0/config/{quote(key)}" for key in sorted(asked.guest.config)])
        case ["1.0", "config", key]:
            return _key(asked.guest, key)
        case ["1.0", "meta-data"]:
            return _bytes(_meta_data(asked.guest))
        case ["1.0", "devices"]:
            return _json(_devices(asked.guest))
        case ["1.0", "events"]:
            return await listening.events(asked.request, asked.backend, asked.id)
        case ["1.0", "images", fingerprint, "export"]:
            return await _image(asked, fingerprint)
    return text(404, "404 page not found")


def _about(guest: Any) -> dict[str, str]:
    return {
        "state": _STATES.get(guest.state, ""),
        "api_version": "1.0",
        "instance_type": "container",
        "location": "none",
    }


def _devices(guest: Any) -> dict[str, dict[str, str]]:
    """Return devices in order, as Go writes maps: two equal answers are the same text."""
    return {name: dict(sorted(device.options.items())) for name, device in sorted(guest.devices.items())}


def _key(guest: Any, key: str) -> web.Response:
    if not of_guest(key):
        return text(403, "not authorized")
    if key not in guest.config:
        return text(404, "not found")
    return _bytes(guest.config[key])


def _meta_data(guest: Any) -> str:
    extra = guest.config.get("user.meta-data", "")
    return f"#cloud-config\ninstance-id: {guest.cloud_init_id}\nlocal-hostname: {guest.name}\n{extra}"


async def _say(asked: Asked) -> web.Response:
    """Take the guest's word for how far it is."""
    request = asked.request
    if (request.content_length or 0) > _MOST_BODY:
        return text(413, "the body is too large")
    body = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_BODY_S):
            while len(body) <= _MOST_BODY and (chunk := await request.content.read(_MOST_BODY)):
                body += chunk
    state = _state(body)
    if state is None:
        return text(400, 'the body must be {"state": "Ready"} or {"state": "Started"}')
    message = pb.SetGuestStateRequest(instance_id=asked.id, state=_SAID[state])
    await asked.backend.guests.SetGuestState(message)
    return web.Response(content_type="application/json")


def _state(body: bytes) -> str | None:
    try:
        said = orjson.loads(body)
    except ValueError:
        return None
    state = said.get("state") if isinstance(said, dict) else None
    return state if isinstance(state, str) and state in _SAID else None


async def _image(asked: Asked, fingerprint: str) -> web.StreamResponse:
    """Send an image that anybody may have, or that was fetched for the guests of this host."""
    guest = asked.guest
    if not guest.may_export_images:
        return text(403, "not authorized")
    set_identity(Identity("", "devlxd", projects=(guest.image_project,)))
    wanted = share_pb2.GetFilesRequest(project=guest.image_project, fingerprint=fingerprint)
    try:
        reply = await asked.backend.shares.GetFiles(wanted)
    except NotFound:
        return envelope.error(404, "Image not found")
    if not (reply.image.public or reply.image.cached):
        return envelope.error(404, "Image not found")
    return await send_image(asked.request, asked.backend, reply, share_pb2.Reader())


def _json(value: Any) -> web.Response:
    body = orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
    return web.Response(body=body, content_type="application/json")


def _bytes(value: str) -> web.Response:
    return web.Response(body=value.encode(), content_type="application/octet-stream")


def text(status: int, why: str) -> web.Response:
    return web.Response(status=status, text=f"{why}\n", headers={"X-Content-Type-Options": "nosniff"})
