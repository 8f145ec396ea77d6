"""Server configuration and warnings."""

from __future__ import annotations

from dataclasses import replace

from core.errors import Invalid, Stale
from core.records import ServerConfig, Warning
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
    ) -> ServerConfig:
        old = self.config()
        if expected_revision and old.revision != expected_revision:
            raise Stale("STALE", "The configuration was changed meanwhile; read it again")
        new = ServerConfig(
            rules.new_server_config(old.record.config, config, unchanged=unchanged, merge=merge)
        )
        key = keys.server_config()
        txn = Txn().unchanged(key, old.revision).put(key, new).emit(event("config-updated", "server", "", ""))
        self._store.server_cache.apply(key, new, await self._store.store.commit(txn))
        return new

    def warnings(self, project: str) -> list[Entry[Warning]]:
        return [e for e in self._store.warning_cache.entries() if not project or e.record.project == project]

    async def set_warning(self, id: str, status: str) -> Entry[Warning]:
        if status not in ("new", "acknowledged"):
            raise Invalid("BAD_STATUS", f"Unknown status {status!r}; use new or acknowledged", about=id)
        return await self._store.warnings.update(keys.warning(id), lambda w: replace(w, status=status))

    async def delete_warning(self, id: str) -> None:
        await self._store.warnings.delete(keys.warning(id))
