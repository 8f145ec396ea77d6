"""The HTTP server of the guest API: one for all guests, with bounds on what each may ask of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from gateway.backend import Backend
from gateway.guests.api import answer, text
from gateway.guests.doors import Doors
from gateway.protocol import Connection

_LIMITS: dict[str, Any] = {
    "access_log": None,
    "keepalive_timeout": 15,
    "max_line_size": 8190,
    "max_field_size": 8190,
    "auto_decompress": False,
}
# A boot asks some twenty questions at once; what comes faster for long is slowed down, not refused.
_BURST, _PER_S = 100.0, 25.0


class GuestApi:
    """Serves the guests whose folders lie in *root*."""

    def __init__(self, backend: Backend, root: Path) -> None:
        self._backend = backend
        self._server = web.Server(self._answer, **_LIMITS)
        self._paces: dict[str, _Pace] = {}
        self.doors = Doors(root, self._connection)

    def start(self) -> None:
        self.doors.start()

    async def stop(self) -> None:
        self.doors.stop()
        await self._server.shutdown(1)

    def _connection(self, id: str, uid: int, left: Callable[[], None]) -> asyncio.BaseProtocol:
        return _GuestConnection(self._server, id, uid, left)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, _GuestConnection)
        await self._pace(connection.id)
        return await answer(request, self._backend, connection.id, connection.uid)

    async def _pace(self, id: str) -> None:
        """Wait until guest *id* may ask one more question."""
        now = time.monotonic()
        for other in [i for i, pace in self._paces.items() if pace.is_rested(now)]:
            del self._paces[other]
        pause_s = self._paces.setdefault(id, _Pace(now)).take(now)
        if pause_s:
            await asyncio.sleep(pause_s)


class _Pace:
    """What one guest may still ask: _BURST questions at once, _PER_S for long."""

    def __init__(self, now: float) -> None:
        self._left, self._at = _BURST, now

    def is_rested(self, now: float) -> bool:
        return self._left + (now - self._at) * _PER_S >= _BURST

    def take(self, now: float) -> float:
        """Take one; return for how many seconds to wait before it is answered."""
        self._left = min(_BURST, self._left + (now - self._at) * _PER_S) - 1
        self._at = now
        return max(0.0, -self._left / _PER_S)


class _GuestConnection(Connection):
    """A connection from inside a guest, of which the kernel said whose it is."""

    __slots__ = ("_left", "id", "uid")

    def __init__(self, server: web.Server, id: str, uid: int, left: Callable[[], None]) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **_LIMITS)
        self.id, self.uid, self._left = id, uid, left

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._left()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP, without telling a guest how we found out."""
        if request.writer.output_size > 0 or isinstance(exc, ConnectionError):
            raise ConnectionError("Nobody is left to be answered")
        reply = text(status, "bad request" if status < 500 else "internal error")
        reply.force_close()
        return reply
