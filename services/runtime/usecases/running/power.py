"""Start, stop, restart, freeze and thaw; and what happens when an instance ends by itself."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from core.configkeys.instance import INSTANCE
from core.errors import Forbidden, Invalid, PodiumError, WrongState
from core.logs import get_logger
from core.membership import is_here
from core.operations.operation import Context, Operation, Step, Story
from core.records import Instance, InstanceObserved
from core.state import keys
from core.state.store import Txn
from core.units import parse_bool
from services.runtime.domain import applications, cloudinit, idmaps, revival
from services.runtime.domain.expand import root_of
from services.runtime.domain.lifecycle import FROZEN, STOPPED
from services.runtime.ports import ExitRecord
from services.runtime.store import RuntimeStore
from services.runtime.usecases.claims import Claims
from services.runtime.usecases.host import Host
from services.runtime.usecases.instances import ids
from services.runtime.usecases.instances.templates import Templates
from services.runtime.usecases.instances.volatile import (
    APPLY_TEMPLATE,
    EXIT_CODE,
    READY,
    when_down,
    with_nics,
)
from services.runtime.usecases.running.watch import Watch

log = get_logger(__name__)


async def _nothing(instance: Instance) -> None:
    return None


_DEFAULT_STOP_S = 600.0
_ASK_AGAIN_S = (1.0, 2.0, 4.0, 0.0)
_SAID = {
    "start": "Starting instance",
    "stop": "Stopping instance",
    "restart": "Restarting instance",
    "freeze": "Freezing instance",
    "unfreeze": "Unfreezing instance",
}
_POSSIBLE = {
    "start": ("stopped",),
    "stop": ("running", "frozen"),
    "restart": ("running",),
    "freeze": ("running",),
    "unfreeze": ("frozen",),
}


class Power:
    def __init__(self, host: Host, claims: Claims, watch: Watch, templates: Templates, member: str) -> None:
        self._host = host
        self._templates = templates
        self._claims = claims
        self._watch = watch
        self._member = member
        steps = (self._start, self._stop, self._restart, self._freeze, self._unfreeze)
        stories = (
            *((verb, words, step) for (verb, words), step in zip(_SAID.items(), steps, strict=True)),
            ("exit", "Cleaning up after instance", self._exited),
        )
        claims.runner.register(
            *(
                Story(f"instance.{name}", words, (Step(name, step),), on_failure=self._as_found)
                for name, words, step in stories
            ),
            Story("instance.all", "Changing state of instances", (Step("each", self._each),)),
        )
        watch.on_exit = self._on_exit
        self.is_closing = False
        """While the host goes down nothing is started."""
        self.before_start: Callable[[Instance], Awaitable[None]] = _nothing

    async def change(self, project: str, name: str, action: str, *, timeout_s: int, force: bool) -> Operation:
        """Raises: NotFound, WrongState, Busy."""
        _check(action)
        if action in ("start", "restart"):
            self._refuse_closing()
        if action == "start":
            self._refuse_protected(project, name)
            await self._before_start(project, name)
        if action == "restart" and not force:
            self._refuse_frozen(project, name)
        input = {"timeout_s": timeout_s, "force": force}
        event = "give-up" if action == "stop" and self._comes_back(project, name) else action
        return await self._claims.accept(f"instance.{action}", event, project, name, input=input)

    def _comes_back(self, project: str, name: str) -> bool:
        """Say whether it is down and would be started again: then a stop means that it shall not."""
        instance = self._host.store.instance(project, name).record
        policy = revival.policy(self._host.expanded(instance).config)
        return revival.due(policy, self._host.store.observed_of(instance).record) is not None

    async def _before_start(self, project: str, name: str) -> None:
        instance = self._host.store.instance(project, name).record
        if self._host.store.observed_of(instance).record.status == STOPPED:
            root_of(self._host.expanded(instance).devices)
            await self.before_start(instance)

    def _refuse_frozen(self, project: str, name: str) -> None:
        """Raises: WrongState as LXD does: what does not run cannot be asked to end, only be killed."""
        instance = self._host.store.instance(project, name).record
        if self._host.store.observed_of(instance).record.status == FROZEN:
            raise WrongState("NOT_RUNNING", "Instance is not running", about=name)

    def _refuse_closing(self) -> None:
        if self.is_closing:
            raise WrongState("CLOSING", "The host is shutting down")

    def _refuse_protected(self, project: str, name: str) -> None:
        instance = self._host.store.instance(project, name).record
        if parse_bool(INSTANCE.get(self._host.expanded(instance).config, "security.protection.start")):
            raise Forbidden("PROTECTED", "Instance is protected from being started", about=name)

    async def wait(self, id: str) -> Operation:
        """Return the final record of a change."""
        return await self._claims.runner.wait(id)

    async def change_all(self, project: str, action: str, *, timeout_s: int, force: bool) -> Operation:
        _check(action)
        names = []
        for entry in self._host.store.instances.entries(keys.instances(project)):
            is_ours = is_here(entry.record.member, self._member)
            if is_ours and self._host.store.observed_of(entry.record).record.status in _POSSIBLE[action]:
                names.append(entry.record.name)
        return await self._claims.runner.accept(
            "instance.all",
            description=_SAID[action],
            project=project,
            resources={"instances": tuple(names)},
            input={
                "action": action,
                "names": names,
                "timeout_s": timeout_s,
                "force": force,
                "project": project,
            },
        )

    async def revive(self, instance: Instance, observed: InstanceObserved) -> Operation:
        """Start again what ended by itself, and return the final record. Raises: as change()."""
        self._refuse_closing()
        input = {"timeout_s": 0, "force": False, "restarts": observed.restarts + 1}
        return await self._claims.accept(
            "instance.start", "start", instance.project, instance.name, input=input, wait=True
        )

    async def stop_with_host(self, instance: Instance, *, timeout_s: int) -> Operation:
        """Stop what is to run again with the host; kill it when it takes too long. Raises: as change()."""
        for force in (False, True):
            input = {"timeout_s": timeout_s, "force": force, "with_host": True}
            operation = await self._claims.accept(
                "instance.stop", "stop", instance.project, instance.name, input=input, wait=True
            )
            if operation.error_reason != "NOT_STOPPED":
                break
        return operation

    async def end_unhealthy(self, instance: Instance) -> Operation:
        """Stop what does not answer at once, so that it is started again. Raises: as change()."""
        input = {"timeout_s": 0, "force": True, "ended": revival.UNHEALTHY}
        # An ephemeral one would be deleted by a stop.
        action = "restart" if instance.ephemeral else "stop"
        return await self._claims.accept(
            f"instance.{action}", action, instance.project, instance.name, input=input, wait=True
        )

    async def bring_up(self, instance: Instance, observed: InstanceObserved) -> InstanceObserved:
        """Start *instance* and return what it is then. Repeatable."""
        instance = await self._with_ids(instance, observed)
        nics, rootfs = await asyncio.gather(
            self._host.reserve(instance, observed, at_rest=False), self._host.mount(instance)
        )
        observed = cloudinit.followed(observed, self._host.expanded(instance))
        if not self._host.engine.pid(instance.id):
            await self._templates.apply(instance, observed.volatile, rootfs)
            await self._templates.name_servers(instance, nics, rootfs)
        pid = await self._host.start(instance, rootfs, nics)
        shown = idmaps.shown(idmaps.of(instance))
        volatile = {
            **with_nics(observed.volatile, nics, is_up=True),
            **ids.volatile(instance, self._host.expanded(instance).config),
            "volatile.idmap.current": shown,
            "volatile.last_state.idmap": shown,
            "volatile.last_state.power": "RUNNING",
        }
        volatile.pop(READY, None)
        volatile.pop(EXIT_CODE, None)
        volatile.pop(APPLY_TEMPLATE, None)
        self._watch.follow(instance.id)
        return replace(observed, status="running", pid=pid, last_used_at=time.time(), volatile=volatile)

    async def _with_ids(self, instance: Instance, observed: InstanceObserved) -> Instance:
        """Let keys about ids take effect, now that nothing runs with the old ones."""
        if self._host.engine.pid(instance.id):
            return instance
        want = idmaps.wanted(self._host.expanded(instance).config)
        found = await ids.ensure(self._host.store, self._member, instance, want)
        if observed.volatile.get("volatile.last_state.idmap") != idmaps.shown(idmaps.of(found)):
            await self._host.rootfs.ensure_unmounted(found.id)  # it may be mounted with other ids
        return found

    async def take_down(self, instance: Instance, observed: InstanceObserved) -> InstanceObserved:
        """Clean up after the end of *instance* and return what it is then. Repeatable."""
        await self._host.clean(instance.id)
        volatile = when_down(observed.volatile)
        volatile["volatile.last_state.power"] = "STOPPED"
        volatile.pop(READY, None)
        return replace(observed, status="stopped", pid=0, volatile=volatile)

    # --- steps -----------------------------------------------------------------------------------

    async def _start(self, ctx: Context) -> None:
        instance, observed = self._claims.of(ctx)
        try:
            up = await self.bring_up(instance, observed)
        except PodiumError:
            await self._host.clean(instance.id)
            raise
        restarts = ctx.input.get("restarts", 0)
        self._claims.settle(ctx, ctx.txn, up, restarts=restarts, ended="", health="")
        context = {"restarts": str(restarts)} if restarts else {}
        ctx.txn.emit(ctx.event("instance-started", "instances", instance.name, **context))

    async def _stop(self, ctx: Context) -> None:
        instance, observed = self._claims.of(ctx)
        code = await self._end(ctx, instance)
        action = "instance-stopped" if ctx.input["force"] else "instance-shutdown"
        how = ctx.input.get("ended", revival.ASKED)
        await self._settle_stopped(ctx, instance, observed, action, how, code)

    async def _restart(self, ctx: Context) -> None:
        instance, observed = self._claims.of(ctx)
        await self._end(ctx, instance)
        down = await self.take_down(instance, observed)
        self._claims.settle(ctx, ctx.txn, await self.bring_up(instance, down), health="")
        ctx.txn.emit(ctx.event("instance-restarted", "instances", instance.name))

    async def _end(self, ctx: Context, instance: Instance) -> int | None:
        """End it, and return what its init left with, where that is told."""
        engine, cgroups = self._host.engine, self._host.cgroups
        if ctx.input["force"]:
            await engine.kill(instance.id)
            return None
        if not engine.pid(instance.id):
            return None
        if cgroups.is_frozen(instance.id):
            cgroups.thaw(instance.id)
        asked = float(ctx.input["timeout_s"])
        try:
            return await asyncio.wait_for(
                self._shut_down(instance.id), None if asked < 0 else asked or _DEFAULT_STOP_S
            )
        except TimeoutError:
            raise WrongState(
                "NOT_STOPPED",
                'Failed shutting down instance, status is "Running": shutting down the container failed',
                about=instance.name,
            ) from None

    async def _shut_down(self, id: str) -> int | None:
        """Ask init to end, wait for it and return its code.

        An init that had only just begun loses what it is asked first.
        """
        exited = asyncio.ensure_future(self._host.engine.wait_exit(id))
        try:
            for pause_s in _ASK_AGAIN_S:
                is_heard = False
                with contextlib.suppress(WrongState):  # it ended this moment
                    is_heard = await self._host.engine.shutdown(id)
                if is_heard or (await asyncio.wait({exited}, timeout=pause_s))[0]:
                    break
            return (await exited).code
        finally:
            exited.cancel()

    async def _settle_stopped(
        self,
        ctx: Context,
        instance: Instance,
        observed: InstanceObserved,
        action: str,
        how: str,
        code: int | None,
    ) -> None:
        config = self._host.expanded(instance).config
        down = await self.take_down(instance, observed)
        down = revival.ended(revival.policy(config), down, how, time.time())
        if code is not None and applications.of(config):
            down = replace(down, volatile={**down.volatile, EXIT_CODE: str(code)})
        if ctx.input.get("with_host"):
            down = replace(down, volatile={**down.volatile, "volatile.last_state.power": "RUNNING"})
        ctx.txn.emit(ctx.event(action, "instances", instance.name))
        if instance.ephemeral:
            await self._host.remove(instance)
            forget(ctx.txn, self._host.store, instance, self._member)
            tell_deleted(ctx, ctx.txn, self._host.store, instance)
            return
        self._claims.settle(ctx, ctx.txn, down)

    async def _freeze(self, ctx: Context) -> None:
        await self._set_frozen(ctx, frozen=True)

    async def _unfreeze(self, ctx: Context) -> None:
        await self._set_frozen(ctx, frozen=False)

    async def _set_frozen(self, ctx: Context, *, frozen: bool) -> None:
        instance, observed = self._claims.of(ctx)
        change = self._host.cgroups.freeze if frozen else self._host.cgroups.thaw
        await asyncio.to_thread(change, instance.id)
        self._claims.settle(ctx, ctx.txn, observed, status="frozen" if frozen else "running")
        action = "instance-paused" if frozen else "instance-resumed"
        ctx.txn.emit(ctx.event(action, "instances", instance.name))

    async def _exited(self, ctx: Context) -> None:
        """It ended by itself: reboot means start again."""
        instance, observed = self._claims.of(ctx)
        # Up already when a crash came after the start and before the commit: then it was a reboot.
        is_up = bool(self._host.engine.pid(instance.id))
        if is_up or (await self._host.engine.wait_exit(instance.id)).target == "reboot":
            down = observed if is_up else await self.take_down(instance, observed)
            self._claims.settle(ctx, ctx.txn, await self.bring_up(instance, down), health="")
            ctx.txn.emit(ctx.event("instance-restarted", "instances", instance.name))
            return
        how = revival.CLEAN if ctx.input.get("is_failure") is False else revival.FAILED
        code = ctx.input.get("code")
        await self._settle_stopped(ctx, instance, observed, "instance-shutdown", how, code)

    async def _as_found(self, ctx: Context) -> None:
        """A change failed: record what the host says the instance is."""
        instance, observed = self._claims.of(ctx)
        pid = self._host.engine.pid(instance.id)
        status = "stopped"
        if pid:
            status = "frozen" if self._host.cgroups.is_frozen(instance.id) else "running"
        else:
            await self._host.clean(instance.id)
            if restarts := ctx.input.get("restarts"):  # a start that nobody waits for: try it again later
                observed = replace(observed, ended=revival.FAILED, ended_at=time.time(), restarts=restarts)
        self._claims.settle(ctx, ctx.undo_txn, observed, status=status, pid=pid)

    async def _each(self, ctx: Context) -> None:
        names = ctx.input["names"]
        results = await asyncio.gather(*(self._one(ctx, name) for name in names))
        failed = [f" - Instance: {n}: {why}\n" for n, why in zip(names, results, strict=True) if why]
        if failed:
            said = "The following instances failed to update state:\n"
            raise WrongState("SOME_FAILED", (said + "".join(failed))[:4000])

    async def _one(self, ctx: Context, name: str) -> str:
        action = ctx.input["action"]
        input: dict[str, Any] = {key: ctx.input[key] for key in ("timeout_s", "force")}
        try:
            operation = await self._claims.accept(
                f"instance.{action}", action, ctx.input["project"], name, input=input, wait=True
            )
        except PodiumError as exc:
            return exc.message
        return operation.error_message

    async def _on_exit(self, instance: Instance, record: ExitRecord) -> None:
        log.info("instance_ended", instance=instance.name, id=instance.id)
        await self._claims.accept(
            "instance.exit",
            "exit",
            instance.project,
            instance.name,
            input={"force": False, "is_failure": record.is_failure, "code": record.code},
        )


def _check(action: str) -> None:
    if action not in _SAID:
        raise Invalid("BAD_ACTION", f"Unknown action: '{action}'", about=action)


def forget(txn: Txn, store: RuntimeStore, instance: Instance, member: str) -> None:
    """Delete the records of *instance*, of its past, its snapshots and backups in *txn*."""
    for backup in store.backups_of(instance):
        txn.delete(keys.backup(instance.id, backup.record.name))
    for entry in store.instance_snapshots(instance):
        txn.delete(keys.snapshot(instance.id, entry.record.name))
    txn.delete(keys.instance(instance.project, instance.name)).delete(keys.observed(instance.id))
    txn.delete(keys.previous(instance.id))
    ids.give_back(txn, member, instance)


def tell_deleted(ctx: Context, txn: Txn, store: RuntimeStore, instance: Instance) -> None:
    """Tell in *txn* that *instance* goes, and its snapshots with it."""
    for snapshot in store.whole_snapshots(instance):
        name = f"{instance.name}/snapshots/{snapshot.name}"
        txn.emit(ctx.event("instance-snapshot-deleted", "instances", name))
    txn.emit(ctx.event("instance-deleted", "instances", instance.name))
