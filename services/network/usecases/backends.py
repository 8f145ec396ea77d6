"""Ask the backends of load balancers whether they answer, and leave out those that do not.

A backend counts as answering until it was asked often enough. Nothing of it is recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator

from core.logs import get_logger
from core.netrecords import Backend, NetworkLoadBalancer
from services.network.domain.balancers import HealthCheck, check_of
from services.network.domain.listeners import ports_of
from services.network.store import NetworkStore
from services.network.usecases.networks import Networks

log = get_logger(__name__)
Name = tuple[str, str, str]
Ask = Callable[[str, int, float], Awaitable[bool]]
_AT_ONCE = 32


class Backends:
    """*ask*: whether somebody answers at an address and port, within so many seconds."""

    def __init__(self, store: NetworkStore, networks: Networks, ask: Ask) -> None:
        self._store = store
        self._networks = networks
        self._ask = ask
        self._asked: dict[Name, float] = {}
        self._runs: dict[Name, tuple[bool, int]] = {}
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def look(self) -> None:
        """Ask those that are due, and tell the firewall of whoever came or went."""
        rows = list(self._rows())
        known = {name for name, *_ in rows}
        self._store.down &= known
        for table in (self._asked, self._runs):
            for name in [name for name in table if name not in known]:
                table.pop(name)
        now = time.monotonic()
        due = [row for row in rows if now - self._asked.get(row[0], float("-inf")) >= row[1].interval]
        changed = await asyncio.gather(*(self._look_at(name, check, target) for name, check, target in due))
        for network in {
            name[0] for name, is_changed in zip((r[0] for r in due), changed, strict=True) if is_changed
        }:
            await self._networks.ensure_rules(network)

    def _rows(self) -> Iterator[tuple[Name, HealthCheck, tuple[str, int]]]:
        for entry in self._store.balancers.entries():
            balancer = entry.record
            if check := check_of(balancer):
                for backend in balancer.backends:
                    if port := _port_of(balancer, backend):
                        name = balancer.network, balancer.listen_address, backend.name
                        yield name, check, (backend.target_address, port)

    async def _look_at(self, name: Name, check: HealthCheck, target: tuple[str, int]) -> bool:
        """Return whether it is now believed to be other than it was."""
        async with self._room:
            self._asked[name] = time.monotonic()
            is_up = await self._ask(*target, check.timeout)
        was_up, count = self._runs.get(name, (is_up, 0))
        count = count + 1 if was_up == is_up else 1
        self._runs[name] = is_up, count
        is_believed_up = name not in self._store.down
        if is_up == is_believed_up or count < (check.success_count if is_up else check.failure_count):
            return False
        log.info("backend_changed", network=name[0], listen=name[1], backend=name[2], up=is_up)
        (self._store.down.discard if is_up else self._store.down.add)(name)
        return True


def _port_of(balancer: NetworkLoadBalancer, backend: Backend) -> int:
    """Return the TCP port to ask at; 0 for a backend of datagrams alone, which nobody can ask."""
    for port in balancer.ports:
        if port.protocol == "tcp" and backend.name in port.target_backend:
            return ports_of(backend.target_port or port.listen_port)[0]
    return 0


async def connects(address: str, port: int, timeout_s: float) -> bool:
    """Return whether a TCP connection can be made."""
    with contextlib.suppress(OSError):
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(address, port)
        writer.close()
        return True
    return False
