"""NICs of instances: decided, recorded in one transaction, announced to DHCP and DNS before start."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from core.configkeys.others import NETWORK
from core.errors import Busy, Invalid, NotFound, Stale, Unsupported, WrongState
from core.records import PASSING, AddressClaim, Network, NicReservation
from core.state import keys
from core.state.repository import Entry
from core.state.store import Txn
from services.network.domain import addresses
from services.network.ports import Host
from services.network.store import NetworkStore

_ATTEMPTS = 8


@dataclass(frozen=True)
class Wanted:
    """A NIC device as asked for; hwaddr is empty unless it must be kept."""

    device: str
    options: dict[str, str]
    hwaddr: str = ""


@dataclass(frozen=True)
class Owner:
    instance_id: str
    project: str
    name: str


class Nics:
    def __init__(self, store: NetworkStore, host: Host) -> None:
        self._store = store
        self._host = host
        self._random = random.Random()  # noqa: S311 - addresses are no secret
        # One allocation at a time: the transaction guards against other members, this against retries.
        self._allocating = asyncio.Lock()

    async def reserve(self, owner: Owner, wanted: list[Wanted]) -> list[NicReservation]:
        """Return the NICs of *owner*; the same for the same request. NICs no longer wanted are released."""
        have = {nic.device: nic for nic in self._store.nics_of(owner.instance_id)}
        asked = {w.device for w in wanted}
        for nic in [n for n in have.values() if n.device not in asked]:
            await self._release(nic)
        return [await self._one(owner, w, have.get(w.device)) for w in wanted]

    async def release(self, instance_id: str) -> None:
        for nic in self._store.nics_of(instance_id):
            await self._release(nic)

    async def _one(self, owner: Owner, wanted: Wanted, have: NicReservation | None) -> NicReservation:
        if have and _still_fits(have, owner, wanted):
            return have
        if have:
            await self._release(have)
        async with self._allocating:
            nic = await self._allocate(owner, wanted, have)
        if nic.network:
            network = self._network(nic.network)
            await self._host.write_nic(nic, NETWORK.get(network.config, "dns.domain"))
        return nic

    async def _allocate(self, owner: Owner, wanted: Wanted, old: NicReservation | None) -> NicReservation:
        for _ in range(_ATTEMPTS):
            nic = await self._decide(owner, wanted, old)
            txn = Txn().absent(keys.nic(nic.instance_id, nic.device))
            txn.put(keys.nic(nic.instance_id, nic.device), nic)
            claims = _claims(nic)
            for claim in claims:
                key = keys.address(claim.network, claim.address)
                txn.absent(key).put(key, claim)
            if nic.network:
                # Not just "exists": a network that is being deleted still has its record.
                txn.unchanged(keys.network(nic.network), self._ready(nic.network).revision)
            try:
                revision = await self._store.store.commit(txn)
            except Stale:
                if nic.is_static:
                    raise Invalid(
                        "ADDRESS_TAKEN", f"Address {nic.ipv4} is in use on {nic.network}", about=nic.ipv4
                    ) from None
                await asyncio.sleep(0.02)
                continue
            self._remember(nic, claims, revision)
            return nic
        raise Busy("BUSY", f"No address could be reserved for {owner.name} now; try again", about=owner.name)

    async def _decide(self, owner: Owner, wanted: Wanted, old: NicReservation | None) -> NicReservation:
        options = wanted.options
        network = self._network(options.get("network") or options.get("parent") or "")
        subnets = addresses.subnets_of(network.config)
        hwaddr = options.get("hwaddr") or wanted.hwaddr or (old.hwaddr if old else "")
        hwaddr = addresses.checked_mac(hwaddr or addresses.new_mac(self._random))
        static = options.get("ipv4.address", "")
        ipv4 = ""
        if static and static != "none":
            ipv4 = addresses.checked_static(subnets.ipv4, static, network.name)
        elif subnets.ipv4:
            leased = await self._host.leased(network.name)
            avoid = {ip for ip, mac in leased.items() if mac != hwaddr}
            ipv4 = addresses.free_ipv4(subnets.ipv4, self._store.taken_on(network.name), avoid, self._random)
        return NicReservation(
            instance_id=owner.instance_id,
            project=owner.project,
            instance_name=owner.name,
            network=network.name,
            device=wanted.device,
            name=addresses.checked_interface(options.get("name") or wanted.device),
            host_name=addresses.checked_interface(
                options.get("host_name") or addresses.host_name(owner.instance_id, wanted.device)
            ),
            hwaddr=hwaddr,
            mtu=addresses.checked_mtu(options.get("mtu") or NETWORK.get(network.config, "bridge.mtu")),
            bridge=network.name,
            ipv4=ipv4,
            ipv4_prefix=subnets.ipv4.network.prefixlen if subnets.ipv4 and ipv4 else 0,
            ipv6=addresses.slaac(subnets.ipv6, hwaddr) if subnets.ipv6 else "",
            ipv6_prefix=subnets.ipv6.network.prefixlen if subnets.ipv6 else 0,
            is_static=bool(static),
            options=options,
        )

    def _network(self, name: str) -> Network:
        return self._ready(name).record

    def _ready(self, name: str) -> Entry[Network]:
        entry = self._store.networks.get(keys.network(name))
        if entry is None:
            raise NotFound("NO_NETWORK", f"Network {name!r} not found", about=name)
        if entry.record.status in PASSING:
            raise WrongState("NOT_READY", f"Network {name!r} is being made or deleted; try again", about=name)
        return entry

    async def _release(self, nic: NicReservation) -> None:
        claims = _claims(nic)
        txn = Txn().delete(keys.nic(nic.instance_id, nic.device))
        for claim in claims:
            txn.delete(keys.address(claim.network, claim.address))
        revision = await self._store.store.commit(txn)
        self._store.nics.apply(keys.nic(nic.instance_id, nic.device), None, revision)
        for claim in claims:
            self._store.addresses.apply(keys.address(claim.network, claim.address), None, revision)
        if nic.network:
            await self._host.remove_nic(nic)

    def _remember(self, nic: NicReservation, claims: list[AddressClaim], revision: int) -> None:
        self._store.nics.apply(keys.nic(nic.instance_id, nic.device), nic, revision)
        for claim in claims:
            self._store.addresses.apply(keys.address(claim.network, claim.address), claim, revision)


def check_nictype(options: dict[str, str]) -> None:
    """Raises: Unsupported for NICs that are not plugged into a managed bridge."""
    if options.get("nictype", "bridged") != "bridged" or not (
        options.get("network") or options.get("parent")
    ):
        raise Unsupported(
            "NIC_TYPE", "Only NICs on a managed bridge are supported yet; set network=NAME", about="nictype"
        )


def _claims(nic: NicReservation) -> list[AddressClaim]:
    found = [a for a in (nic.ipv4, nic.ipv6) if a]
    return [AddressClaim(nic.network, a, nic.instance_id, nic.device) for a in found]


def _still_fits(have: NicReservation, owner: Owner, wanted: Wanted) -> bool:
    return have.options == wanted.options and have.instance_name == owner.name
