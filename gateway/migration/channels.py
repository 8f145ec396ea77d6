"""The two websockets of a migration: the other side comes here with a secret, or we go there with it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from aiohttp import (
    AddrInfoType,
    ClientError,
    ClientHandlerType,
    ClientPayloadError,
    ClientRequest,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ClientWebSocketResponse,
    Fingerprint,
    TCPConnector,
    web,
)

from core.addresses import is_outside
from core.errors import Invalid, NotFound, TooLate, Unavailable
from gateway import sockets

NAMES = ("control", "fs")
_MAX_FRAME = 16 << 20
_COME_S = 30.0
_DIAL_S = 20.0
_PATH = re.compile(r"/1\.0/operations/[0-9a-fA-F-]{36}")
Socket = web.WebSocketResponse | ClientWebSocketResponse


@dataclass(frozen=True)
class Channels:
    """control carries one message a frame, fs the archive in frames and a text frame after it."""

    control: Socket
    fs: Socket


@dataclass
class Meeting:
    """Where the other side's websockets are waited for. Each secret opens one channel, once."""

    secrets: Mapping[str, str]
    sockets: dict[str, asyncio.Future[Socket]] = field(default_factory=dict)
    claimed: set[str] = field(default_factory=set)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.sockets = {name: loop.create_future() for name in self.secrets}

    async def take(self, request: web.Request) -> web.StreamResponse:
        """Answer a request for a websocket of this meeting; return when that is over. Raises: NotFound."""
        given = request.query.get("secret", "").encode()
        found = [n for n, one in self.secrets.items() if one and hmac.compare_digest(given, one.encode())]
        if not found or found[0] in self.claimed:
            raise NotFound("NO_CHANNEL", "No channel of this operation has that secret")
        socket = sockets.opened(request, max_frame=_MAX_FRAME)
        self.claimed.add(found[0])
        await socket.prepare(request)
        self.sockets[found[0]].set_result(socket)
        with sockets.pinged(socket):
            await self.over.wait()
        return socket

    @asynccontextmanager
    async def channels(self) -> AsyncIterator[Channels]:
        """Give the channels once all are there. Raises: TooLate."""
        try:
            async with asyncio.timeout(_COME_S):
                control, fs = [await self.sockets[name] for name in NAMES]
        except TimeoutError:
            raise TooLate("NOBODY_CAME", "Timed out waiting for migration connections") from None
        try:
            yield Channels(control, fs)
        finally:
            for socket in (fs, control):
                await _close(socket)

    def end(self) -> None:
        self.over.set()
        for future in self.sockets.values():
            future.cancel()


class Meetings:
    """Those of this process, by the id of their operation."""

    def __init__(self) -> None:
        self._open: dict[str, Meeting] = {}

    def find(self, id: str) -> Meeting | None:
        return self._open.get(id)

    @contextlib.contextmanager
    def open(self, id: str, secrets: Mapping[str, str]) -> Iterator[Meeting]:
        meeting = self._open[id] = Meeting(secrets)
        try:
            yield meeting
        finally:
            del self._open[id]
            meeting.end()


@dataclass(frozen=True)
class There:
    """Where the other side waits. url: of its operation; certificate: PEM, the only one that is believed.

    outside_only: for who may not look around in this host's networks; what is checked is connected to.
    """

    url: str
    certificate: str
    secrets: Mapping[str, str]
    outside_only: bool = False

    def check(self) -> None:
        """Raises: Invalid."""
        if not _is_operation(self.url):
            raise Invalid(
                "BAD_OPERATION", "operation must be the https URL of an operation", about="operation"
            )
        if set(NAMES) - set(self.secrets):
            raise Invalid("NO_SECRETS", "secrets must have one for control and one for fs", about="secrets")
        _fingerprint(self.certificate)

    @asynccontextmanager
    async def channels(self) -> AsyncIterator[Channels]:
        """Connect both. Raises: Unavailable."""
        parts = urlsplit(self.url)
        where = f"https://{parts.netloc}{parts.path}/websocket"
        pinned = Fingerprint(_fingerprint(self.certificate))
        connector = TCPConnector(socket_factory=_outside if self.outside_only else None)
        timeout = ClientTimeout(total=None, sock_connect=_DIAL_S)
        async with ClientSession(connector=connector, timeout=timeout, middlewares=(_straight,)) as session:
            found: list[ClientWebSocketResponse] = []
            try:
                for name in NAMES:
                    url = f"{where}?secret={quote(self.secrets[name], safe='')}"
                    async with asyncio.timeout(_DIAL_S):
                        found.append(
                            await session.ws_connect(url, ssl=pinned, max_msg_size=_MAX_FRAME, heartbeat=30.0)
                        )
                yield Channels(*found)
            except (ClientError, OSError, TimeoutError) as exc:
                why = f"The other server at {parts.netloc} could not be reached: {exc}"
                raise Unavailable("NOT_REACHED", why[:300]) from exc
            finally:
                for socket in reversed(found):
                    await _close(socket)


def _is_operation(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme == "https" and bool(parts.hostname) and bool(_PATH.fullmatch(parts.path))
    except ValueError:  # brackets without an address of version 6 in them
        return False


def _outside(found: AddrInfoType) -> socket.socket:
    family, kind, protocol, _, address = found
    if not is_outside(str(address[0])):
        raise PermissionError("it is an address inside; an administrator may do this")
    return socket.socket(family, kind, protocol)


async def _straight(request: ClientRequest, ask: ClientHandlerType) -> ClientResponse:
    """Go where was asked, and not where that sends us: there no certificate is pinned."""
    response = await ask(request)
    if 300 <= response.status < 400:
        response.close()
        raise ClientPayloadError("it leads elsewhere")
    return response


def _fingerprint(certificate: str) -> bytes:
    try:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).digest()
    except ValueError:
        raise Invalid(
            "BAD_CERTIFICATE", "certificate must be the other server's, as PEM", about="certificate"
        ) from None


async def _close(socket: Socket) -> None:
    with contextlib.suppress(Exception):
        await asyncio.wait_for(socket.close(), 2)
