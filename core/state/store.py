"""The contract of a store: get, list, commit a transaction, follow a prefix.

`etcd.py` and `memory.py` implement it and pass the same suite (tests/contract/test_store.py).
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from core.errors import Gone, Invalid, NotFound
from core.events import Event, EventBatch
from core.state import codec, keys

# etcd takes 1.5 MiB in one request; this leaves room for what else is in the transaction.
MAX_RECORD_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class KV:
    """One key as stored. *revision* is that of its last change."""

    key: str
    value: bytes
    revision: int
    create_revision: int = 0


@dataclass(frozen=True, slots=True)
class Listing:
    """All keys of a prefix, sorted, at *revision*."""

    revision: int
    kvs: list[KV]


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a key; *value* is None when it was deleted."""

    key: str
    value: bytes | None
    revision: int


@dataclass(frozen=True, slots=True)
class Resync:
    """First item of a follow, and after history was compacted: everything at *revision*."""

    revision: int
    kvs: list[KV]


@dataclass(frozen=True, slots=True)
class Commit:
    """What one transaction wrote, in the order in which the store keeps it."""

    revision: int
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """A condition of a transaction. kind: absent, exists, unchanged or prefix_unchanged."""

    kind: str
    key: str
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Lease:
    """A time that is granted and has to be renewed; keys bound to it go when it lapses."""

    id: int
    ttl_s: float


@dataclass
class Txn:
    """A transaction being built: checks, then writes, then events. Each key may be written once."""

    checks: list[Check] = field(default_factory=list)
    puts: dict[str, bytes] = field(default_factory=dict)
    leases: dict[str, int] = field(default_factory=dict)
    deletes: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def absent(self, key: str) -> Txn:
        self.checks.append(Check("absent", key))
        return self

    def exists(self, key: str) -> Txn:
        self.checks.append(Check("exists", key))
        return self

    def unchanged(self, key: str, revision: int) -> Txn:
        """Require that *key* was last changed at *revision*."""
        self.checks.append(Check("unchanged", key, revision))
        return self

    def prefix_unchanged(self, prefix: str, revision: int) -> Txn:
        """Require that no key below *prefix* was created or changed after *revision*."""
        self.checks.append(Check("prefix_unchanged", prefix, revision))
        return self

    def put(self, key: str, record: object, *, lease: int = 0) -> Txn:
        """Write *record*: a dataclass, or bytes that are already encoded. Raises: Invalid TOO_LARGE.

        With *lease* the key is bound to that lease, and no more to one it was bound to before.
        """
        value = record if isinstance(record, bytes) else codec.encode(record)
        if len(value) > MAX_RECORD_BYTES:
            raise Invalid(
                "TOO_LARGE", f"The object is larger than {MAX_RECORD_BYTES >> 10} KiB; make it smaller"
            )
        self.puts[key] = value
        if lease:
            self.leases[key] = lease
        return self

    def delete(self, key: str) -> Txn:
        self.deletes.append(key)
        return self

    def emit(self, *events: Event) -> Txn:
        self.events.extend(events)
        return self

    def merge(self, other: Txn) -> Txn:
        """Add everything of *other* to this one."""
        self.checks.extend(other.checks)
        self.puts.update(other.puts)
        self.leases.update(other.leases)
        self.deletes.extend(other.deletes)
        self.events.extend(other.events)
        return self

    def is_empty(self) -> bool:
        return not (self.puts or self.deletes or self.events)


# Key -> fields of its record that only a newer version knows. Who reads records notes them, who writes keeps
# them: members and services are not of one version while they are being replaced one by one.
Unknown = dict[str, dict[str, Any]]


def whole_puts(txn: Txn, unknown: Unknown, *, member: str, service: str) -> dict[str, bytes]:
    """Return the puts of *txn* with *unknown* fields, and its events as one write to our outbox.

    Events without a time get that of this commit.
    """
    puts = txn.puts
    if unknown:
        puts = {k: codec.with_fields(v, unknown[k]) if k in unknown else v for k, v in puts.items()}
    if not txn.events:
        return puts
    now = time.time()
    told = tuple(event if event.time else replace(event, time=now) for event in txn.events)
    batch = EventBatch(member, service, told)
    return {**puts, keys.events(member, service): codec.encode(batch)}


def compacted(oldest: int) -> Gone:
    """Return what is said of history that is kept no longer."""
    return Gone(
        "COMPACTED",
        f"The history is kept from revision {oldest} on; read the state anew and go on from there",
        about=str(oldest),
    )


def lease_lapsed() -> NotFound:
    return NotFound("LEASE_LAPSED", "The lease that a key was to be bound to has lapsed")


def yet_to_come(revision: int, newest: int) -> Invalid:
    return Invalid("NO_SUCH_REVISION", f"There is no revision {revision} yet; the newest is {newest}")


class Store(Protocol):
    """Asynchronous access to the shared state. All may raise Unavailable."""

    @property
    def unknown(self) -> Unknown:
        """The fields that are kept although this version does not know them."""
        ...

    async def get(self, key: str) -> KV | None: ...

    async def list(self, prefix: str) -> Listing: ...

    async def commit(self, txn: Txn) -> int:
        """Apply *txn* as a whole and return its revision.

        Raises:
            Stale: CONFLICT, a check failed; nothing was written.
            NotFound: LEASE_LAPSED, a lease of it is gone; nothing was written.
        """
        ...

    def follow(self, prefix: str) -> AsyncIterator[Resync | Change]:
        """Yield a Resync, then every change exactly once and in order, for ever."""
        ...

    async def close(self) -> None: ...


class HistoryStore(Store, Protocol):
    """A store that also tells what was written before. All may raise Unavailable."""

    async def history(self, prefixes: Sequence[str], since: int | None) -> AsyncGenerator[Commit, None]:
        """Return every commit after revision *since* (None: from now on) that wrote below *prefixes*.

        First those of the past, then for ever those to come: each whole, once and in order.

        Raises:
            Gone: COMPACTED, not all of them are kept. Also later, by the iterator, when it is read too late.
            Invalid: NO_SUCH_REVISION.
        """
        ...


class LeaseStore(Store, Protocol):
    """A store that also grants leases. All may raise Unavailable."""

    async def grant(self, ttl_s: float) -> Lease:
        """Return a new lease; the store may grant a longer time than was asked for."""
        ...

    async def renew(self, lease: Lease) -> bool:
        """Start the time of *lease* anew. False when it has lapsed, or was revoked: it is no more."""
        ...

    async def revoke(self, lease: Lease) -> None:
        """End *lease* and delete its keys. May be repeated."""
        ...
