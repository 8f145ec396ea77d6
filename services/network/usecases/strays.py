"""Give back the NICs of instances that no longer exist: what a crash between two services leaves."""

from __future__ import annotations

from core.logs import get_logger
from services.network.ports import Host
from services.network.store import NetworkStore
from services.network.usecases.nics import Nics

log = get_logger(__name__)


class Strays:
    """An instance must be missing in two looks in a row: our view of instances may lag behind a reserve."""

    def __init__(self, store: NetworkStore, nics: Nics, host: Host) -> None:
        self._store = store
        self._host = host
        self._nics = nics
        self._missing: set[str] = set()

    async def release(self) -> None:
        living = {entry.record.id for entry in self._store.instances.entries()}
        missing = {entry.record.instance_id for entry in self._store.nics.entries()} - living
        for id in missing & self._missing:
            log.warning("stray_nics_released", instance=id)
            await self._nics.release(id)
        self._missing = missing
        await self._host.remove_unused()
