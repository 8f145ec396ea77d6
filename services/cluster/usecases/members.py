"""Members: which hosts there are, and which of their services live and where they listen."""

from __future__ import annotations

from dataclasses import dataclass, replace

from core.records import Member
from core.settings import SERVICES
from core.state import keys
from core.state.store import Txn
from services.cluster.store import ClusterStore

_EXPECTED = frozenset(SERVICES) - {"gateway"}


@dataclass(frozen=True)
class Seen:
    """A member as it is now. services: name to host:port ("" without mTLS), of those that live."""

    member: Member
    services: dict[str, str]

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(sorted(_EXPECTED - set(self.services)))


class Members:
    def __init__(self, store: ClusterStore) -> None:
        self._store = store

    async def record(self, member: Member) -> None:
        """Write what *member* says of itself; nothing when that is known."""
        key = keys.member(member.name)
        known = self._store.members.get(key)
        if known and known.record.etcd:  # whether it votes is written by whoever let it
            was = known.record
            member = replace(member, etcd=was.etcd, votes=was.votes, joined_at=was.joined_at)
        if known is None or known.record != member:
            revision = await self._store.store.commit(Txn().put(key, member))
            self._store.members.apply(key, member, revision)

    def all(self) -> list[Seen]:
        return [Seen(e.record, self._services_of(e.record.name)) for e in self._store.members.entries()]

    def _services_of(self, member: str) -> dict[str, str]:
        living = self._store.presence.entries(keys.presences(member))
        return {e.record.service: e.record.address for e in living}
