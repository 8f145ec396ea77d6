"""A connection that speaks no HTTP any more: bytes as they come, no faster than the other side takes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web

_MOST_WAITING = 1 << 20


class RawConnection(asyncio.Protocol):
    """The bytes of a connection after its upgrade."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._waiting = bytearray()
        self._has_more, self._may_write = asyncio.Event(), asyncio.Event()
        self._may_write.set()
        self._is_over = self._is_paused = False

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        self._has_more.set()
        if len(self._waiting) >= _MOST_WAITING and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._is_over = True
        self._has_more.set()
        # What is on its way to the client is still sent, where half a connection can be closed.
        return self._transport.get_extra_info("sslcontext") is None

    def connection_lost(self, exc: Exception | None) -> None:
        self.eof_received()
        self._may_write.set()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield what comes, until the client ends."""
        while True:
            await self._has_more.wait()
            self._has_more.clear()
            data = bytes(self._waiting)
            self._waiting.clear()
            if self._is_paused and not self._transport.is_closing():
                self._is_paused = False
                self._transport.resume_reading()
            if data:
                yield data
            elif self._is_over:
                return
            if self._is_over:
                self._has_more.set()

    async def write(self, data: bytes) -> None:
        """Raises: ConnectionResetError when the client is gone."""
        await self._may_write.wait()
        if self._transport.is_closing():
            raise ConnectionResetError("The client is gone")
        self._transport.write(data)


def upgraded(request: web.Request, protocol: str) -> RawConnection:
    """Answer that the connection speaks *protocol* from here on, and take it from the HTTP server.

    The handler must end in finished(). Raises: ConnectionResetError when the client is gone.
    """
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("The client is gone")
    made = RawConnection(transport)
    transport.set_protocol(made)
    head = f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: {protocol}\r\nConnection: Upgrade\r\n\r\n"
    transport.write(head.encode())
    return made


def finished(request: web.Request, transport: asyncio.Transport | None) -> None:
    """Close the connection. The HTTP server hears that it is gone and answers nothing. Never returns."""
    if transport is not None:
        transport.close()
    request.protocol.connection_lost(None)
    raise asyncio.CancelledError
