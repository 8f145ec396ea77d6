"""Restore an instance from a snapshot of it: stop it, put back volume and record, start it as it was."""

from __future__ import annotations

from dataclasses import replace

from core.errors import Invalid, NotFound, PodiumError, WrongState
from core.operations.operation import Context, Operation, Step, Story
from core.records import Instance, InstanceObserved, Snapshot
from core.state import keys
from core.state.store import Txn
from services.runtime.domain.lifecycle import UP
from services.runtime.domain.snapshots import restored
from services.runtime.usecases.claims import Claims
from services.runtime.usecases.host import Host
from services.runtime.usecases.instances.volatile import hwaddrs_of, when_down, with_nics
from services.runtime.usecases.policy import Policy
from services.runtime.usecases.running.power import Power

KIND = "instance.restore"


class Restore:
    def __init__(self, host: Host, policy: Policy, claims: Claims, power: Power) -> None:
        self._host = host
        self._store = host.store
        self._policy = policy
        self._claims = claims
        self._power = power
        claims.runner.register(
            Story(
                KIND,
                "Restoring snapshot",
                (
                    Step("stop", self._stop),
                    Step("replace", self._replace),
                    Step("reserve_nics", self._reserve),
                    Step("start", self._start),
                ),
                on_failure=self._as_found,
            )
        )

    async def accept(self, project: str, name: str, snapshot: str, *, stateful: bool = False) -> Operation:
        """Raises: NotFound, Invalid, WrongState, Busy."""
        found = self._find(project, name, snapshot)
        if stateful:
            raise Invalid(
                "NO_STATE", "Stateful snapshot restore requested by snapshot is stateless", about=name
            )

        def check() -> Txn:
            instance = self._store.instance(project, name)
            entry = self._store.snapshot(instance.record, snapshot)
            if entry.record.status != "Created":
                raise WrongState("BEING_DELETED", f"Snapshot {snapshot!r} is being deleted", about=snapshot)
            txn = Txn().unchanged(keys.instance(project, name), instance.revision)
            txn.unchanged(keys.snapshot(instance.record.id, snapshot), entry.revision)
            self._policy.admit(txn, self._new(instance.record, entry.record), replaces=instance.record)
            return txn

        input = {"snapshot": found.name}
        return await self._claims.accept(KIND, "restore", project, name, change=check, input=input)

    def _find(self, project: str, name: str, snapshot: str) -> Snapshot:
        instance = self._store.instance(project, name).record
        try:
            return self._store.snapshot(instance, snapshot).record
        except NotFound as exc:
            raise NotFound(exc.reason, f"Snapshot {name}/{snapshot} does not exist", about=snapshot) from None

    def _new(self, instance: Instance, snapshot: Snapshot) -> Instance:
        return restored(instance, snapshot)

    # --- steps -----------------------------------------------------------------------------------

    async def _stop(self, ctx: Context) -> None:
        instance, observed = self._claims.of(ctx)
        if ctx.input["before"] in UP:
            await self._host.engine.kill(instance.id)
        await self._power.take_down(instance, observed)

    async def _replace(self, ctx: Context) -> None:
        instance, _ = self._claims.of(ctx)
        snapshot = self._snapshot(ctx)
        new = self._new(instance, snapshot)
        size = self._host.root_size(new)
        source = self._host.volume_of(replace(instance, id=snapshot.id))
        await self._host.driver_of(instance.pool).replace_volume(
            instance.pool, instance.id, source, size=size
        )
        if snapshot.instance.name != instance.name:
            await self._host.seed(new, await self._host.lower(new))
        # A commit of its own: what the volume holds now, and what starts, is what the snapshot says.
        await self._store.commit(Txn().put(keys.instance(new.project, new.name), new))
        ctx.scratch["replaced"] = True

    async def _reserve(self, ctx: Context) -> None:
        """Have the NICs that it had then decided again, with their addresses."""
        new, observed = self._claims.of(ctx)
        was = hwaddrs_of(self._snapshot(ctx).volatile)
        down = replace(observed, status="stopped", pid=0, volatile=when_down({**observed.volatile, **was}))
        down.volatile["volatile.last_state.power"] = "STOPPED"
        nics = await self._host.reserve(new, down, at_rest=ctx.input["before"] not in UP)
        ctx.scratch["down"] = replace(down, volatile=with_nics(down.volatile, nics, is_up=False))

    async def _start(self, ctx: Context) -> None:
        new, _ = self._claims.of(ctx)
        observed: InstanceObserved = ctx.scratch["down"]
        if ctx.input["before"] in UP:
            observed = await self._power.bring_up(new, observed)
        self._claims.settle(ctx, ctx.txn, observed)
        snapshot = f"{new.name}/{ctx.input['snapshot']}"
        ctx.txn.emit(ctx.event("instance-restored", "instances", new.name, snapshot=snapshot))

    def _snapshot(self, ctx: Context) -> Snapshot:
        instance, _ = self._claims.of(ctx)
        return self._store.snapshot(instance, ctx.input["snapshot"]).record

    async def _as_found(self, ctx: Context) -> None:
        """Record what there is: the snapshot's content, or the old one; up again if it was."""
        instance, observed = self._claims.of(ctx)
        down = ctx.scratch.get("down", replace(observed, status="stopped", pid=0))
        if "replaced" not in ctx.scratch and ctx.input["before"] in UP:
            down = await self._up_again(instance, down)
        elif self._host.engine.pid(instance.id):
            await self._host.engine.kill(instance.id)
        if down.status not in UP:
            await self._host.clean(instance.id)
        self._claims.settle(ctx, ctx.undo_txn, down)

    async def _up_again(self, instance: Instance, observed: InstanceObserved) -> InstanceObserved:
        try:
            return await self._power.bring_up(instance, observed)
        except PodiumError:
            return observed
