"""Delete, rename and update instances."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from core.architectures import known
from core.configkeys.instance import INSTANCE
from core.configkeys.schema import without_empty
from core.errors import AlreadyExists, Forbidden, Invalid, PodiumError, Stale, WrongState
from core.logs import get_logger
from core.names import instance_name
from core.operations.operation import Context, Operation, Step, Story
from core.records import Instance, InstanceObserved, Previous
from core.state import codec, keys
from core.state.repository import Entry
from core.state.store import Txn
from core.units import parse_bool
from services.runtime.domain import cloudinit, expand
from services.runtime.domain.cloudinit import INSTANCE_ID
from services.runtime.domain.expand import Expanded, differ_in_nics
from services.runtime.domain.lifecycle import UP
from services.runtime.usecases.claims import Claims
from services.runtime.usecases.host import Host
from services.runtime.usecases.instances.volatile import awaiting
from services.runtime.usecases.policy import Policy
from services.runtime.usecases.running.power import forget, tell_deleted

log = get_logger(__name__)
_MODULES = "linux.kernel_modules"
_ATTEMPTS, _PAUSE_S = 20, 0.02


@dataclass(frozen=True)
class Update:
    """A change. With merge None means: as it is; keys and devices are merged by name."""

    description: str = ""
    architecture: str = ""
    ephemeral: bool | None = None
    profiles: tuple[str, ...] | None = None
    config: dict[str, str] = field(default_factory=dict)
    devices: dict[str, dict[str, str]] = field(default_factory=dict)
    merge: bool = False


class Changes:
    def __init__(self, host: Host, policy: Policy, claims: Claims, member: str) -> None:
        self._host = host
        self._policy = policy
        self._claims = claims
        self._member = member
        claims.runner.register(
            Story(
                "instance.delete",
                "Deleting instance",
                (Step("remove", self._remove),),
                on_failure=self._broken,
            ),
            Story(
                "instance.rename",
                "Renaming instance",
                (Step("seed", self._seed, self._untell),),
                on_failure=self._as_before,
            ),
            Story(
                "instance.update",
                "Updating instance",
                (Step("apply", self._apply, self._untell),),
                on_failure=self._as_before,
            ),
        )

    async def delete(self, project: str, name: str) -> Operation:
        instance = self._host.store.instance(project, name).record
        config = self._host.expanded(instance).config
        if parse_bool(INSTANCE.get(config, "security.protection.delete")):
            raise Forbidden("PROTECTED", "Container is protected", about=name)
        return await self._claims.accept("instance.delete", "delete", project, name)

    async def rename(self, project: str, name: str, new_name: str) -> Operation:
        entry = self._host.store.instance(project, name)
        instance_name(new_name)
        new_key = keys.instance(project, new_name)
        if self._host.store.instances.get(new_key):
            raise AlreadyExists("EXISTS", f'Name "{new_name}" already in use', about=new_name)
        old_key = keys.instance(project, name)
        change = Txn().unchanged(old_key, entry.revision).absent(new_key).delete(old_key)
        change.put(new_key, replace(entry.record, name=new_name))
        return await self._claims.accept(
            "instance.rename", "rename", project, name, change=change, input=_remembered(entry.record)
        )

    async def update(self, project: str, name: str, wanted: Update, *, expected_revision: int) -> Operation:
        entry = self._host.store.instance(project, name)
        entry.expect(expected_revision, "instance", name)
        observed = self._host.store.observed_of(entry.record).record
        self._policy.check_volatile(entry.record, wanted.config, observed.volatile)
        volatile = self._policy.volatile(entry.record, wanted.config, observed.volatile, merge=wanted.merge)
        new = _changed(entry.record, wanted)
        return await self._claims.accept(
            "instance.update",
            "update",
            project,
            name,
            change=lambda: self._admitted(entry, new),
            wait=wanted.merge,
            input=_remembered(entry.record) | {"volatile": volatile},
        )

    async def apply_again(self, project: str, name: str, had: Expanded) -> Operation:
        """Let an instance follow its profiles, and return the final record.

        *had*: what it was before they changed.

        Raises: NotFound, Busy, WrongState.
        """
        entry = self._host.store.instance(project, name)
        change = Txn().unchanged(keys.instance(project, name), entry.revision)
        remembered = _remembered(entry.record) | {"had": asdict(had)}
        return await self._claims.accept(
            "instance.update", "update", project, name, change=change, wait=True, input=remembered
        )

    def _admitted(self, old: Entry[Instance], new: Instance) -> Txn:
        key = keys.instance(new.project, new.name)
        txn = Txn().unchanged(key, old.revision).put(key, new)
        root = expand.find_root(self._policy.admit(txn, new, replaces=old.record).devices)
        if root and root.pool != old.record.pool:
            raise Invalid(
                "POOL_FIXED", f'Cannot update root disk device pool name to "{root.pool}"', about=new.name
            )
        return txn

    # --- steps -----------------------------------------------------------------------------------

    async def _remove(self, ctx: Context) -> None:
        instance, _ = self._claims.of(ctx)
        await self._host.remove(instance)
        forget(ctx.txn, self._host.store, instance, self._member)
        tell_deleted(ctx, ctx.txn, self._host.store, instance)

    async def _broken(self, ctx: Context) -> None:
        _, observed = self._claims.of(ctx)
        message = f"{ctx.operation.description} failed; try again"
        self._claims.settle(ctx, ctx.undo_txn, observed, status="error", message=message)

    async def _seed(self, ctx: Context) -> None:
        instance, observed = self._claims.of(ctx)
        await self._tell_name(instance, observed)
        volatile = awaiting(observed.volatile, "rename") | {INSTANCE_ID: str(uuid.uuid4())}
        _remember(ctx, instance)
        renamed = replace(observed, name=instance.name, volatile=volatile)
        self._claims.settle(ctx, ctx.txn, renamed, status=ctx.input["before"])
        ctx.txn.emit(ctx.event("instance-renamed", "instances", instance.name, old_name=ctx.input["name"]))

    async def _tell_name(self, instance: Instance, observed: InstanceObserved) -> None:
        await self._host.seed(instance)
        await self._host.reserve(instance, observed, at_rest=True)

    async def _apply(self, ctx: Context) -> None:
        instance, observed = self._claims.of(ctx)
        await self._check_size(_old(ctx), instance)
        if observed.status in UP:
            self._check_modules(_old(ctx), instance)
        _remember(ctx, instance)
        asked = {**observed.volatile, **ctx.input.get("volatile", {})}
        narrow = self._is_of_nics(_old(ctx), instance)
        told = await self._tell(instance, replace(observed, volatile=asked), self._had(ctx), narrow=narrow)
        told = cloudinit.followed(told, self._host.expanded(instance))
        self._claims.settle(ctx, ctx.txn, told)
        ctx.txn.emit(ctx.event("instance-updated", "instances", instance.name))

    def _check_modules(self, old: Instance, new: Instance) -> None:
        """Raises: WrongState when a running one needs what the host lacks; others hear it at their start."""
        before, after = (self._host.expanded(one).config for one in (old, new))
        if before.get(_MODULES) != after.get(_MODULES):
            self._host.need_modules(after)

    async def _check_size(self, old: Instance, new: Instance) -> None:
        """Raises: WrongState when the root would become smaller than what is in it."""
        size = self._host.root_size(new)
        if size and size != self._host.root_size(old):
            driver = self._host.driver_of(new.pool)
            await driver.settle(new.pool)
            used = await driver.usage(new.pool, [new.id])
            if used.get(new.id, 0) > size:
                raise WrongState("TOO_SMALL", f"The root disk holds {used[new.id]} bytes, more than {size}")

    def _is_of_nics(self, old: Instance, new: Instance) -> bool:
        """Say whether the record changed, and nothing in it but NICs. What profiles change is not in it."""
        return old != new and differ_in_nics(self._host.expanded(old), self._host.expanded(new))

    async def _tell(
        self, instance: Instance, observed: InstanceObserved, had: Expanded, *, narrow: bool = False
    ) -> InstanceObserved:
        """Make the host follow the record, live where it runs, and return what the instance is then.

        *had*: what it was. What the host refuses of that hinders no change of something else. narrow: only
        its NICs have to follow.
        """
        if narrow:
            return await self._host.ensure_nics(instance, observed, had=had)
        if observed.status in UP:
            await self._host.apply_limits(instance, had)
            if pid := self._host.engine.pid(instance.id):
                await self._host.ensure_devices(instance, pid, had=had)
                await self._host.ensure_door(instance, pid)
        driver = self._host.driver_of(instance.pool)
        await driver.set_quota(instance.pool, instance.id, self._host.root_size(instance))
        return await self._host.ensure_nics(instance, observed, had=had)

    def _had(self, ctx: Context) -> Expanded:
        """Return what the instance was: as its record says, or who saw a profile change."""
        if was := ctx.input.get("had"):
            return Expanded(was["config"], was["devices"])
        return self._host.expanded(_old(ctx))

    async def _untell(self, ctx: Context) -> None:
        """Tell the host again what the record was. A step's undo: a service that is away is waited for."""
        new, observed = self._claims.of(ctx)
        old = _old(ctx)
        if new.name != old.name:
            await self._tell_name(old, observed)
        else:
            stays = await self._put_back(old, new)
            ctx.scratch["observed"] = await self._tell(stays, observed, self._host.expanded(stays))

    async def _put_back(self, old: Instance, new: Instance) -> Instance:
        """Put back the record as far as policy allows by now, and return the one that stays.

        What the change gave up may be another's: the memory of a project, or a profile that is deleted.
        """
        key = keys.instance(old.project, old.name)
        for _ in range(_ATTEMPTS):
            entry = self._host.store.instance(old.project, old.name)
            if entry.record == old:
                return old
            txn = Txn().unchanged(key, entry.revision).put(key, old)
            try:
                self._policy.admit(txn, old, replaces=entry.record)
                await self._host.store.commit(txn)
                return old
            except Stale:
                await asyncio.sleep(_PAUSE_S)
            except PodiumError as exc:
                log.warning("record_not_put_back", instance=old.name, error=exc.message)
                break
        return new

    async def _as_before(self, ctx: Context) -> None:
        """A change failed: put back the record; that of an update is by now, or stays."""
        new, observed = self._claims.of(ctx)
        old, observed = _old(ctx), ctx.scratch.get("observed", observed)
        if new.name != old.name:
            ctx.undo_txn.delete(keys.instance(new.project, new.name))
            ctx.undo_txn.put(keys.instance(old.project, old.name), old)
        else:
            await self._put_back(old, new)
        self._claims.settle(ctx, ctx.undo_txn, replace(observed, name=old.name), status=ctx.input["before"])


