"""The child's side of children.py: one JSON request on standard input, frames on standard output.

A frame is one byte of kind, four of length (network order), then that many. "e" says why it failed, and after
"?" this side waits for a line.
"""

from __future__ import annotations

import json
import resource
import struct
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

from core.errors import PodiumError, from_exception

_MEMORY = 1 << 30
_LOCK = threading.Lock()


def serve(work: Callable[[Any, BinaryIO], None]) -> int:
    """Do *work* with the request and standard output, within bounds of memory; return the exit status."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    asked = json.loads(sys.stdin.buffer.readline())
    out = sys.stdout.buffer
    try:
        work(asked, out)
    except Exception as exc:
        error = from_exception(exc) if not isinstance(exc, PodiumError) else exc
        words = {"kind": error.kind.wire, "reason": error.reason, "message": error.message}
        frame(out, b"e", json.dumps(words).encode())
        return 1
    return 0


def pause(out: BinaryIO) -> None:
    """Wait until somebody wants more than what was told. Ends this process where nobody does."""
    frame(out, b"?", b"")
    if not sys.stdin.buffer.readline():
        sys.exit(1)


def frame(out: BinaryIO, kind: bytes, data: bytes) -> None:
    """Write one frame whole, from whichever thread."""
    with _LOCK:
        out.write(kind + struct.pack("!I", len(data)) + data)
        out.flush()
