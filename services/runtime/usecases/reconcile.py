"""After a start of this service: make the records say what the host is doing, and watch what runs."""

from __future__ import annotations

from dataclasses import replace

from core.logs import get_logger
from core.operations.runner import Runner
from core.records import Instance
from core.state import keys
from core.state.store import Txn
from services.runtime.domain.lifecycle import UP
from services.runtime.usecases.host import Host
from services.runtime.usecases.watch import Watch

log = get_logger(__name__)


class Reconcile:
    def __init__(self, host: Host, runner: Runner, watch: Watch, member: str) -> None:
        self._host = host
        self._store = host.store
        self._runner = runner
        self._watch = watch
        self._member = member

    async def adopt(self) -> None:
        """Call after the runner took up its operations: what they own is left to them."""
        known = set()
        for entry in self._store.instances.entries():
            if entry.record.member == self._member:
                known.add(entry.record.id)
                await self._adopt_one(entry.record)
        for stray in self._host.engine.running() - known:
            log.warning("stray_removed", id=stray)
            await self._host.engine.kill(stray)
            await self._host.clean(stray)
            await self._host.engine.remove(stray)

    async def _adopt_one(self, instance: Instance) -> None:
        observed = self._store.observed_of(instance).record
        if observed.operation and self._runner.find_live(observed.operation):
            return
        pid = self._host.engine.pid(instance.id)
        if not pid and observed.status in UP:
            # Not settled here: the exit story also handles reboot and ephemeral instances.
            await self._record(instance, replace(observed, operation=""))
        elif pid:
            status = "frozen" if self._host.cgroups.is_frozen(instance.id) else "running"
            await self._record(instance, replace(observed, status=status, pid=pid, operation="", message=""))
        else:
            await self._host.clean(instance.id)
            status = "error" if observed.status in ("creating", "error") else "stopped"
            await self._record(instance, replace(observed, status=status, pid=0, operation=""))
            return
        self._watch.follow(instance.id)

    async def _record(self, instance: Instance, observed: object) -> None:
        if observed != self._store.observed_of(instance).record:
            await self._store.commit(Txn().put(keys.observed(instance.id), observed))
