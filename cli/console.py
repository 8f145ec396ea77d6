"""`podium console`: what the console printed, or a seat at it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable

from cli import channels, terminal
from cli.call import Call
from cli.server import url
from cli.websocket import WebSocket

_ESCAPE, _LEAVE = 0x01, ord("q")


def attach(call: Call) -> int | None:
    name = call.words[0]
    if call.on("show-log"):
        with call.server.stream("GET", url("instances", name, "console")) as reply:
            sys.stdout.flush()
            terminal.write_all(1, b"\n" + reply.read() + b"\n")
        return None
    if call.text("type", "console") != "console":
        raise call.misuse(f"there is no {call.text('type')} console", "containers have a text console only")
    return attach_to(call, name)


class Keys:
    """Watches for ctrl-a q, which leaves; ctrl-a twice sends one ctrl-a."""

    def __init__(self) -> None:
        self._escaped = False

    def __call__(self, data: bytes) -> bytes | None:
        """Return what to send; None once the user wants to leave."""
        kept = bytearray()
        for key in data:
            if self._escaped:
                self._escaped = False
                if key == _LEAVE:
                    return None
                kept += bytes([key]) if key == _ESCAPE else bytes([_ESCAPE, key])
            elif key == _ESCAPE:
                self._escaped = True
            else:
                kept.append(key)
        return bytes(kept)


def attach_to(call: Call, name: str) -> int:
    """Connect the terminal with the console until either side ends it."""
    columns, rows = terminal.size()
    body = {"width": columns, "height": rows, "type": "console"}
    operation = call.server.begin("POST", url("instances", name, "console"), body)["metadata"]
    control = channels.connect(call.server, operation, "control")
    data = channels.connect(call.server, operation, "0")
    terminal.warn("To detach from the console, press: <ctrl>+a q\r\n")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGHUP):  # so that the terminal is put back
        signal.signal(number, lambda *_: ended.set())
    with terminal.raw():
        channels.follow_resizes(control)
        channels.start(_until_end, channels.drain, ended, control)
        channels.start(_until_end, channels.receive_output, ended, data, 1)
        channels.start(_type, data, ended)
        ended.wait()
    control.close("Detaching from console")
    terminal.warn("\r\n")
    return 0


def _until_end(function: Callable[..., None], ended: threading.Event, *args: object) -> None:
    try:
        function(*args)
    finally:
        ended.set()


def _type(data: WebSocket, ended: threading.Event) -> None:
    channels.send_input(data, 0, keep=Keys())
    ended.set()
