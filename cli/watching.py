"""Show something again whenever an event says that it may have changed. For `podium list -w`."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable

from cli.call import Call
from cli.failure import Refused, Unreachable
from cli.server import url
from cli.websocket import TEXT, WebSocket

_CLEAR = "\x1b[H\x1b[J"
_LEAST_S, _MOST_S, _RETRY_S = 0.2, 5.0, 0.5


def follow(call: Call, show: Callable[[], None]) -> None:
    """Call *show* now, after each event, and now and then, until ctrl-c: addresses come without an event."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    query = {"type": "lifecycle"} | ({"all-projects": "true"} if call.on("all-projects") else {})
    while True:
        try:
            _until_lost(WebSocket(*call.server.connect(url("events"), **query)), show)
        except (Unreachable, Refused):
            time.sleep(_RETRY_S)


def _until_lost(events: WebSocket, show: Callable[[], None]) -> None:
    changed, lost = threading.Event(), threading.Event()
    threading.Thread(target=_listen, args=(events, changed, lost), daemon=True).start()
    while not lost.is_set():
        if sys.stdout.isatty():
            sys.stdout.write(_CLEAR)
        show()
        sys.stdout.flush()
        changed.wait(_MOST_S)
        time.sleep(_LEAST_S)  # what happens together is shown together
        changed.clear()


def _listen(events: WebSocket, changed: threading.Event, lost: threading.Event) -> None:
    try:
        for message in events.messages():
            if message.opcode == TEXT:
                changed.set()
    finally:
        lost.set()
        changed.set()
