"""How often one address may try the trust password. Pure: the time is an argument.

Ten tries are free, as people mistype; each one after those doubles the wait, up to a minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

_FREE = 10
_LONGEST_S = 60.0
_MOST = 4096


@dataclass(frozen=True)
class _Tries:
    count: int
    next_at: float


class Guesses:
    """Tries by address. Of more addresses than fit into memory the oldest are forgotten."""

    def __init__(self) -> None:
        self._tries: dict[str, _Tries] = {}

    def wait_s(self, address: str, now: float) -> float:
        """Return the seconds that *address* must wait before its next try; 0 for none."""
        tries = self._tries.get(_network(address))
        return max(0.0, tries.next_at - now) if tries else 0.0

    def count(self, address: str, now: float) -> None:
        """Note a try before its outcome is known: many at once are many."""
        who = _network(address)
        before = self._tries.pop(who, None)
        number = before.count + 1 if before else 1
        if len(self._tries) >= _MOST:
            self._tries.pop(next(iter(self._tries)))
        pause = min(2.0 ** (number - _FREE), _LONGEST_S) if number >= _FREE else 0.0
        self._tries[who] = _Tries(min(number, 100), now + pause)

    def forget(self, address: str) -> None:
        """The password was right."""
        self._tries.pop(_network(address), None)


def _network(address: str) -> str:
    """Return what belongs to one guesser of HOST:PORT: an IPv4 address, or a /64 of IPv6."""
    host = address.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        found = ip_address(host)
    except ValueError:
        return host
    if found.version == 6:
        return str(found.ipv4_mapped or (int(found) >> 64))
    return str(found)
