"""HTTP by hand over the unix socket, so that what no client library would send can be sent."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT_S = 15.0


@dataclass(frozen=True)
class Reply:
    """status 0: the server closed without a word."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def envelope(self) -> dict[str, Any]:
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found

    def is_refusal(self) -> bool:
        """Say whether this is a 4xx in LXD's envelope with a sentence and nothing of our insides."""
        if not 400 <= self.status < 500:
            return False
        try:
            e = self.envelope
        except ValueError:
            return False
        words = e.get("error")
        inside = any(word in self.body for word in (b"Traceback", b'File \\"', b"grpc", b"Exception"))
        return (
            e.get("type") == "error"
            and e.get("error_code") == self.status
            and bool(words)
            and not inside
            and len(words) < 2000
        )

    def is_healthy(self) -> bool:
        """Say whether it is an answer below 500: a refusal or a success."""
        return self.is_refusal() or 200 <= self.status < 400


def connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(TIMEOUT_S)
    until = time.monotonic() + TIMEOUT_S
    while True:
        try:
            sock.connect(str(path))
            return sock
        except BlockingIOError:  # more wait already than the server lets wait
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def head(method: str, target: str, headers: dict[str, str] | None = None, *, length: int | None = 0) -> bytes:
    """Return a request's head; surrogate-escaped bytes of *target* and headers go out as they are."""
    lines = [f"{method} {target} HTTP/1.1", "Host: podium", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")


def send(
    path: Path, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> Reply:
    return exchange(path, head(method, target, headers, length=len(body)) + body)


def exchange(path: Path, data: bytes, *, half_close: bool = False) -> Reply:
    """Send bytes, perhaps end the sending side, and read the answer. Raises: TimeoutError when it hangs."""
    with connect(path) as sock:
        try:
            sock.sendall(data)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all was read: the answer is there already
        return read_reply(sock)


def read_reply(sock: socket.socket) -> Reply:
    received = b""
    try:
        while b"\r\n\r\n" not in received or not _is_whole(received):
            chunk = sock.recv(1 << 16)
            if not chunk:
                break
            received += chunk
    except ConnectionResetError:
        pass
    return _parsed(received)


def _is_whole(received: bytes) -> bool:
    reply = _parsed(received)
    if 100 <= reply.status < 200:
        return False
    length = reply.headers.get("content-length")
    return length is not None and len(reply.body) >= int(length)


def _parsed(received: bytes) -> Reply:
    top, _, body = received.partition(b"\r\n\r\n")
    first, *rest = top.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    if status == 100:
        return _parsed(body) if body else Reply(100, {}, b"")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in rest)}
    return Reply(status, headers, body)