def _remember(ctx: Context, new: Instance) -> None:
    """Keep what it was, with the outcome: only a change that was one can be taken back."""
    if (old := _old(ctx)) != new:
        who = ctx.operation.requestor.get("username", "")
        ctx.txn.put(keys.previous(new.id), Previous(old, time.time(), who))


def _old(ctx: Context) -> Instance:
    return codec.decode(Instance, ctx.input["old"].encode())


def _remembered(instance: Instance) -> dict[str, Any]:
    """Return the input by which _as_before finds the record that was."""
    return {"old": codec.encode(instance).decode()}


def _changed(old: Instance, wanted: Update) -> Instance:
    """Raises: Invalid."""
    architecture = old.architecture
    if wanted.architecture not in ("", architecture):
        architecture = known(wanted.architecture)
    own = {k: v for k, v in wanted.config.items() if not k.startswith("volatile.")}
    if not wanted.merge:
        return replace(
            old,
            description=wanted.description,
            architecture=architecture,
            ephemeral=bool(wanted.ephemeral),
            profiles=wanted.profiles or (),
            config=without_empty(own),
            devices=wanted.devices,
        )
    return replace(
        old,
        description=wanted.description or old.description,
        architecture=architecture,
        ephemeral=old.ephemeral if wanted.ephemeral is None else wanted.ephemeral,
        profiles=old.profiles if wanted.profiles is None else wanted.profiles,
        config=without_empty({**old.config, **own}),
        devices={**old.devices, **wanted.devices},
    )
