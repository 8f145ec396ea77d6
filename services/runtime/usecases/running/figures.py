"""Live figures of instances, read from cgroup files and /proc in a thread."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from core.configkeys.devices import disk
from core.configkeys.netvalues import split_items
from core.configkeys.nic import ROUTED
from core.errors import NotFound, Unsupported
from core.records import Instance, InstanceObserved, NicReservation
from services.runtime.domain.lifecycle import UP
from services.runtime.ports import GuestAddress, GuestInterface, PoolSpace, Usage, VolumeKind
from services.runtime.usecases.host import Host

# A guest boots within seconds; after this, what it has is all that it has.
_FRESH_S = 60.0


@dataclass(frozen=True)
class Figures:
    instance: Instance
    observed: InstanceObserved
    usage: Usage
    interfaces: tuple[GuestInterface, ...]
    nics: Mapping[str, NicReservation] = field(default_factory=dict)
    """What was reserved, by the name inside."""


def read(
    host: Host,
    instance: Instance,
    observed: InstanceObserved,
    *,
    wanted: frozenset[str] = frozenset(),
) -> Figures:
    """Return what *wanted* names (usage, network), or all. Blocks shortly; call it in a thread."""
    if observed.status not in UP or not observed.pid:
        return Figures(instance, observed, Usage(), ())
    usage = Usage()
    if not wanted or "usage" in wanted:
        usage = host.cgroups.usage(instance.id)
    if wanted and "network" not in wanted:
        return Figures(instance, observed, usage, ())
    interfaces = host.guests.interfaces(observed.pid)
    nics = {nic.name: nic for nic in host.store.nics_of(instance.id)}
    if time.time() - observed.last_used_at < _FRESH_S:
        interfaces = [_with_decided(found, nics.get(found.name)) for found in interfaces]
    interfaces = [_with_fixed(found, nics.get(found.name)) for found in interfaces]
    return Figures(instance, observed, usage, tuple(interfaces), nics)


def read_metrics(host: Host, pairs: list[tuple[Instance, InstanceObserved]]) -> Iterator[Figures]:
    """Yield the figures that Prometheus asks for of running instances. Blocks; call it in a thread."""
    for instance, observed in pairs:
        used, interfaces = host.cgroups.details(instance.id), host.guests.counters(observed.pid)
        yield Figures(instance, observed, used, tuple(interfaces))


def _with_fixed(found: GuestInterface, nic: NicReservation | None) -> GuestInterface:
    """Add what a routed NIC was given: addresses without a subnet, which /proc places on no interface."""
    if nic is None or nic.nictype != ROUTED or not nic.options.get("ipv4.address"):
        return found
    has = {a.address for a in found.addresses}
    given = [a for a in split_items(nic.options["ipv4.address"]) if a not in has]
    return replace(
        found, addresses=(*(GuestAddress("inet", a, 32, "global") for a in given), *found.addresses)
    )


def _with_decided(found: GuestInterface, nic: NicReservation | None) -> GuestInterface:
    """Add the addresses that a guest which is still booting is about to ask for: they are decided."""
    if nic is None or not nic.network:
        return found
    has = {a.family for a in found.addresses if a.scope == "global"}
    decided = (("inet", nic.ipv4, nic.ipv4_prefix), ("inet6", nic.ipv6, nic.ipv6_prefix))
    more = [GuestAddress(f, ip, prefix, "global") for f, ip, prefix in decided if ip and f not in has]
    return replace(found, addresses=(*found.addresses, *more))


def read_all(
    host: Host,
    pairs: list[tuple[Instance, InstanceObserved]],
    *,
    wanted: frozenset[str] = frozenset(),
) -> list[Figures]:
    return [read(host, i, observed, wanted=wanted) for i, observed in pairs]


async def disk_usage(host: Host, instances: Iterable[Instance]) -> dict[str, dict[str, int]]:
    """Return bytes used on pools by id and device; those not known cheaply are left out."""
    folders = [(instance.id, *folder) for instance in instances for folder in _folders(host, instance)]
    wanted: dict[tuple[str, VolumeKind], list[str]] = {}
    for _, _, pool, kind, id in folders:
        wanted.setdefault((pool, kind), []).append(id)
    used: dict[str, int] = {}
    for (pool, kind), ids in wanted.items():
        with contextlib.suppress(NotFound, Unsupported):
            used |= await host.driver_of(pool).usage(pool, ids, kind=kind)
    found: dict[str, dict[str, int]] = {}
    for instance_id, device, _, _, id in folders:
        if id in used:
            found.setdefault(instance_id, {})[device] = used[id]
    return found


def _folders(host: Host, instance: Instance) -> Iterator[tuple[str, str, VolumeKind, str]]:
    """Yield device, pool, kind and id of what an instance holds in pools."""
    for device, options in host.expanded(instance).devices.items():
        if disk.is_root(options):
            yield device, instance.pool, VolumeKind.CONTAINERS, instance.id
        elif disk.is_volume(options):
            with contextlib.suppress(NotFound):
                volume = host.store.volume(options["pool"], instance.project, options["source"]).record
                yield device, volume.pool, VolumeKind.CUSTOM, volume.id


async def spaces(host: Host, pools: Iterable[str]) -> dict[str, PoolSpace]:
    """Return how full pools are; those that cannot be asked are left out."""
    found = {}
    for name in pools:
        with contextlib.suppress(NotFound, Unsupported, OSError):
            found[name] = await host.driver(host.store.pool(name).record.driver).space(name)
    return found
