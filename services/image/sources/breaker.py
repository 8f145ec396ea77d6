"""Servers that do not answer are left alone for a while, so that nobody waits for them again. No I/O."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_TRIES = 3
_FIRST_S, _LONGEST_S = 15.0, 300.0
_MOST_KNOWN = 1000


@dataclass
class _Standing:
    failures: int = 0
    until: float = 0.0


class Breaker:
    """After three failures in a row a server is not asked for 15 s; each further one doubles that."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[str, _Standing] = {}

    def left(self, servers: Sequence[str]) -> list[str]:
        """Return those that may be asked now, in the order given."""
        return [server for server in servers if self._waits_s(server) <= 0]

    def failed(self, server: str, *, is_wrong: bool = False) -> None:
        """Note that it could not be reached; is_wrong: that it sent other bytes, which is enough at once."""
        standing = self._known.pop(server, _Standing())
        standing.failures = max(standing.failures + 1, _TRIES if is_wrong else 0)
        if standing.failures >= _TRIES:
            doubled = _FIRST_S * 2 ** min(standing.failures - _TRIES, 10)
            standing.until = self._clock() + min(doubled, _LONGEST_S)
        self._known[server] = standing
        if len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]

    def worked(self, server: str) -> None:
        self._known.pop(server, None)

    def why_not(self, server: str) -> str:
        """Return why a server is not asked, as a sentence."""
        times, wait_s = self._known[server].failures, max(self._waits_s(server), 1)
        words = f"{server[:200]} failed {times} times in a row and is not asked for another {wait_s:.0f} s"
        return f"{words}; images that are here already can be used meanwhile"

    def _waits_s(self, server: str) -> float:
        standing = self._known.get(server)
        return standing.until - self._clock() if standing else 0.0
