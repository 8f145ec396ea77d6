"""Check running instances as health.* asks for; record what becomes of them, and end what is unhealthy.

One task per checked instance. Only a change of health is written: answers that change nothing cost no commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace

from core.errors import PodiumError, Stale
from core.events import Event
from core.logs import get_logger
from core.records import Instance, InstanceObserved
from core.state import keys
from core.state.store import Txn
from services.runtime.domain import health
from services.runtime.domain.health import Check
from services.runtime.domain.target import environment_of
from services.runtime.ports import ExecPlan, Probes
from services.runtime.usecases.host import Host
from services.runtime.usecases.running.power import Power

log = get_logger(__name__)
_PAUSE_S = 0.2
_EVENTS = {health.HEALTHY: "instance-healthy", health.UNHEALTHY: "instance-unhealthy"}


class HealthChecks:
    def __init__(self, host: Host, power: Power, probes: Probes, member: str) -> None:
        self._host = host
        self._power = power
        self._probes = probes
        self._member = member
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._tasks: dict[tuple[str, float, Check], asyncio.Task[None]] = {}

    async def start(self) -> None:
        store = self._host.store
        for cache in (store.observed, store.instances, store.profiles):
            cache.on_change(lambda _key, _entry: self._wake.set())
        self._wake.set()
        # Owned by this object until stop(), and so are the tasks of instances.
        self._loop = asyncio.create_task(self._run(), name="health")

    async def stop(self) -> None:
        tasks = [*self._tasks.values(), *([self._loop] if self._loop else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(_PAUSE_S)  # many starts at once are one change
            self._wake.clear()
            wanted = self._wanted()
            for key in self._tasks.keys() - wanted.keys():
                self._tasks.pop(key).cancel()
            for instance in self._unchecked({id for id, _, _ in wanted}):
                await self._record(instance, "")
            for key in wanted.keys() - self._tasks.keys():
                self._tasks[key] = asyncio.create_task(
                    self._check(wanted[key], key[2]), name=f"health {key[0]}"
                )

    def _wanted(self) -> dict[tuple[str, float, Check], Instance]:
        """Return what is to be checked: each start and each change of the check is another."""
        store, found = self._host.store, {}
        for entry in store.instances.entries():
            instance, observed = entry.record, store.observed_of(entry.record).record
            if instance.member == self._member and observed.status == "running":
                with contextlib.suppress(PodiumError):
                    if check := health.check_of(self._host.expanded(instance).config):
                        found[instance.id, observed.last_used_at, check] = instance
        return found

    def _unchecked(self, wanted: set[str]) -> list[Instance]:
        """Return what is recorded as healthy or not, and is not checked any more."""
        store, found = self._host.store, []
        for entry in store.instances.entries():
            observed = store.observed_of(entry.record).record
            is_left = observed.health and observed.status == "running" and entry.record.id not in wanted
            if is_left and entry.record.member == self._member:
                found.append(entry.record)
        return found

    async def _check(self, instance: Instance, check: Check) -> None:
        observed = self._host.store.observed_of(instance).record
        now = health.Health(observed.health or health.STARTING)
        await self._record(instance, now.status)
        while True:
            await asyncio.sleep(check.interval_s)
            is_good = await self._ask(instance, check)
            age_s = time.time() - observed.last_used_at
            before, now = now, health.after(check, now, is_good=is_good, age_s=age_s)
            if now.status != before.status:
                await self._record(instance, now.status)
            if now.status == health.UNHEALTHY and check.restarts:
                await self._end(instance)
                return

    async def _ask(self, instance: Instance, check: Check) -> bool:
        try:
            if check.command:
                config = self._host.expanded(instance).config
                plan = ExecPlan(check.command, environment_of({}, config, 0))
                argv = self._host.engine.exec_argv(instance.id, plan, terminal=False)
                return await self._probes.run(argv, self._host.engine.program(argv), check.timeout_s)
            address = self._address(instance)
            if check.path:
                return await self._probes.answers(address, check.port, check.path, check.timeout_s)
            return await self._probes.connects(address, check.port, check.timeout_s)
        except (PodiumError, OSError) as exc:
            log.warning("health_not_checked", instance=instance.name, error=str(exc))
            return False

    def _address(self, instance: Instance) -> str:
        """Return the address that was decided for its first NIC; the loopback of nobody when it has none."""
        nics = [entry.record for entry in self._host.store.nics.below(keys.nics(instance.id))]
        return next((nic.ipv4 or nic.ipv6 for nic in nics if nic.ipv4 or nic.ipv6), "")

    async def _end(self, instance: Instance) -> None:
        try:
            await self._power.end_unhealthy(instance)
        except PodiumError as exc:
            log.warning("unhealthy_not_ended", instance=instance.name, error=str(exc))

    async def _record(self, instance: Instance, status: str) -> None:
        """Write the health of *instance*, "" for none; what an operation owns is waited for."""
        while (entry := self._host.store.observed.get(keys.observed(instance.id))) is not None:
            observed: InstanceObserved = entry.record
            if observed.health == status or observed.status != "running":
                return
            txn = Txn().unchanged(keys.observed(instance.id), entry.revision)
            txn.put(keys.observed(instance.id), replace(observed, health=status))
            if action := _EVENTS.get(status):
                txn.emit(Event(action, "instances", instance.project, instance.name, {}))
            if not observed.operation:
                with contextlib.suppress(Stale):
                    await self._host.store.commit(txn)
                    return
            await asyncio.sleep(_PAUSE_S)
