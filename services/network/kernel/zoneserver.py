"""The sockets of the DNS server for zone transfers."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Callable, Iterator
from typing import Any

from core.logs import get_logger

log = get_logger(__name__)
# (wire, address, is_stream) -> the messages to send.
Answer = Callable[[bytes, str, bool], Iterator[bytes]]
_MOST_STREAMS, _IDLE_S = 64, 10.0


class ZoneServer:
    """Listens at one address at a time, by TCP and UDP."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._tcp: asyncio.Server | None = None
        self._udp: asyncio.DatagramTransport | None = None
        self._streams = 0

    async def listen(self, host: str, port: int) -> None:
        """Listen there and nowhere else any more; an empty *host* is all addresses. Raises: OSError."""
        self.close()
        loop = asyncio.get_running_loop()
        self._tcp = await asyncio.start_server(self._serve, host or None, port, reuse_address=True)
        try:
            local = (host or "::", port)
            self._udp, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(self._answer), local_addr=local
            )
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        if self._tcp:
            self._tcp.close()
        if self._udp:
            self._udp.close()
        self._tcp = self._udp = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = _plain(writer.get_extra_info("peername")[0])
        self._streams += 1
        try:
            if self._streams <= _MOST_STREAMS:
                await self._questions(reader, writer, peer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass
        finally:
            self._streams -= 1
            with contextlib.suppress(OSError):
                writer.close()

    async def _questions(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: str) -> None:
        while True:
            async with asyncio.timeout(_IDLE_S):
                length = struct.unpack("!H", await reader.readexactly(2))[0]
                wire = await reader.readexactly(length)
            sent = False
            for message in self._answer(wire, peer, True):
                writer.write(struct.pack("!H", len(message)) + message)
                sent = True
                async with asyncio.timeout(_IDLE_S):
                    await writer.drain()
                await asyncio.sleep(0)  # a big zone must not hold up what else is served here
            if not sent:
                return


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        for message in self._answer(data, _plain(addr[0]), False):
            self._transport.sendto(message, addr)


def _plain(address: str) -> str:
    """An IPv4 caller of a socket for both families."""
    return address.removeprefix("::ffff:").partition("%")[0]
