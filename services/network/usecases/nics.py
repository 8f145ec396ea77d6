"""NICs of instances: decided and recorded in one transaction per instance, then told to DHCP and DNS.

What an instance has on the host follows from the records: a retry or the reconcile loop finishes
whatever a crash left between the two.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace

from core.configkeys.nic import PHYSICAL
from core.errors import Busy, Invalid, LimitReached, NotFound, PodiumError, Stale, WrongState
from core.failpoints import declare, failpoint
from core.logs import get_logger
from core.records import PASSING, AddressClaim, InstanceObserved, Network, NicReservation
from core.state import codec, keys
from core.state.repository import Entry
from core.state.store import Txn
from services.network.domain import hostside, parents
from services.network.domain import nics as plan
from services.network.domain.acls import named_in
from services.network.domain.nics import Owner, Wanted
from services.network.domain.places import Place, place_of, refuse_twice, refused
from services.network.ports import Host, Link
from services.network.store import NetworkStore
from services.network.usecases.rulebooks import HOME, Rulebooks

__all__ = ["Nics", "Owner", "Wanted"]
log = get_logger(__name__)
_ATTEMPTS = 8
_AT_ONCE = 16
_LOOKS = 2
_POINTS = ("nics.plug.recorded", "nics.plug.made")
Ready = Callable[[str], Awaitable[None]]


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
    def __init__(self, store: NetworkStore, host: Host, until_up: Ready | None = None) -> None:
        """*until_up* returns when a network is up on this member, which another may just have made."""
        self._store = store
        self._host = host
        self._until_up = until_up
        self._books = Rulebooks(store)
        self._random = random.Random()  # noqa: S311 - addresses are no secret
        # Chosen here and not yet recorded: parallel launches must not choose the same and lose a round.
        self._choosing: set[tuple[str, str]] = set()
        # Which instances are found stopped: at which revision of their record, and how often.
        self._ended: dict[str, tuple[int, int]] = {}
        declare(*_POINTS)

    async def reserve(self, owner: Owner, wanted: list[Wanted]) -> list[NicReservation]:
        """Return the NICs of *owner*; the same for the same request. NICs no longer wanted are released."""
        for _ in range(_ATTEMPTS):
            leased = await self._leased(owner, wanted)
            links = await self._links(owner, wanted)
            uplinks = await self._uplinks(owner, wanted)
            try:
                change = self._plan(owner, wanted, leased, links, uplinks)
            except LimitReached:
                if await self._take_back({network.name for network in self._bridges(wanted)}):
                    continue
                raise
            if not (change.made or change.gone):
                return await self._prepared(owner, change)
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
        if self._until_up:
            for name in {nic.network for _, nic in change.made if nic.network}:
                await self._until_up(name)
        await self._settle(change)
        return await self._prepared(owner, change)

    async def _prepared(self, owner: Owner, change: Change) -> list[NicReservation]:
        """Make what the engine needs to find when it makes the NICs of an instance that starts."""
        if not owner.at_rest:
            for nic in change.result:
                await self._host.ensure_parent(nic)
        return change.result

    def network_of(self, nic: NicReservation) -> Network | None:
        """Return the network of ours that a NIC is on."""
        entry = self._store.networks.get(keys.network(nic.network)) if nic.network else None
        return entry.record if entry else None

    async def release(self, instance_id: str) -> None:
        await self.reserve(Owner(instance_id, "", ""), [])

    async def plug(self, instance_id: str, pid: int) -> list[NicReservation]:
        """Make every reserved NIC of a running instance exist in it, and return those that did not.

        Repeatable. Raises: WrongState.
        """
        made = []
        for nic in self._store.nics_of(instance_id):
            if await self._host.plug(nic, pid):
                made.append(nic)
            failpoint("nics.plug.made")
            if self.is_looped(nic) and (network := self._bridge(nic.network)):
                await self._host.ensure_loops([nic], self._books.of(network))
        return made

    def is_looped(self, nic: NicReservation) -> bool:
        """Return whether a listen address of its network leads to it; ensure_loops must know of it."""
        return not {nic.ipv4, nic.ipv6}.isdisjoint(self._books.targets(nic.network))

    async def unplug(self, instance_id: str) -> None:
        """Take back what the NICs of an instance that ended left on the host. Repeatable."""
        for entry in self._store.nics.below(keys.nics(instance_id)):
            nic = entry.record
            if not nic.host_side or not self._store.is_local(nic):
                continue
            await self._host.unplug(nic)
            if nic.taken:
                change = Change(made=[(entry, replace(nic, taken={}))])
                with contextlib.suppress(Stale):  # then it is being given to a start, which has it now
                    await self._commit(change)

    async def unplug_ended(self) -> None:
        """The same for all that ended while nobody could tell us; once for each end, and at its second look.

        So that who is just being started is not taken for one that ended.
        """
        nics = (e.record for e in self._store.nics.entries() if e.record.host_side)
        owners = {nic.instance_id for nic in nics if self._store.is_local(nic)}
        before, self._ended = self._ended, {}
        for id in owners:
            kv = await self._store.store.get(keys.observed(id))
            observed = codec.decode(InstanceObserved, kv.value) if kv else InstanceObserved(status="stopped")
            if observed.status != "stopped" or observed.operation:
                continue
            revision, looks = kv.revision if kv else 0, 1
            if id in before and before[id][0] == revision:
                looks = before[id][1] + 1
            self._ended[id] = (revision, looks)
            if looks == _LOOKS:
                await self.unplug(id)

    async def refresh(self) -> None:
        """Decide again for NICs whose network has another subnet by now. What is refused is logged."""
        nics = [e.record for e in self._store.nics.entries() if self._store.is_local(e.record)]
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

    def _bridges(self, wanted: list[Wanted]) -> list[Network]:
        places = (self._place(w) for w in wanted)
        return [place.bridge for place in places if place.bridge]

    def _place(self, wanted: Wanted) -> Place:
        named = {wanted.options.get(key, "") for key in ("network", "parent")} - {""}
        networks = {name: found for name in named if (found := self._find(name))}
        return place_of(wanted.device, wanted.options, networks)

    async def _leased(self, owner: Owner, wanted: list[Wanted]) -> dict[str, dict[str, str]]:
        """Return the leases of the networks on which something is to be decided."""
        have = {nic.device: nic for nic in self._store.nics_of(owner.instance_id)}
        undecided = [w for w in wanted if w.device not in have or not self._fits(have[w.device], owner, w)]
        return {network.name: await self._host.leased(network.name) for network in self._bridges(undecided)}

    async def _links(self, owner: Owner, wanted: list[Wanted]) -> dict[str, Link]:
        """Return the host's interfaces, if one of them is about to be needed."""
        if owner.at_rest or not any(self._place(w).bridge is None for w in wanted):
            return {}
        return {link.name: link for link in await self._host.links()}

    async def _uplinks(self, owner: Owner, wanted: list[Wanted]) -> set[str]:
        """Return what no guest may take, if one is about to take something."""
        if owner.at_rest or not any(self._place(w).kind == PHYSICAL for w in wanted):
            return set()
        return await self._host.uplinks()

    def _plan(
        self,
        owner: Owner,
        wanted: list[Wanted],
        leased: dict[str, dict[str, str]],
        links: dict[str, Link],
        uplinks: set[str],
    ) -> Change:
        """Return the change; nothing is awaited here, so two plans never choose the same address."""
        have = {e.record.device: e for e in self._store.nics.below(keys.nics(owner.instance_id))}
        for device in plan.renamed([e.record for e in have.values()], wanted) if owner.at_rest else ():
            have[device] = replace(have[device], record=replace(have[device].record, name=""))
        asked = {w.device for w in wanted}
        change = Change(gone=[e.record for e in have.values() if e.record.device not in asked])
        names = {
            w.options.get("name") or (o.record.name if (o := have.get(w.device)) else "") for w in wanted
        }
        names -= {""}
        for w in wanted:
            w, old = self._without_taken_mac(owner, w), have.get(w.device)
            if old and old.record.name and self._fits(old.record, owner, w):
                nic = old.record
            else:
                nic = self._decide(owner, w, old.record if old else None, change, leased, names)
                nic = replace(nic, member=self._store.member)
                if owner.at_rest and not have:
                    nic = self._without_taken_address(nic)
            names.add(nic.name)
            if not owner.at_rest:
                nic = parents.found(nic, links, uplinks)
            if old is None or nic != old.record:
                change.made.append((old, nic))
            change.result.append(nic)
        refuse_twice(change.result)
        self._refuse_taken_words(change)
        return change

    def _without_taken_mac(self, owner: Owner, wanted: Wanted) -> Wanted:
        """Let a NIC that was to keep its MAC get another where another instance has it by now.

        So it is with a backup that is imported beside the instance it was made of: DHCP would serve neither.
        """
        network = self._place(wanted).network
        others = self._store.nics_on(network.name) if network and wanted.hwaddr else []
        is_taken = any(
            n.hwaddr == wanted.hwaddr.lower() and n.instance_id != owner.instance_id for n in others
        )
        return replace(wanted, hwaddr="") if is_taken else wanted

    def _without_taken_address(self, nic: NicReservation) -> NicReservation:
        """Let a copy be made of an instance with a static address, as LXD does: it only cannot start."""
        claimed = {c.address for c in plan.claims_of(nic)} & self._store.taken_on(nic.network)
        ipv4, ipv6 = ("" if address in claimed else address for address in (nic.ipv4, nic.ipv6))
        return replace(nic, ipv4=ipv4, ipv6=ipv6)

    def _refuse_taken_words(self, change: Change) -> None:
        """Raises: Invalid when another NIC has the MAC that is asked for, or another's owner its DNS name."""
        for old, nic in change.made:
            for other in self._store.nics_on(nic.network) if nic.network else ():
                if said := plan.clash(nic, other):
                    raise _taken(old, nic, *said)

    def _decide(
        self,
        owner: Owner,
        wanted: Wanted,
        old: NicReservation | None,
        change: Change,
        leased: dict[str, dict[str, str]],
        names: set[str],
    ) -> NicReservation:
        place, taken, avoid = self._place(wanted), set[str](), dict[str, str]()
        if place.network:
            change.networks[place.network.name] = self._ready(place.network.name).revision
            self._refuse_unknown_acls(wanted)
        if place.bridge:
            name = place.bridge.name
            taken = self._store.taken_on(name)
            taken |= self._store.listening_on(name)
            taken |= {a for n, a in self._choosing | change.addresses() if n == name}
            avoid = leased.get(name, {})
        try:
            return plan.decide(
                owner, wanted, place, old, names=names, taken=taken, avoid=avoid, random=self._random
            )
        except Invalid as exc:
            raise refused(wanted.device, exc) from None

    def _refuse_unknown_acls(self, wanted: Wanted) -> None:
        for name in named_in(wanted.options):
            if self._store.acls.get(keys.network_acl(HOME, name)) is None:
                why = Invalid("NO_ACL", f'Network ACL "{name[:64]}" does not exist', about=name)
                raise refused(wanted.device, why)

    def _fits(self, have: NicReservation, owner: Owner, wanted: Wanted) -> bool:
        is_here = have.member == self._store.member
        return (
            is_here and plan.still_fits(have, owner, wanted, self._place(wanted)) and self._is_current(have)
        )

    def _is_current(self, nic: NicReservation) -> bool:
        network = self._find(nic.network)
        return network is None or not network.has_bridge or plan.is_current(nic, network)

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
        for name in {name for _, nic in change.made for name in named_in(nic.options)}:
            txn.exists(keys.network_acl(HOME, name))
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
        for old, nic in change.made:
            for version, address in (("ipv4", nic.ipv4), ("ipv6", nic.ipv6)):
                entry = self._store.addresses.get(keys.address(nic.network, address)) if address else None
                is_ours = entry and (entry.record.instance_id == nic.instance_id)
                if entry and not is_ours and nic.options.get(f"{version}.address"):
                    why = f'IP address "{address}" already defined on another NIC'
                    raise _taken(old, nic, why, address)

    # --- the host --------------------------------------------------------------------------------

    async def _settle(self, change: Change) -> None:
        """Make the host follow what was recorded."""
        for nic in change.gone:
            await self._host.unplug(nic)
            await self._forget(nic)
        for old, nic in change.made:
            if old and not plan.is_same_plug(old.record, nic):
                await self._host.unplug(old.record)
            elif old and hostside.plan(old.record) != hostside.plan(nic):
                await self._host.unplug_side(old.record)
            if old and old.record.network != nic.network:
                await self._forget(old.record)
            if (network := self._bridge(nic.network)) and self._store.is_local(nic):
                await self._host.write_nics(network, [nic])
        touched = [*change.gone, *(n for old, nic in change.made for n in (old and old.record, nic) if n)]
        for name in self._books.touched(touched):
            if network := self._bridge(name):
                nics = self._store.local_on(name)
                await self._host.ensure_rules(network, nics, self._books.of(network))

    async def _forget(self, nic: NicReservation) -> None:
        if nic.network:
            await self._host.remove_nic(self._bridge(nic.network), nic)

    def _bridge(self, name: str) -> Network | None:
        found = self._find(name)
        return found if found and found.has_bridge else None


def _taken(old: Entry[NicReservation] | None, nic: NicReservation, why: str, about: str) -> Invalid:
    """Return the refusal; LXD tells a NIC that is changed from one that is put in anew or started."""
    verb = "update" if old and plan.is_same_plug(old.record, nic) else "add"
    if old and old.record.options == nic.options and old.record.at_rest and not nic.at_rest:
        verb = "start"
    return Invalid("TAKEN", f'Failed {verb} validation for device "{nic.device}": {why}', about=about)


def _claims(nics: Iterable[NicReservation]) -> dict[str, AddressClaim]:
    return {keys.address(c.network, c.address): c for nic in nics for c in plan.claims_of(nic)}
