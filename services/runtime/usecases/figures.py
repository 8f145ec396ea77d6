"""Live figures of instances, read from cgroup files and /proc in a thread."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

from core.errors import NotFound, Unsupported
from core.records import Instance, InstanceObserved
from services.runtime.domain.lifecycle import UP
from services.runtime.ports import GuestInterface, Usage
from services.runtime.usecases.host import Host


@dataclass(frozen=True)
class Figures:
    instance: Instance
    observed: InstanceObserved
    usage: Usage
    interfaces: tuple[GuestInterface, ...]


def read(host: Host, instance: Instance, observed: InstanceObserved, *, detailed: bool = False) -> Figures:
    """Blocks shortly; call it in a thread."""
    if observed.status not in UP or not observed.pid:
        return Figures(instance, observed, Usage(), ())
    usage = host.cgroups.usage(instance.id, detailed=detailed)
    return Figures(instance, observed, usage, tuple(host.guests.interfaces(observed.pid)))


def read_all(
    host: Host, pairs: list[tuple[Instance, InstanceObserved]], *, detailed: bool = False
) -> list[Figures]:
    return [read(host, instance, observed, detailed=detailed) for instance, observed in pairs]


async def disk_usage(host: Host, instances: Iterable[Instance]) -> dict[str, int]:
    """Return bytes used on their pools by id; those not known cheaply are left out."""
    by_pool: dict[str, list[str]] = {}
    for instance in instances:
        by_pool.setdefault(instance.pool, []).append(instance.id)
    found: dict[str, int] = {}
    for name, ids in by_pool.items():
        with contextlib.suppress(NotFound, Unsupported):
            found |= await host.driver(host.store.pool(name).record.driver).usage(name, ids)
    return found
