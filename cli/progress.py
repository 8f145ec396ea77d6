"""Signs of life on a terminal: a spinner while an operation runs, a bar while bytes flow.

Nothing is painted where standard error is no terminal, with --quiet, or for what ends at once.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from cli.failure import CliError
from cli.texts import duration, size

_SHOW_AFTER_S = 0.3
_EVERY_S = 0.15
_POLL_S = 1.0
_WHEEL = "|/-\\"
_BAR = 24
_PERCENT = re.compile(r"\b([0-9]{1,3})%")


def is_painted(quiet: bool) -> bool:
    return not quiet and sys.stderr.isatty()


def bar(share: float) -> str:
    """Return "[######------]  50%"."""
    share = min(1.0, max(0.0, share))
    filled = round(_BAR * share)
    return f"[{'#' * filled}{'-' * (_BAR - filled)}] {share * 100:3.0f}%"


def progress_of(operation: Any) -> str:
    """Return what a running operation says of itself: any metadata key that ends in _progress."""
    metadata = operation.get("metadata") or {}
    return ", ".join(_barred(str(value)) for key, value in metadata.items() if key.endswith("_progress"))


def _barred(text: str) -> str:
    """Draw the first percentage of a text as a bar."""
    found = _PERCENT.search(text)
    return text if found is None else text[: found.start()] + bar(int(found[1]) / 100) + text[found.end() :]


@contextmanager
def alive(doing: str, look: Callable[[], Any], *, quiet: bool) -> Iterator[None]:
    """Paint *doing*, what *look* says of the operation and the time, until the block ends."""
    if not is_painted(quiet) or not doing:
        yield
        return
    ended = threading.Event()
    painter = threading.Thread(target=_spin, args=(doing, look, ended), daemon=True)
    painter.start()
    try:
        yield
    finally:
        ended.set()
        painter.join()


def _spin(doing: str, look: Callable[[], Any], ended: threading.Event) -> None:
    began, said, asked = time.monotonic(), "", 0.0
    if ended.wait(_SHOW_AFTER_S):
        return
    turn = 0
    while not ended.wait(_EVERY_S):
        now = time.monotonic()
        if now - asked > _POLL_S:
            said, asked = _ask(look), now
        turn += 1
        detail = f": {said}" if said else ""
        _paint(f"{_WHEEL[turn % 4]} {doing}{detail} ({duration(now - began)})")
    _paint("")


def _ask(look: Callable[[], Any]) -> str:
    try:
        return progress_of(look())
    except (CliError, OSError, ValueError):
        return ""  # the operation has just ended, or the server is away: its waiter will say so


def _paint(text: str) -> None:
    sys.stderr.write(f"\r\x1b[K{text}")
    sys.stderr.flush()


class Meter:
    """Counts bytes that flow and paints a bar of them."""

    def __init__(self, doing: str, total: int | None, *, quiet: bool) -> None:
        self._doing, self._total = doing, total
        self._painted = is_painted(quiet)
        self._began = time.monotonic()
        self._last = self._began
        self.count = 0

    def add(self, count: int) -> None:
        self.count += count
        now = time.monotonic()
        if self._painted and now - self._last > _EVERY_S:
            self._last = now
            _paint(self._line(now - self._began))

    def _line(self, took_s: float) -> str:
        rate = f"{size(self.count / max(took_s, 1e-6))}/s"
        if not self._total:
            return f"{self._doing}: {size(self.count)} ({rate})"
        return f"{self._doing}: {bar(self.count / self._total)} ({rate})"

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._painted and self._last > self._began:
            _paint("")


class Metered:
    """A file whose reads are counted; http.client needs no more than `read`."""

    def __init__(self, file: BinaryIO, meter: Meter) -> None:
        self._file, self._meter = file, meter

    def read(self, count: int = -1) -> bytes:
        data = self._file.read(count)
        self._meter.add(len(data))
        return data
