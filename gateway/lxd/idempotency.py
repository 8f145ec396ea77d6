"""`Idempotency-Key`: a request that is sent again gets the operation that it got the first time.

The id of the operation follows from caller and key, so the state itself keeps out a second one, and any
gateway finds the first whatever died meanwhile. Nothing is remembered here.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import uuid
from weakref import WeakValueDictionary

from aiohttp import web

from core.errors import AlreadyExists, Invalid, PodiumError
from core.operations.ledger import NOT_ACCEPTED
from core.operations.operation import Operation
from core.rpc.once import Ticket, send_ticket
from gateway.backend import Handler
from gateway.lxd import envelope
from gateway.lxd import request as req

HEADER = "Idempotency-Key"
_METHODS = ("POST", "PUT", "DELETE")
_NAMESPACE = uuid.UUID("c5b1f0f4-7d0e-4d35-9a51-1c0c2d3a9b77")
_LONGEST = 128
_UPLOADS = ("application/octet-stream", "multipart/form-data")
_under_way: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()


async def once(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer *request*; with the operation of an earlier one when it carries a key that was used.

    Raises: Invalid for a bad key, AlreadyExists when the key was used for another request.
    """
    values = request.headers.getall(HEADER, []) if request.method in _METHODS else []
    if not values or not request["caller"].trusted:
        answer: web.StreamResponse = await handler(request)
        return answer
    name, digest = f"{_owner(request)}\n{_checked(values)}", await _digest(request)
    # Twins that arrive together: the second sees what the first did, not what it is about to do.
    async with _under_way.setdefault(name, asyncio.Lock()):
        return await _first_or_same(request, handler, name=name, digest=digest)


async def _first_or_same(
    request: web.Request, handler: Handler, *, name: str, digest: str
) -> web.StreamResponse:
    id, earlier = await _find(request, name)
    if earlier:
        return _same(earlier, digest)
    send_ticket(Ticket(id, digest))
    try:
        answer: web.StreamResponse = await handler(request)
        return answer
    except PodiumError:
        # Accepted all the same: by a twin through another gateway, or in answer that got lost.
        _, earlier = await _find(request, name)
        if earlier is None:
            raise
        return _same(earlier, digest)


async def _find(request: web.Request, name: str) -> tuple[str, Operation | None]:
    """Return the id that *name* stands for, and its operation if there is one.

    A try of which is known that nothing was done counts for nothing; the next has an id of its own.
    """
    for attempt in itertools.count():
        id = str(uuid.uuid5(_NAMESPACE, f"{name}\n{attempt}"))
        earlier = await req.backend(request).recorded(id)
        if earlier is None or earlier.error_reason != NOT_ACCEPTED:
            return id, earlier
    raise AssertionError  # counting never ends


def _same(earlier: Operation, digest: str) -> web.Response:
    if earlier.request_digest != digest:
        raise AlreadyExists(
            "KEY_REUSED", f"This {HEADER} was used for another request; choose a new one", about=earlier.id
        )
    return envelope.accepted(earlier)


def _owner(request: web.Request) -> str:
    identity = request["caller"].identity
    return f"{identity.protocol}\n{identity.username}"


def _checked(values: list[str]) -> str:
    key = values[0]
    if len(values) > 1 or not 1 <= len(key) <= _LONGEST or not key.isprintable():
        raise Invalid(
            "BAD_KEY", f"{HEADER} must be one value of 1 to {_LONGEST} printable characters", about=HEADER
        )
    return key


async def _digest(request: web.Request) -> str:
    """Return what tells this request from others; its body is kept for who reads it next."""
    if request.headers.get("Content-Type", "").split(";")[0] in _UPLOADS:
        raise Invalid("NO_KEY_FOR_UPLOADS", f"An upload takes no {HEADER}; send it without", about=HEADER)
    request[req.BODY] = await req.whole_body(request)
    whole = hashlib.sha256(f"{request.method} {request.raw_path}\n".encode("utf-8", "surrogateescape"))
    whole.update(request[req.BODY])
    return whole.hexdigest()
