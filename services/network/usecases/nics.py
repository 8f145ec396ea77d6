"""NICs of instances: decided and recorded in one transaction per instance, then told to DHCP and DNS.

What an instance has on the host follows from the records: a retry or the reconcile loop finishes
whatever a crash left between the two.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from core.errors import Busy, Invalid, LimitReached, NotFound, PodiumError, Stale, WrongState
from core.failpoints import declare, failpoint
from core.logs import get_logger
from core.records import PASSING, AddressClaim, InstanceObserved, Network, NicReservation
from core.state import codec, keys
from core.state.repository import Entry
from core.state.store import Txn
from services.network.domain import nics as plan
from services.network.domain.filters import has_filters
from services.network.domain.nics import Owner, Wanted
from services.network.ports import Host
from services.network.store import NetworkStore

__all__ = ["Nics", "Owner", "Wanted"]
log = get_logger(__name__)
_ATTEMPTS = 8
_AT_ONCE = 16
_POINTS = ("nics.plug.recorded", "nics.plug.made")


@dataclass
class Change:
    """What differs between the records and a request.

    made: what was there before, and what will be. networks: revisions the decision rests on.
    """

    result: list[NicReservation] = field(default_factory=list)
    made: list[tuple[Entry[NicReservation] | None, NicReservation]] = field(default_factory=list)
    gone: list[NicReservation] = field(default_factory=list)
    networks: dict[str, int] = field(default_factory=dict)

    def addresses(self) -> set[tuple[str, str]]:
        return {(c.network, c.address) for _, nic in self.made for c in plan.claims_of(nic)}


class Nics:
    def __init__(self, store: NetworkStore, host: Host) -> None:
        self._store = store
        self._host = host
        self._random = random.Random()  # noqa: S311 - addresses are no secret
        # Chosen here and not yet recorded: parallel launches must not choose the same and lose a round.
        self._choosing: set[tuple[str, str]] = set()
        declare(*_POINTS)

    async def reserve(self, owner: Owner, wanted: list[Wanted]) -> list[NicReservation]:
        """Return the NICs of *owner*; the same for the same request. NICs no longer wanted are released."""
        for _ in range(_ATTEMPTS):
            leased = await self._leased(owner, wanted)
            try:
                change = self._plan(owner, wanted, leased)
            except LimitReached:
                if await self._take_back({plan.network_of(w.options) for w in wanted}):
                    continue
                raise
            if not (change.made or change.gone):
                return change.result
            chosen = change.addresses()
            self._choosing |= chosen
            try:
                await self._commit(change)
                break
            except Stale:
                self._refuse_taken(change)
                await asyncio.sleep(0.02)
            finally:
                self._choosing -= chosen
        else:
            raise Busy(
                "BUSY", f"No address could be reserved for {owner.name} now; try again", about=owner.name
            )
        failpoint("nics.plug.recorded")
        await self._settle(change)
        return change.result

    async def release(self, instance_id: str) -> None:
        await self.reserve(Owner(instance_id, "", ""), [])

    async def plug(self, instance_id: str, pid: int) -> list[NicReservation]:
        """Make every reserved NIC of a running instance exist in it. Repeatable. Raises: WrongState."""
        found = self._store.nics_of(instance_id)
        for nic in found:
            await self._host.plug(nic, pid)
            failpoint("nics.plug.made")
        return found

    async def refresh(self) -> None:
        """Decide again for NICs whose network has another subnet by now. What is refused is logged."""
        nics = [entry.record for entry in self._store.nics.entries()]
        stale = {nic.instance_id: nic for nic in nics if not self._is_current(nic)}
        for id, nic in stale.items():
            wanted = [Wanted(n.device, n.options, n.hwaddr) for n in self._store.nics_of(id)]
            try:
                await self.reserve(Owner(id, nic.project, nic.instance_name, nic.at_rest), wanted)
            except PodiumError as exc:
                log.warning("nic_not_moved", instance=nic.instance_name, error=exc.message)

    async def _take_back(self, networks: set[str]) -> bool:
        """Take dynamic addresses from stopped instances, which get others when they start.

        Only when a network is used up: until then an instance comes back with the address it had.
        """
        nics = [e for e in self._store.nics.entries() if e.record.network in networks]
        change, txn = Change(), Txn()
        for kv in (await self._store.store.list(keys.OBSERVED)).kvs:
            observed = codec.decode(InstanceObserved, kv.value)
            if observed.status != "stopped" or observed.operation:
                continue
            mine = [e for e in nics if e.record.instance_id == observed.id and plan.has_dynamic(e.record)]
            change.made += [(e, plan.without_addresses(e.record)) for e in mine]
            if mine:  # and whoever starts it meanwhile writes its record first, and wins
                txn.unchanged(kv.key, kv.revision)
            if len(change.made) >= _AT_ONCE:
                break
        if not change.made:
            return False
        with contextlib.suppress(Stale):
            await self._commit(change, txn)
            log.info("addresses_taken_back", count=len(change.made))
            await self._settle(change)
        return True

    # --- deciding --------------------------------------------------------------------------------

    async def _leased(self, owner: Owner, wanted: list[Wanted]) -> dict[str, dict[str, str]]:
        """Return the leases of the networks on which something is to be decided."""
        have = {nic.device: nic for nic in self._store.nics_of(owner.instance_id)}
        names = {
            plan.network_of(w.options)
            for w in wanted
            if w.device not in have or not self._fits(have[w.device], owner, w)
        }
        return {name: await self._host.leased(name) for name in names if self._find(name)}

    def _plan(self, owner: Owner, wanted: list[Wanted], leased: dict[str, dict[str, str]]) -> Change:
        """Return the change; nothing is awaited here, so two plans never choose the same address."""
        have = {e.record.device: e for e in self._store.nics.entries(keys.nics(owner.instance_id))}
        asked = {w.device for w in wanted}
        change = Change(gone=[e.record for e in have.values() if e.record.device not in asked])
        for w in wanted:
            old = have.get(w.device)
            if old and self._fits(old.record, owner, w):
                change.result.append(old.record)
                continue
            nic = self._decide(owner, w, old.record if old else None, change, leased)
            change.made.append((old, nic))
            change.result.append(nic)
        _refuse_twice(change.result)
        return change

    def _decide(
        self,
        owner: Owner,
        wanted: Wanted,
        old: NicReservation | None,
        change: Change,
        leased: dict[str, dict[str, str]],
    ) -> NicReservation:
        entry = self._ready(plan.network_of(wanted.options))
        network = entry.record
        change.networks[network.name] = entry.revision
        taken = self._store.taken_on(network.name)
        taken |= {a for name, a in self._choosing | change.addresses() if name == network.name}
        avoid = leased.get(network.name, {})
        return plan.decide(owner, wanted, network, old, taken=taken, avoid=avoid, random=self._random)

    def _fits(self, have: NicReservation, owner: Owner, wanted: Wanted) -> bool:
        return plan.still_fits(have, owner, wanted) and self._is_current(have)

    def _is_current(self, nic: NicReservation) -> bool:
        network = self._find(nic.network)
        return network is None or plan.is_current(nic, network)

    def _find(self, name: str) -> Network | None:
        entry = self._store.networks.get(keys.network(name))
        return entry.record if entry else None

    def _ready(self, name: str) -> Entry[Network]:
        if (entry := self._store.networks.get(keys.network(name))) is None:
            raise NotFound("NO_NETWORK", f"Network {name!r} not found", about=name)
        if entry.record.status in PASSING:
            raise WrongState("NOT_READY", f"Network {name!r} is being made or deleted; try again", about=name)
        return entry

    # --- recording -------------------------------------------------------------------------------

    async def _commit(self, change: Change, txn: Txn | None = None) -> None:
        """Record the whole change in one transaction, with *txn*. Raises: Stale."""
        txn = txn or Txn()
        old_claims = _claims([*change.gone, *(old.record for old, _ in change.made if old)])
        new_claims = _claims(nic for _, nic in change.made)
        for nic in change.gone:
            txn.delete(keys.nic(nic.instance_id, nic.device))
        for old, nic in change.made:
            key = keys.nic(nic.instance_id, nic.device)
            txn.unchanged(key, old.revision) if old else txn.absent(key)
            txn.put(key, nic)
        for name, revision in change.networks.items():
            # Not just "exists": a network that is being deleted still has its record.
            txn.unchanged(keys.network(name), revision)
        for key in old_claims.keys() - new_claims.keys():
            txn.delete(key)
        for key, claim in new_claims.items():
            (txn if key in old_claims else txn.absent(key)).put(key, claim)
        revision = await self._store.store.commit(txn)
        self._remember(change, old_claims, new_claims, revision)

    def _remember(
        self,
        change: Change,
        old_claims: dict[str, AddressClaim],
        new_claims: dict[str, AddressClaim],
        revision: int,
    ) -> None:
        for nic in change.gone:
            self._store.nics.apply(keys.nic(nic.instance_id, nic.device), None, revision)
        for _, nic in change.made:
            self._store.nics.apply(keys.nic(nic.instance_id, nic.device), nic, revision)
        for key in old_claims.keys() - new_claims.keys():
            self._store.addresses.apply(key, None, revision)
        for key, claim in new_claims.items():
            self._store.addresses.apply(key, claim, revision)

    def _refuse_taken(self, change: Change) -> None:
        """Raises: Invalid when the transaction failed for a static address that somebody else has."""
        for _, nic in change.made:
            for version, address in (("ipv4", nic.ipv4), ("ipv6", nic.ipv6)):
                entry = self._store.addresses.get(keys.address(nic.network, address)) if address else None
                is_ours = entry and (entry.record.instance_id == nic.instance_id)
                if entry and not is_ours and nic.options.get(f"{version}.address"):
                    raise Invalid(
                        "ADDRESS_TAKEN", f"Address {address} is in use on {nic.network}", about=address
                    )

    # --- the host --------------------------------------------------------------------------------

    async def _settle(self, change: Change) -> None:
        """Make the host follow what was recorded."""
        for nic in change.gone:
            await self._host.unplug(nic)
            await self._host.remove_nic(self._find(nic.network), nic)
        for old, nic in change.made:
            if old and not plan.is_same_plug(old.record, nic):
                await self._host.unplug(old.record)
            if old and old.record.network != nic.network:
                await self._host.remove_nic(self._find(old.record.network), old.record)
            if network := self._find(nic.network):
                await self._host.write_nics(network, [nic])
        touched = [*change.gone, *(n for old, nic in change.made for n in (old and old.record, nic) if n)]
        for name in {nic.network for nic in touched if has_filters(nic)}:
            if network := self._find(name):
                await self._host.ensure_rules(network, self._store.nics_on(name))


def _claims(nics: Iterable[NicReservation]) -> dict[str, AddressClaim]:
    return {keys.address(c.network, c.address): c for nic in nics for c in plan.claims_of(nic)}


def _refuse_twice(nics: list[NicReservation]) -> None:
    """Raises: Invalid when two NICs of an instance want the same name, inside or on the host."""
    for what in ("name", "host_name"):
        names = [getattr(nic, what) for nic in nics]
        for name in names:
            if names.count(name) > 1:
                raise Invalid("TWICE", f"Two NICs of the instance have {what} {name!r}", about=name)
