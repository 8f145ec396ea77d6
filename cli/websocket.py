"""A websocket client (RFC 6455) over a connected socket: framing apart from I/O, standard library only."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from typing import NamedTuple

from cli.failure import CliError, Refused

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
_CONTINUATION = 0
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MAX_MESSAGE = 64 << 20
_READ = 1 << 18


class Message(NamedTuple):
    opcode: int
    payload: bytes


def masked(payload: bytes, mask: bytes) -> bytes:
    """Return *payload* xor *mask*, repeated; undoes itself. A big integer is far faster than a loop."""
    count = len(payload)
    key = (mask * (count // 4 + 1))[:count]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(count, "little")


def encode(opcode: int, payload: bytes, mask: bytes) -> bytes:
    """Return one final frame of a client."""
    count = len(payload)
    if count < 126:
        size = bytes([0x80 | count])
    elif count < 1 << 16:
        size = bytes([0x80 | 126]) + count.to_bytes(2, "big")
    else:
        size = bytes([0x80 | 127]) + count.to_bytes(8, "big")
    return bytes([0x80 | opcode]) + size + mask + masked(payload, mask)


class Decoder:
    """Turns bytes into messages; frames may come in pieces and messages in fragments."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._opcode = 0
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield the messages that *data* completes. Raises: CliError for what is no websocket."""
        self._buffer += data
        while (frame := self._frame()) is not None:
            is_final, opcode, payload = frame
            if opcode >= CLOSE:
                yield Message(opcode, payload)
                continue
            if opcode != _CONTINUATION:
                self._opcode, self._parts = opcode, []
            self._parts.append(payload)
            if is_final:
                whole, self._parts = b"".join(self._parts), []
                yield Message(self._opcode, whole)

    def _frame(self) -> tuple[bool, int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        short, start = buffer[1] & 0x7F, 2
        extra = {126: 2, 127: 8}.get(short, 0)
        if len(buffer) < start + extra:
            return None
        count = int.from_bytes(buffer[2 : 2 + extra], "big") if extra else short
        start += extra
        if count > _MAX_MESSAGE or buffer[0] & 0x70 or buffer[1] & 0x80:
            raise CliError(
                "the server broke the protocol", "a websocket frame is malformed", "podium version"
            )
        if len(buffer) < start + count:
            return None
        payload = bytes(buffer[start : start + count])
        is_final, opcode = bool(buffer[0] & 0x80), buffer[0] & 0x0F
        del buffer[: start + count]
        return is_final, opcode, payload


def accept_key(key: str) -> str:
    # RFC 6455 prescribes SHA-1 here; nothing secret hangs on it.
    return base64.b64encode(hashlib.sha1((key + _GUID).encode(), usedforsecurity=False).digest()).decode()


class WebSocket:
    """One open connection. One thread may receive while others send."""

    def __init__(self, connected: socket.socket, target: str) -> None:
        """Shake hands. Raises: Refused with the server's reason."""
        self._socket = connected
        self._decoder = Decoder()
        self._sending = threading.RLock()
        self._early = self._shake_hands(target)

    def _shake_hands(self, target: str) -> bytes:
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET {target} HTTP/1.1\r\nHost: podium\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        data = b""
        while b"\r\n\r\n" not in data:
            if not (more := self._socket.recv(_READ)):
                break
            data += more
        head, _, rest = data.partition(b"\r\n\r\n")
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise self._refusal(head, rest)
        if accept_key(key).encode() not in head:
            raise CliError(
                "the server broke the protocol", "its websocket answer has a wrong key", "podium version"
            )
        return rest

    def _refusal(self, head: bytes, body: bytes) -> Refused:
        self._socket.settimeout(2)
        try:
            while not body.rstrip().endswith(b"}") and (more := self._socket.recv(_READ)):
                body += more
            error = json.loads(body)
            return Refused(int(error["error_code"]), str(error["error"]))
        except (OSError, ValueError, KeyError, TypeError):
            return Refused(502, "no websocket: " + head[:80].decode(errors="replace"))

    def send(self, payload: bytes, opcode: int = BINARY) -> None:
        with self._sending:
            self._socket.sendall(encode(opcode, payload, secrets.token_bytes(4)))

    def messages(self) -> Iterator[Message]:
        """Yield data messages until either side closes; pings are answered."""
        data = self._early
        while True:
            for message in self._decoder.feed(data):
                if message.opcode == PING:
                    self._quietly(message.payload, PONG)
                elif message.opcode == CLOSE:
                    self._quietly(message.payload[:2], CLOSE)
                    return
                elif message.opcode != PONG:
                    yield message
            try:
                data = self._socket.recv(_READ)
            except OSError:
                return
            if not data:
                return

    def _quietly(self, payload: bytes, opcode: int) -> None:
        with contextlib.suppress(OSError):  # the other side is gone; the reader sees that as the end
            self.send(payload, opcode)

    def close(self, reason: str = "") -> None:
        self._quietly((1000).to_bytes(2, "big") + reason.encode(), CLOSE)
        with contextlib.suppress(OSError):  # closed by the other side already
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
