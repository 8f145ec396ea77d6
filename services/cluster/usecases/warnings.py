"""Warnings: raised by whoever saw the trouble, counted, acknowledged by an operator, resolved when over."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import replace

from core.errors import Busy, Invalid, NotFound, Stale
from core.records import Warning
from core.state import keys
from core.state.repository import Entry
from core.state.store import Txn
from services.cluster.store import ClusterStore
from services.cluster.usecases.profiles import event

_SEVERITIES = ("low", "moderate", "high")
_ACTIONS = {"new": "warning-reset", "acknowledged": "warning-acknowledged"}
_NAMESPACE = uuid.UUID("5f0c5f0a-6a57-4c0e-9d2e-1f6f1b0f7c11")
_KEEP_RESOLVED_S = 30 * 24 * 3600.0
_TRIES = 8


def warning_id(warning: Warning) -> str:
    """Return the UUID of a trouble: the same for the same type, subject, project and member."""
    parts = (warning.member, warning.project, warning.type, warning.subject)
    return str(uuid.uuid5(_NAMESPACE, "\n".join(parts)))


def raised(old: Warning | None, seen: Warning, now: float) -> Warning:
    """Return the record after *seen* was reported at *now*. Acknowledged ones stay so until they end."""
    if old is None:
        return replace(seen, status="new", count=1, first_seen_at=now, last_seen_at=now)
    status = "new" if old.status == "resolved" else old.status
    return replace(
        old,
        status=status,
        severity=seen.severity,
        message=seen.message,
        count=old.count + 1,
        last_seen_at=now,
    )


class Warnings:
    def __init__(self, store: ClusterStore, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock

    def all(self, project: str = "") -> list[Entry[Warning]]:
        """Return the warnings of *project* (of all when empty), those seen last at the end."""
        found = self._store.warning_cache.entries()
        wanted = [e for e in found if not project or e.record.project == project]
        return sorted(wanted, key=lambda entry: entry.record.last_seen_at)

    def get(self, id: str) -> Entry[Warning]:
        entry = self._store.warning_cache.get(keys.warning(id))
        if entry is None:
            raise NotFound("NO_WARNING", "Warning not found", about=id)
        return entry

    async def raise_warning(self, seen: Warning) -> Entry[Warning]:
        """Record that *seen* is the case now. Raises: Invalid."""
        if not seen.type or seen.severity not in _SEVERITIES:
            raise Invalid("BAD_WARNING", "A warning needs a type, and low, moderate or high as severity")
        id = warning_id(seen)
        for _ in range(_TRIES):
            old = await self._store.warnings.find(keys.warning(id))
            new = raised(old.record if old else None, replace(seen, id=id), self._clock())
            try:
                return await self._write(old, new, self._forgotten(id))
            except Stale:
                continue
        raise Busy("BUSY", "The warning changes too often right now; try again", about=id)

    async def resolve(self, id: str) -> None:
        """Record that the trouble is over. Repeatable."""
        old = await self._store.warnings.find(keys.warning(id))
        if old and old.record.status != "resolved":
            await self._write(old, replace(old.record, status="resolved"), Txn())

    async def acknowledge(self, id: str, status: str) -> Entry[Warning]:
        """Set *status*, "new" or "acknowledged". Raises: NotFound, Invalid."""
        entry = self.get(id)
        if status not in _ACTIONS:
            raise Invalid("BAD_STATUS", f"Unknown status {status!r}; use new or acknowledged", about=id)
        told = Txn().emit(event(_ACTIONS[status], "warnings", "", id))
        return await self._write(entry, replace(entry.record, status=status), told)

    async def delete(self, id: str) -> None:
        """Raises: NotFound."""
        self.get(id)
        told = event("warning-deleted", "warnings", "", id)
        revision = await self._store.warnings.delete(keys.warning(id), emit=[told])
        self._store.warning_cache.apply(keys.warning(id), None, revision)

    async def _write(self, old: Entry[Warning] | None, new: Warning, txn: Txn) -> Entry[Warning]:
        key = keys.warning(new.id)
        txn.unchanged(key, old.revision) if old else txn.absent(key)
        revision = await self._store.store.commit(txn.put(key, new))
        self._store.warning_cache.apply(key, new, revision)
        for gone in txn.deletes:
            self._store.warning_cache.apply(gone, None, revision)
        return Entry(new, revision)

    def _forgotten(self, keep: str) -> Txn:
        """Drop what was resolved long ago, in the same commit as the next one raised."""
        txn, horizon = Txn(), self._clock() - _KEEP_RESOLVED_S
        for entry in self._store.warning_cache.entries():
            w = entry.record
            if w.status == "resolved" and w.last_seen_at < horizon and w.id != keep:
                txn.delete(keys.warning(w.id))
        return txn
