"""Calls into the file systems of guests: with a deadline, and never in the threads that others need.

A guest can make a file system whose every answer comes from a program of its own (fuse below an
overlay). Who reads from it waits as long as that program likes, and nobody can end the wait.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from core.errors import TooLate, WrongState

T = TypeVar("T")
_THREADS, _MOST_PER_GUEST = 256, 32
_DEADLINE_S = 30.0


class Descriptor:
    """A descriptor that is closed after its last use: its number may be another file's at once."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._users = 0
        self._is_closing = False
        self._lock = threading.Lock()

    def use(self, function: Callable[..., T], *args: Any) -> T:
        """Return function(fd, *args). Raises: ConnectionError when it was closed before."""
        with self._lock:
            if self._is_closing:
                raise ConnectionError("The file was closed")
            self._users += 1
        try:
            return function(self._fd, *args)
        finally:
            with self._lock:
                self._users -= 1
                self._close_unused()

    def close(self) -> None:
        """May be repeated."""
        with self._lock:
            self._is_closing = True
            self._close_unused()

    def _close_unused(self) -> None:
        if self._is_closing and not self._users and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Patience:
    """Runs blocking calls for many guests; one whose calls do not end holds up no other."""

    def __init__(self, *, deadline_s: float = _DEADLINE_S, most: int = _MOST_PER_GUEST) -> None:
        self._deadline_s = deadline_s
        self._most = most
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="guest-files")
        self._busy: Counter[str] = Counter()
        self._lock = threading.Lock()

    async def call(
        self,
        guest: str,
        function: Callable[..., T],
        *args: Any,
        undo: Callable[[T], None] | None = None,
    ) -> T:
        """Return function(*args). *undo* gets a result for which nobody waits any more.

        Raises: TooLate, WrongState while too many calls for *guest* have not come to an end.
        """
        work = self._submitted(guest, function, *args)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(work), self._deadline_s)
        except BaseException as exc:
            if undo:
                work.add_done_callback(lambda done: _undone(done, undo))
            if isinstance(exc, TimeoutError):
                raise TooLate("FILE_HANGS", "The guest's file system does not answer") from None
            raise

    def _submitted(self, guest: str, function: Callable[..., T], *args: Any) -> Future[T]:
        with self._lock:
            if self._busy[guest] >= self._most:
                raise WrongState("FILES_BUSY", "Too many file operations of the instance are at work; wait")
            self._busy[guest] += 1
        work = self._threads.submit(function, *args)
        work.add_done_callback(lambda _: self._ended(guest))
        return work

    def _ended(self, guest: str) -> None:
        with self._lock:
            self._busy[guest] -= 1
            if not self._busy[guest]:
                del self._busy[guest]


def _undone(done: Future[T], undo: Callable[[T], None]) -> None:
    if not done.cancelled() and not done.exception():
        undo(done.result())
