"""Where this member receives what others send to its guests on overlays, and as whom it speaks to theirs."""

from __future__ import annotations

import contextlib
import random
from ipaddress import ip_address
from typing import Any

from core.errors import LimitReached, Stale
from core.logs import get_logger
from core.netrecords import NetworkHealth, TunnelEnd
from core.records import AddressClaim, Network
from core.state import keys
from core.state.cache import Cache
from core.state.store import Txn
from services.network.domain import addresses
from services.network.ports import Host
from services.network.store import NetworkStore

log = get_logger(__name__)
_ATTEMPTS = 5


class Ends:
    def __init__(self, store: NetworkStore, host: Host, underlay: str) -> None:
        self._store = store
        self._host = host
        self._underlay = underlay if _is_reachable(underlay) else ""
        self._random = random.Random()  # noqa: S311 - addresses are no secret

    async def publish(self) -> None:
        """Tell the others where this member is reached, and how large packets may be."""
        if not self._underlay:
            return
        for link in await self._host.links():
            if any(a.address == self._underlay for a in link.addresses):
                await self._record(TunnelEnd(self._store.member, self._underlay, link.mtu, link.name))
                return
        log.warning("underlay_not_found", address=self._underlay)

    async def _record(self, end: TunnelEnd) -> None:
        key = keys.tunnel_end(end.member)
        known = self._store.ends.get(key)
        if known is None or known.record != end:
            revision = await self._store.store.commit(Txn().put(key, end))
            self._store.ends.apply(key, end, revision)

    async def claim(self, network: Network) -> None:
        """See to it that this member has an address of its own on an overlay; no more when it is alone."""
        if network.type != "overlay" or not self._store.others():
            return
        subnets = addresses.subnets_of(network.config)
        for bridge in (subnets.ipv4, subnets.ipv6):
            have = [c for c in self._mine(network.name) if (":" in c.address) == (bridge == subnets.ipv6)]
            for claim in have:
                if bridge is None or ip_address(claim.address) not in bridge.network:
                    await self._drop(claim)
            if bridge and not any(ip_address(c.address) in bridge.network for c in have):
                await self._take(network.name, bridge)

    def _mine(self, network: str) -> list[AddressClaim]:
        claims = (entry.record for entry in self._store.addresses.below(keys.addresses(network)))
        return [c for c in claims if not c.instance_id and c.device == self._store.member]

    async def _take(self, network: str, bridge: addresses.Bridge) -> None:
        """Take a free address; without one, the host just does not reach guests elsewhere."""
        for _ in range(_ATTEMPTS):
            taken = self._store.taken_on(network) | self._store.listening_on(network)
            try:
                address = addresses.free(bridge, taken, self._random)
            except LimitReached as exc:
                log.warning("no_address_for_member", network=network, error=exc.message)
                return
            claim = AddressClaim(network, address, device=self._store.member)
            key = keys.address(network, address)
            with contextlib.suppress(Stale):
                revision = await self._store.store.commit(Txn().absent(key).put(key, claim))
                self._store.addresses.apply(key, claim, revision)
                return

    async def _drop(self, claim: AddressClaim) -> None:
        key = keys.address(claim.network, claim.address)
        self._store.addresses.apply(key, None, await self._store.store.commit(Txn().delete(key)))

    async def sweep(self) -> None:
        """Remove what members left that are no more."""
        living = {entry.record.name for entry in self._store.members.entries()}
        if self._store.member not in living:
            return
        gone: list[tuple[Cache[Any], str]] = [
            (cache, key)
            for cache in (self._store.ends, self._store.health, self._store.addresses)
            for key, entry in cache.items()
            if _member_of(entry.record) not in (None, *living)
        ]
        if not gone:
            return
        txn = Txn()
        for _, key in gone:
            txn.delete(key)
        revision = await self._store.store.commit(txn)
        for cache, key in gone:
            cache.apply(key, None, revision)


def _member_of(record: TunnelEnd | NetworkHealth | AddressClaim) -> str | None:
    """Return whose a record is; None for that of an instance."""
    if isinstance(record, AddressClaim):
        return None if record.instance_id else record.device
    return record.member


def _is_reachable(address: str) -> bool:
    """Return whether other hosts can reach it: an address, and neither a wildcard nor of the loopback."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    return not (found.is_loopback or found.is_unspecified)
