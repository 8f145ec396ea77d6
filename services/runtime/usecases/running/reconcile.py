"""After a start of this service: make the records say what the host is doing, and watch what runs."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace

from core.errors import PodiumError
from core.logs import get_logger
from core.operations.runner import Runner
from core.records import Instance, InstanceObserved, Pool
from core.state import keys
from core.state.store import Txn
from services.runtime.domain.lifecycle import UP
from services.runtime.ports import Boots, VolumeKind
from services.runtime.usecases.host import Host
from services.runtime.usecases.notes import lost_ids
from services.runtime.usecases.running.watch import Watch

log = get_logger(__name__)
_STAGING = ("instance.renew", "volume.renew")
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Reconcile:
    def __init__(self, host: Host, runner: Runner, watch: Watch, boots: Boots, member: str) -> None:
        self._host = host
        self._store = host.store
        self._runner = runner
        self._watch = watch
        self._boots = boots
        self._member = member

    async def adopt(self) -> None:
        """Call after the runner took up its operations: what they own is left to them."""
        known, is_new_boot = set(), self._boots.is_new()
        for entry in self._store.instances.entries():
            if entry.record.member == self._member:
                known.add(entry.record.id)
                try:
                    await self._adopt_one(entry.record, is_new_boot=is_new_boot)
                except OSError as exc:  # one that cannot be cleaned up must not keep the others waiting
                    log.error("instance_not_adopted", instance=entry.record.name, error=str(exc))
        await self._sweep(known)

    async def _sweep(self, known: set[str]) -> None:
        """Take away what lies here without a record. What resists must not keep the service from starting."""
        work = [
            self._remove_stray(id) for id in sorted(self._host.engine.known() - known) if _ID.fullmatch(id)
        ]
        for id in self._host.doors.known() - known:
            self._host.doors.remove(id)
        work += [self._sweep_volumes(e.record) for e in self._store.pools.entries()]
        used = self._host.images_in_use()
        work += [self._host.rootfs.drop_image(image) for image in sorted(self._host.rootfs.images() - used)]
        for one in work:
            try:
                await one
            except (PodiumError, OSError) as exc:
                log.error("stray_not_removed", error=str(exc))

    async def _remove_stray(self, id: str) -> None:
        log.warning("stray_removed", id=id)
        await self._host.engine.kill(id)
        await self._host.clean(id)
        await self._host.engine.remove(id)

    async def _sweep_volumes(self, pool: Pool) -> None:
        """Delete volumes that nothing is recorded of; only what is named as ours are."""
        if pool.status != "Created":
            return
        driver, known = self._host.driver(pool.driver), self._volumes_of(pool.name)
        lost = await asyncio.to_thread(lost_ids, driver.folder(pool.name), self._recorded())
        if lost:
            log.warning(
                "volumes_not_recorded", pool=pool.name, count=len(lost), remedy="podium admin recover"
            )
        known |= self._worked_with()
        for kind in VolumeKind:
            for id in await driver.volumes(pool.name, kind=kind):
                if _ID.fullmatch(id) and id not in known | lost:
                    log.warning("stray_volume_removed", pool=pool.name, id=id)
                    await driver.delete_volume(pool.name, id, kind=kind)

    def _worked_with(self) -> set[str]:
        """Return the ids of volumes of which no record tells, but an operation that goes on."""
        live = (op for kind in _STAGING for op in map(self._runner.get, self._runner.live_of(kind)))
        return {str(operation.input.get("staged", "")) for operation in live}

    def _recorded(self) -> set[str]:
        """Return the ids of all that may have a volume in any pool."""
        store = self._store
        caches = (store.instances, store.snapshots, store.volumes, store.volume_snapshots)
        return {entry.record.id for cache in caches for entry in cache.entries()}

    def _volumes_of(self, pool: str) -> set[str]:
        """Return the ids that may have a volume in *pool*: those that move may have one in any."""
        store = self._store
        custom = {e.record.id for e in store.volumes.entries()}
        custom |= {e.record.id for e in store.volume_snapshots.entries()}
        instances = [e.record for e in store.instances.entries()]
        moving = {i.id for i in instances if self._runner.find_live(store.observed_of(i).record.operation)}
        snapshots = [e.record for e in store.snapshots.entries()]
        found = {i.id for i in instances if i.pool == pool or i.id in moving}
        found |= {s.id for s in snapshots if s.instance.pool == pool or s.instance_id in moving}
        return found | custom

    async def _adopt_one(self, instance: Instance, *, is_new_boot: bool) -> None:
        observed = self._store.observed_of(instance).record
        pid = self._host.engine.pid(instance.id)
        if observed.operation and self._runner.find_live(observed.operation):
            if pid:
                # The operation may leave it running; its end must be noticed all the same.
                self._watch.follow(instance.id)
            return
        if not pid and observed.status in UP and not (is_new_boot and not instance.ephemeral):
            # Not settled here: the exit story also handles reboot and ephemeral instances.
            await self._record(instance, replace(observed, operation=""))
        elif pid:
            status = await self._status_of_live(instance, observed)
            await self._record(instance, replace(observed, status=status, pid=pid, operation="", message=""))
        else:
            # After a boot its last state is kept as it was, since that decides whether it starts again.
            await self._host.clean(instance.id)
            status = "error" if observed.status in ("creating", "error") else "stopped"
            await self._record(instance, replace(observed, status=status, pid=0, operation=""))
            return
        self._watch.follow(instance.id)

    async def _status_of_live(self, instance: Instance, observed: InstanceObserved) -> str:
        """A frozen one that nobody wanted frozen was being copied when this service died."""
        if not self._host.cgroups.is_frozen(instance.id):
            return "running"
        if observed.status != "running":
            return "frozen"
        await asyncio.to_thread(self._host.cgroups.thaw, instance.id)
        return "running"

    async def _record(self, instance: Instance, observed: object) -> None:
        if observed != self._store.observed_of(instance).record:
            await self._store.commit(Txn().put(keys.observed(instance.id), observed))
