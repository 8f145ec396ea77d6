"""Server configuration."""

from __future__ import annotations

from core.records import ServerConfig
from core.state import keys
from core.state.repository import Entry
from core.state.store import Txn
from services.cluster.domain import rules
from services.cluster.store import ClusterStore
from services.cluster.usecases.profiles import event


class Server:
    def __init__(self, store: ClusterStore) -> None:
        self._store = store

    def config(self) -> Entry[ServerConfig]:
        return self._store.server_cache.get(keys.server_config()) or Entry(ServerConfig(), 0)

    async def update(
        self, config: dict[str, str], *, unchanged: list[str], merge: bool, expected_revision: int
    ) -> Entry[ServerConfig]:
        old = self.config()
        old.expect(expected_revision, "configuration")
        new = ServerConfig(
            rules.new_server_config(old.record.config, config, unchanged=unchanged, merge=merge)
        )
        key = keys.server_config()
        txn = Txn().unchanged(key, old.revision).put(key, new).emit(event("config-updated", "server", "", ""))
        revision = await self._store.store.commit(txn)
        self._store.server_cache.apply(key, new, revision)
        return Entry(new, revision)
