"""As much of an SFTP client as tests need: requests one after another, over any pair of send and receive."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

STATUS, HANDLE, DATA, NAME, ATTRS = range(101, 106)


def text(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def number(value: int) -> bytes:
    return struct.pack(">I", value)


def long(value: int) -> bytes:
    return struct.pack(">Q", value)


NOTHING = number(0)


@dataclass
class Reply:
    kind: int
    body: bytes

    @property
    def code(self) -> int:
        """The code of a status; -1 for any other reply."""
        return int.from_bytes(self.body[:4], "big") if self.kind == STATUS else -1

    @property
    def text(self) -> bytes:
        """The bytes of a handle or of data, or the first name."""
        at = 4 if self.kind == NAME else 0
        size = int.from_bytes(self.body[at : at + 4], "big")
        return self.body[at + 4 : at + 4 + size]


class Sftp:
    def __init__(self, send: Callable[[bytes], object], receive: Callable[[int], bytes]) -> None:
        self._send, self._receive = send, receive

    def init(self) -> bytes:
        self._send(struct.pack(">IBI", 5, 1, 3))
        return self._packet()

    def ask(self, kind: int, *fields: bytes) -> Reply:
        body = b"".join(fields)
        self._send(struct.pack(">IBI", len(body) + 5, kind, 7) + body)
        answer = self._packet()
        assert answer[1:5] == number(7)
        return Reply(answer[0], answer[5:])

    def _packet(self) -> bytes:
        return self._exactly(int.from_bytes(self._exactly(4), "big"))

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            chunk = self._receive(size - len(found))
            if not chunk:
                raise EOFError("the session ended")
            found += chunk
        return found

    def opened(self, path: bytes, flags: int) -> bytes:
        reply = self.ask(3, text(path), number(flags), NOTHING)
        assert reply.kind == HANDLE, reply
        return reply.text

    def put(self, path: bytes, content: bytes) -> None:
        handle = self.opened(path, 0x1A)  # write, create, truncate
        assert self.ask(6, text(handle), long(0), text(content)).code == 0
        assert self.ask(4, text(handle)).code == 0

    def get(self, path: bytes) -> bytes:
        handle = self.opened(path, 1)
        reply = self.ask(5, text(handle), long(0), number(1 << 18))
        assert self.ask(4, text(handle)).code == 0
        return reply.text if reply.kind == DATA else b""
