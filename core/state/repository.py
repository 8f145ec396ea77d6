"""Typed records over a store: compare-and-swap, and nothing else touches keys of this kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from core.errors import AlreadyExists, Busy, NotFound, Stale
from core.events import Event
from core.state import codec
from core.state.store import KV, Store, Txn

T = TypeVar("T")
_RETRIES = 16


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """A record with the revision at which it was read, and the fields we do not know."""

    record: T
    revision: int
    extra: dict[str, Any] | None = None

    def expect(self, revision: int, noun: str, about: str = "") -> None:
        """Raises: Stale when a caller saw another version than this; it says 0 when any will do."""
        if revision and self.revision != revision:
            raise Stale("STALE", f"The {noun} was changed meanwhile; read it again", about=about)


def entry_of(cls: type[T], kv: KV) -> Entry[T]:
    record, extra = codec.decode_whole(cls, kv.value)
    return Entry(record, kv.revision, extra or None)


class Repository(Generic[T]):
    """Records of one kind. *noun* is how errors call one, for example "Instance"."""

    def __init__(
        self, store: Store, cls: type[T], key_of: Callable[[T], str], prefix: str, *, noun: str
    ) -> None:
        self._store = store
        self._cls = cls
        self._key_of = key_of
        self._prefix = prefix
        self._noun = noun

    async def find(self, key: str) -> Entry[T] | None:
        kv = await self._store.get(key)
        return entry_of(self._cls, kv) if kv else None

    async def get(self, key: str) -> Entry[T]:
        """Raises: NotFound."""
        entry = await self.find(key)
        if entry is None:
            raise NotFound("NOT_FOUND", f"{self._noun} not found", about=key.rsplit("/", 1)[-1])
        return entry

    async def list(self, prefix: str = "") -> list[Entry[T]]:
        listing = await self._store.list(prefix or self._prefix)
        return [entry_of(self._cls, kv) for kv in listing.kvs]

    async def create(self, record: T, *, emit: Iterable[Event] = ()) -> Entry[T]:
        """Raises: AlreadyExists."""
        key = self._key_of(record)
        txn = Txn().absent(key).put(key, record).emit(*emit)
        try:
            return Entry(record, await self._store.commit(txn))
        except Stale as exc:
            name = key.rsplit("/", 1)[-1]
            raise AlreadyExists("EXISTS", f"{self._noun} {name!r} already exists", about=name) from exc

    async def replace(self, entry: Entry[T], record: T, *, emit: Iterable[Event] = ()) -> Entry[T]:
        """Write *record* if *entry* is still the current one. Raises: Stale."""
        key = self._key_of(record)
        txn = Txn().unchanged(key, entry.revision)
        txn.put(key, codec.encode(record, entry.extra)).emit(*emit)
        return Entry(record, await self._store.commit(txn), entry.extra)

    async def update(self, key: str, change: Callable[[T], T], *, emit: Iterable[Event] = ()) -> Entry[T]:
        """Apply the pure function *change* to the current record, again when another was faster.

        Raises: NotFound, Busy.
        """
        events = tuple(emit)
        for _ in range(_RETRIES):
            entry = await self.get(key)
            record = change(entry.record)
            if record == entry.record:
                return entry
            try:
                return await self.replace(entry, record, emit=events)
            except Stale:
                continue
        raise Busy("BUSY", f"{self._noun} changes too often right now; try again", about=key)

    async def delete(self, key: str, *, revision: int = 0, emit: Iterable[Event] = ()) -> int:
        """Delete *key*, if *revision* is given only when it is the current one.

        Raises: NotFound, Stale.
        """
        txn = Txn().delete(key).emit(*emit)
        txn.unchanged(key, revision) if revision else txn.exists(key)
        try:
            return await self._store.commit(txn)
        except Stale:
            if revision and await self._store.get(key):
                raise
            raise NotFound("NOT_FOUND", f"{self._noun} not found", about=key) from None
