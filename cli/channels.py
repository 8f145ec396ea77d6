"""What `exec` and `console` share: the websockets of an operation, and bytes going through them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from cli.server import Server, url
from cli.terminal import size, write_all
from cli.websocket import TEXT, WebSocket

_READ = 1 << 16


def connect(server: Server, operation: dict[str, Any], name: str) -> WebSocket:
    secret = operation["metadata"]["fds"][name]
    path = url("operations", operation["id"], "websocket")
    return WebSocket(*server.connect(path, secret=secret))


def tell_size(control: WebSocket) -> None:
    columns, rows = size()
    order = {"command": "window-resize", "args": {"width": str(columns), "height": str(rows)}, "signal": 0}
    _order(control, order)


def tell_signal(control: WebSocket, number: int) -> None:
    _order(control, {"command": "signal", "args": None, "signal": number})


def _order(control: WebSocket, order: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the command has just ended: nobody is there to be told
        control.send(json.dumps(order).encode(), TEXT)


def follow_resizes(control: WebSocket) -> None:
    signal.signal(signal.SIGWINCH, lambda *_: tell_size(control))


def send_input(channel: WebSocket, fd: int = 0, *, keep: Callable[[bytes], bytes | None] = bytes) -> None:
    """Send what comes from *fd* until its end; *keep* may change it, or end it with None."""
    with contextlib.suppress(OSError):  # the command has ended and reads no more
        while data := _input(fd):
            kept = keep(data)
            if kept is None:
                break
            channel.send(kept)
        channel.send(b"", TEXT)


def _input(fd: int) -> bytes:
    try:
        return os.read(fd, _READ)
    except OSError:
        return b""  # a terminal that hung up, or a descriptor that was never open: the end of the input


def receive_output(channel: WebSocket, fd: int) -> None:
    """Write what comes to *fd* until the server says that was all."""
    for message in channel.messages():
        if message.opcode == TEXT:
            return
        try:
            write_all(fd, message.payload)
        except OSError:
            channel.close()  # our reader is gone; the command learns it as its own reader would
            return


def drain(channel: WebSocket) -> None:
    """Answer the pings of a channel that brings nothing."""
    for _ in channel.messages():
        pass


def start(function: Callable[..., None], *args: Any) -> threading.Thread:
    """Run in a thread that does not keep the process alive."""
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread
