"""DNS zones and their records, and what the server for transfers answers."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from core.configkeys.others import parse_dns_address
from core.errors import AlreadyExists, NotFound, WrongState
from core.events import Event
from core.logs import get_logger
from core.netrecords import NetworkZone, ZoneRecord
from core.records import ServerConfig
from core.rpc.identity import current_identity
from core.state import keys
from core.state.repository import Entry
from core.state.store import Txn
from services.network.domain import zones as domain
from services.network.domain.conflicts import Conflict, not_served
from services.network.ports import ZoneListener
from services.network.store import NetworkStore
from services.network.usecases.networks import Networks
from services.network.usecases.rulebooks import HOME

if TYPE_CHECKING:
    from services.network.domain.transfers import Served

log = get_logger(__name__)
KEYS = ("dns.zone.forward", "dns.zone.reverse.ipv4", "dns.zone.reverse.ipv6")
_RETRY_S = 5.0


class Zones:
    """Changes wait for those of networks, which name zones."""

    def __init__(self, store: NetworkStore, networks: Networks) -> None:
        self._store = store
        self._networks = networks
        self._serials: dict[str, tuple[str, int]] = {}

    # --- zones -----------------------------------------------------------------------------------

    def get(self, project: str, name: str) -> Entry[NetworkZone]:
        entry = self._store.zones.get(keys.network_zone(name))
        if entry is None or entry.record.project != project:
            raise NotFound("NO_ZONE", "Network zone not found", about=name)
        return entry

    def entries(self, project: str) -> list[Entry[NetworkZone]]:
        return [entry for entry in self._store.zones.entries() if entry.record.project == project]

    async def create(self, wanted: NetworkZone) -> Entry[NetworkZone]:
        domain.checked_name(wanted.name)
        key = keys.network_zone(wanted.name)
        async with self._networks.changing:
            if self._store.zones.get(key):
                raise AlreadyExists("EXISTS", "The network zone already exists", about=wanted.name)
            return await self._commit(Txn().absent(key), domain.checked(wanted), "created")

    async def update(
        self, project: str, name: str, wanted: NetworkZone, *, expected_revision: int
    ) -> Entry[NetworkZone]:
        entry = self.get(project, name)
        entry.expect(expected_revision, "zone", name)
        zone = domain.checked(replace(wanted, project=project, name=name))
        return await self._commit(Txn().unchanged(keys.network_zone(name), entry.revision), zone, "updated")

    async def delete(self, project: str, name: str) -> None:
        """Delete it with its records."""
        async with self._networks.changing:
            zone = self.get(project, name).record
            if self.users(zone):
                raise WrongState("ZONE_IN_USE", "Cannot delete a zone that is in use", about=name)
            key, folder = keys.network_zone(name), keys.zone_records(name)
            records = [keys.zone_record(name, e.record.name) for e in self._store.records.below(folder)]
            txn = Txn().exists(key).prefix_unchanged(folder, self._store.records.revision).delete(key)
            for record in records:
                txn.delete(record)
            revision = await self._store.store.commit(txn.emit(_event("zone-deleted", zone)))
            self._store.zones.apply(key, None, revision)
            for record in records:
                self._store.records.apply(record, None, revision)

    def users(self, zone: NetworkZone) -> list[str]:
        networks = (entry.record for entry in self._store.networks.entries())
        return [f"networks/{n.name}" for n in networks if zone.name in [n.config.get(key) for key in KEYS]]

    async def _commit(self, txn: Txn, zone: NetworkZone, verb: str) -> Entry[NetworkZone]:
        key = keys.network_zone(zone.name)
        txn.put(key, zone).emit(_event(f"zone-{verb}", zone))
        revision = await self._store.store.commit(txn)
        self._store.zones.apply(key, zone, revision)
        return Entry(zone, revision)

    # --- records ---------------------------------------------------------------------------------

    def record(self, project: str, zone: str, name: str) -> Entry[ZoneRecord]:
        self.get(project, zone)
        entry = self._store.records.get(keys.zone_record(zone, name))
        if entry is None:
            raise NotFound("NO_RECORD", "Network zone record not found", about=name)
        return entry

    def records(self, project: str, zone: str) -> list[Entry[ZoneRecord]]:
        self.get(project, zone)
        return self._store.records.below(keys.zone_records(zone))

    async def create_record(self, wanted: ZoneRecord) -> Entry[ZoneRecord]:
        self.get(wanted.project, wanted.zone)
        domain.checked_record_name(wanted.name)
        key = keys.zone_record(wanted.zone, wanted.name)
        if self._store.records.get(key):
            raise AlreadyExists("EXISTS", "A record for that name already exists", about=wanted.name)
        return await self._commit_record(Txn().absent(key), domain.checked_record(wanted), "created")

    async def update_record(self, wanted: ZoneRecord, *, expected_revision: int) -> Entry[ZoneRecord]:
        entry = self.record(wanted.project, wanted.zone, wanted.name)
        entry.expect(expected_revision, "record", wanted.name)
        txn = Txn().unchanged(keys.zone_record(wanted.zone, wanted.name), entry.revision)
        return await self._commit_record(txn, domain.checked_record(wanted), "updated")

    async def delete_record(self, project: str, zone: str, name: str) -> None:
        record, key = self.record(project, zone, name).record, keys.zone_record(zone, name)
        txn = Txn().exists(key).delete(key).emit(_event("zone-record-deleted", record))
        self._store.records.apply(key, None, await self._store.store.commit(txn))

    async def _commit_record(self, txn: Txn, record: ZoneRecord, verb: str) -> Entry[ZoneRecord]:
        key = keys.zone_record(record.zone, record.name)
        txn.exists(keys.network_zone(record.zone)).put(key, record)
        revision = await self._store.store.commit(txn.emit(_event(f"zone-record-{verb}", record)))
        self._store.records.apply(key, record, revision)
        return Entry(record, revision)

    # --- what is served ----------------------------------------------------------------------------

    def answer(self, wire: bytes, address: str, is_stream: bool) -> Iterator[bytes]:
        """Yield what a question from *address* is answered with."""
        from services.network.domain import transfers

        secrets = {}
        for entry in self._store.zones.entries():
            for peer in domain.peers(entry.record):
                if domain.is_key(peer.key):
                    secrets[domain.key_name(entry.record, peer)] = peer.key
        return transfers.answers(wire, address, self._find, self._look, secrets, is_stream=is_stream)

    def _find(self, name: str) -> NetworkZone | None:
        entry = self._store.zones.get(keys.network_zone(name)) or self._store.zones.find(
            lambda zone: zone.name.lower() == name.lower()
        )
        return entry.record if entry else None

    def _look(self, zone: NetworkZone) -> Served:
        from services.network.domain.transfers import Served

        networks = [e.record for e in self._store.networks.entries() if zone.project == HOME]
        nics = {network.name: self._store.nics_on(network.name) for network in networks}
        records = [e.record for e in self._store.records.below(keys.zone_records(zone.name))]
        rows = domain.content(zone, records, networks, nics)
        return Served(zone, self._serial(zone.name, repr(rows)), rows)

    def _serial(self, name: str, content: str) -> int:
        """Return when the content was first seen as it is, by the clock: a later start tells a later time."""
        digest = hashlib.sha256(content.encode()).hexdigest()
        known, serial = self._serials.get(name, ("", 0))
        if known != digest:
            serial = max(int(time.time()), serial + 1)
            self._serials[name] = digest, serial
        return serial


class ZoneServing:
    """Listens where core.dns_address says, from the moment it says so."""

    def __init__(self, store: NetworkStore, server: ZoneListener) -> None:
        self._store = store
        self._server = server
        self._changed = asyncio.Event()
        self._trouble: Conflict | None = None
        store.server.on_change(self._take)

    def _take(self, key: str, entry: Entry[ServerConfig] | None) -> None:
        self._changed.set()

    def troubles(self) -> list[Conflict]:
        """Return why nobody listens, while that is so."""
        return [self._trouble] if self._trouble else []

    async def run(self) -> None:
        """Follow the setting for ever."""
        current = ""
        while True:
            self._changed.clear()
            entry = self._store.server.get(keys.server_config())
            wanted = entry.record.config.get("core.dns_address", "") if entry else ""
            if wanted != current:
                current = wanted if await self._listen(wanted) else ""
            try:
                async with asyncio.timeout(_RETRY_S if wanted != current else None):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _listen(self, address: str) -> bool:
        self._server.close()
        self._trouble = None
        if not address:
            return True
        try:
            await self._server.listen(*parse_dns_address(address))
        except (OSError, ValueError) as exc:
            log.warning("zones_not_served", address=address, error=str(exc))
            self._trouble = not_served(address, str(exc))
            return False
        log.info("zones_served", address=address)
        return True


def _event(action: str, subject: NetworkZone | ZoneRecord) -> Event:
    kind = "network-zones"
    if isinstance(subject, ZoneRecord):
        kind = f"network-zones/{subject.zone}/records"
    return Event(f"network-{action}", kind, subject.project, subject.name, current_identity().as_dict())
