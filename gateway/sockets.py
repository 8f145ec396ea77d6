"""Websockets as every handler opens them: refused before the upgrade, kept alive, given up when dead."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

from aiohttp import web

from core.errors import Invalid

KEEPALIVE_S = 10.0
# A host that vanished is given up after a minute. Not TCP_USER_TIMEOUT: it also ends connections whose
# client lives but does not read for a while, as `lxc exec … | less` does.
_TCP = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))


def opened(request: web.Request, *, max_frame: int) -> web.WebSocketResponse:
    """Return a websocket to prepare. Raises: Invalid when the request asks for none."""
    made = web.WebSocketResponse(max_msg_size=max_frame, autoping=True, compress=False)
    if not asks_for(made, request):
        raise Invalid("NO_WEBSOCKET", "Bad Request: this path speaks websocket only")
    _keep_alive(request)
    return made


def asks_for(made: web.WebSocketResponse, request: web.BaseRequest) -> bool:
    """Say whether *request* is the handshake of a websocket."""
    try:
        return bool(made.can_prepare(request).ok)
    except ValueError:  # a key that is no text
        return False


class _Pings:
    def __init__(self, made: web.WebSocketResponse) -> None:
        self._socket = made
        self._task: asyncio.Task[None] | None = None
        self._wind()

    def stop(self) -> None:
        self._timer.cancel()

    def _wind(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(KEEPALIVE_S, self._tick)

    def _tick(self) -> None:
        if not self._socket.closed:
            self._task = asyncio.create_task(self._ping())

    async def _ping(self) -> None:
        with contextlib.suppress(ConnectionError, RuntimeError):
            await self._socket.ping(b"keepalive")
            self._wind()


@contextlib.contextmanager
def pinged(made: web.WebSocketResponse) -> Iterator[None]:
    """Ping the client now and then while the block runs.

    By a timer: a command opens four sockets, and most are closed long before the first ping.
    """
    pings = _Pings(made)
    try:
        yield
    finally:
        pings.stop()


def _keep_alive(request: web.Request) -> None:
    transport = request.transport
    found = transport.get_extra_info("socket") if transport else None
    if found is None or found.family not in (socket.AF_INET, socket.AF_INET6):
        return
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _TCP:
        found.setsockopt(socket.IPPROTO_TCP, option, value)
