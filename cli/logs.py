"""`podium logs`: what an instance printed on its console, and what comes next."""

from __future__ import annotations

import signal
import time

from cli import terminal
from cli.call import Call
from cli.failure import Refused, Unreachable
from cli.server import Server, url

_LOOK_S = 0.5
_OVERLAP = 256


def show(call: Call) -> None:
    path = _place(call)
    text = read(call.server, path)
    lines = call.number("lines", 0)
    terminal.write_all(1, tail(text, lines) if lines else text)
    if call.on("follow"):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        _follow(call.server, path, text)


def _place(call: Call) -> str:
    name = call.words[0]
    return (
        url("instances", name, "logs", "lxc.log") if call.on("engine") else url("instances", name, "console")
    )


def read(server: Server, path: str) -> bytes:
    with server.stream("GET", path) as reply:
        return reply.read()


def tail(text: bytes, lines: int) -> bytes:
    return b"".join(text.splitlines(keepends=True)[-lines:])


def _follow(server: Server, path: str, seen: bytes) -> None:
    while True:
        time.sleep(_LOOK_S)
        try:
            now = read(server, path)
        except Unreachable:
            continue  # the server restarts; the instance goes on
        except Refused as exc:
            if exc.status == 404:
                return
            continue
        terminal.write_all(1, added(seen, now))
        seen = now


def added(before: bytes, now: bytes) -> bytes:
    """Return what is new in *now*: logs grow at their end, are cut at their beginning, or begin anew."""
    if now.startswith(before):
        return now[len(before) :]
    mark = before[-_OVERLAP:]
    at = now.rfind(mark) if mark else -1
    return now[at + len(mark) :] if at >= 0 else now
