"""Give back what nobody has any more: NICs of instances that are gone, and leases of NICs that are.

A crash between two services leaves the first; the second are left when a guest's last words reach a
busy DHCP server after ours, or one of both is lost on the way.
"""

from __future__ import annotations

from core.logs import get_logger
from core.records import Network, NicReservation
from services.network.domain.addresses import is_given
from services.network.ports import Host
from services.network.store import NetworkStore
from services.network.usecases.nics import Nics

log = get_logger(__name__)


class Strays:
    """An instance must be missing in two looks in a row: our view of instances may lag behind a reserve."""

    def __init__(self, store: NetworkStore, nics: Nics, host: Host) -> None:
        self._store = store
        self._host = host
        self._nics = nics
        self._missing: set[str] = set()

    async def release(self) -> None:
        living = {entry.record.id for entry in self._store.instances.entries()}
        missing = {nic.instance_id for nic in self._owned()} - living
        for id in missing & self._missing:
            log.warning("stray_nics_released", instance=id)
            await self._nics.release(id)
        self._missing = missing
        for entry in self._store.networks.entries():
            await self._release_leases(entry.record)
        await self._nics.unplug_ended()
        await self._host.remove_unused()

    def _owned(self) -> list[NicReservation]:
        """Return the NICs of this member, and those of members that are no more."""
        nics, others = [e.record for e in self._store.nics.entries()], set(self._store.others())
        return [nic for nic in nics if self._store.is_local(nic) or nic.member not in others]

    async def _release_leases(self, network: Network) -> None:
        """No two looks are needed: a reservation is known here before its guest can ask."""
        leased = await self._host.leased(network.name)
        reserved = {nic.hwaddr.lower() for nic in self._owned()}
        for address, hwaddr in leased.items():
            if is_given(hwaddr) and hwaddr not in reserved:
                log.info("stray_lease_released", network=network.name, address=address)
                await self._host.release_lease(network, address, hwaddr)
