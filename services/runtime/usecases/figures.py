"""Live figures of instances, read from cgroup files and /proc in a thread."""

from __future__ import annotations

from dataclasses import dataclass

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


async def disk_usage(host: Host, instance: Instance) -> int:
    """Return bytes used on the pool; -1 when that is not known cheaply."""
    pool = host.store.pool(instance.pool).record
    return await host.driver(pool.driver).usage(pool.name, instance.id)
