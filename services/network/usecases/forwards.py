"""Forwards of running instances: replaced as a whole, and taken back when an instance ended unseen."""

from __future__ import annotations

from collections.abc import Sequence

from core.logs import get_logger
from core.records import InstanceObserved
from core.state import codec, keys
from services.network.domain.forwards import Forward
from services.network.ports import Forwards
from services.network.store import NetworkStore

log = get_logger(__name__)


class Forwarding:
    def __init__(self, store: NetworkStore, forwards: Forwards) -> None:
        self._store = store
        self._forwards = forwards

    async def set(self, instance_id: str, forwards: Sequence[Forward]) -> None:
        """Replace all forwards of an instance. Idempotent."""
        await self._forwards.set(instance_id, forwards)

    async def release_ended(self) -> None:
        """Remove those of instances that do not run any more."""
        for id in self._forwards.known():
            kv = await self._store.store.get(keys.observed(id))
            observed = codec.decode(InstanceObserved, kv.value) if kv else None
            if observed is None or (observed.status == "stopped" and not observed.operation):
                log.info("stray_forwards_removed", instance=id)
                await self._forwards.set(id, ())
