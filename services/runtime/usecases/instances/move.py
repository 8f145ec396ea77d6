"""Move a stopped instance to another pool, project or name. It stays the same instance: id, ids and MAC."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from core.configkeys.devices.disk import is_root
from core.errors import AlreadyExists, Forbidden, NotFound, PodiumError, WrongState
from core.names import instance_name
from core.operations.operation import TASK, Context, Operation, Step, Story
from core.records import Instance
from core.state import codec, keys
from core.state.store import Txn
from services.runtime.domain.criu import not_live
from services.runtime.domain.expand import root_of
from services.runtime.domain.lifecycle import UP
from services.runtime.domain.snapshots import of_owner
from services.runtime.usecases.claims import Claims
from services.runtime.usecases.host import Host
from services.runtime.usecases.instances.create import NO_COPY_POOL, Create
from services.runtime.usecases.policy import Policy

KIND = "instance.move"


@dataclass(frozen=True)
class Destination:
    """Where to; what is empty stays as it is."""

    name: str = ""
    project: str = ""
    pool: str = ""
    instance_only: bool = False


class Moves:
    def __init__(self, host: Host, policy: Policy, claims: Claims, create: Create) -> None:
        self._host = host
        self._store = host.store
        self._policy = policy
        self._claims = claims
        self._create = create
        claims.runner.register(
            Story(
                KIND,
                "Migrating instance",
                (
                    Step("tell", self._tell, self._untell),
                    Step("clone", self._clone, self._remove_clones),
                    Step("switch", self._switch, self._remove_left),
                    Step("clean", self._clean),
                ),
                on_failure=self._as_found,
            )
        )

    async def accept(self, project: str, name: str, to: Destination) -> Operation:
        """Return the operation; one that has failed already when it cannot be, as with LXD.

        Raises: NotFound for the instance itself, Invalid, Busy.
        """
        old = self._store.instance(project, name).record
        try:
            await self._refuse_running(old)
            return await self._accept(old, to)
        except (NotFound, AlreadyExists, WrongState, Forbidden) as exc:
            return await self._refused(old, exc)

    async def _refuse_running(self, old: Instance) -> None:
        """Raises: WrongState, in LXD's words."""
        if self._store.observed_of(old).record.status in UP:
            raise WrongState("NO_CRIU", not_live(await self._host.checkpoints.obstacle()), about=old.name)

    async def _refused(self, old: Instance, why: PodiumError) -> Operation:
        runner = self._claims.runner
        refused = await runner.open(
            f"{KIND}-refused",
            "Migrating instance",
            op_class=TASK,
            project=old.project,
            resources={"instances": (old.name,)},
        )
        await runner.fail(refused.id, why)
        return runner.get(refused.id)

    async def _accept(self, old: Instance, to: Destination) -> Operation:
        project, name = old.project, old.name
        wanted = instance_name(to.name or name)
        new_key = keys.instance(to.project or project, wanted)
        input: dict[str, object] = {"instance_only": to.instance_only}

        def change() -> Txn:
            entry = self._store.instance(project, name)
            txn, key = Txn(), keys.instance(project, name)
            new = self._decided(txn, entry.record, to, wanted)
            input.update(old=codec.encode(entry.record).decode(), new=codec.encode(new).decode())
            input["snapshots"] = [e.record.id for e in self._store.instance_snapshots(entry.record)]
            if new_key != key:
                txn.absent(new_key).delete(key)
            # Until its volumes are there it is still in its old pool.
            stays = new.pool == entry.record.pool
            devices = new.devices if stays else entry.record.devices
            under_way = replace(new, pool=entry.record.pool, devices=devices)
            return txn.unchanged(key, entry.revision).put(new_key, under_way)

        if new_key != keys.instance(project, name) and self._store.instances.get(new_key):
            why = 'Add instance info to the database: This "instances" entry already exists'
            raise AlreadyExists("EXISTS", f"Failed creating instance record: {why}", about=wanted)
        return await self._claims.accept(KIND, "move", project, name, change=change, input=input)

    def _decided(self, txn: Txn, old: Instance, to: Destination, name: str) -> Instance:
        """Return what the instance will be, checked."""
        devices = self._with_pool(old, to.pool) if to.pool else old.devices
        new = replace(old, name=name, project=to.project or old.project, devices=devices)
        with _lxd_words("Failed creating instance record: "):
            self._store.home_of(new.project, "profiles")
        if new.project != old.project and not to.pool:
            # The profiles there may have another root disk or none; it keeps the one it has, as with LXD.
            new = replace(new, devices=self._with_pool(old, old.pool))
        with _lxd_words(NO_COPY_POOL):
            pool = self._create.ready_pool(to.pool or root_of(self._host.expanded(new).devices).pool)
        txn.unchanged(keys.pool(pool.record.name), pool.revision)
        replaces = old if new.project == old.project else None
        self._policy.admit(txn, new, replaces=replaces)
        return replace(new, pool=pool.record.name)

    def _with_pool(self, old: Instance, pool: str) -> dict[str, dict[str, str]]:
        """Give it a root disk of its own, like the one it has but in *pool*."""
        roots = {n: d for n, d in self._host.expanded(old).devices.items() if is_root(d)}
        return {**old.devices, **{name: {**device, "pool": pool} for name, device in roots.items()}}

    # --- steps -----------------------------------------------------------------------------------

    async def _tell(self, ctx: Context) -> None:
        """Have its name in its files and its NICs reserved as they will be; fails if they cannot be."""
        await self._name(ctx, _new(ctx))

    async def _untell(self, ctx: Context) -> None:
        if not self._is_elsewhere(ctx):
            await self._name(ctx, _old(ctx))

    async def _name(self, ctx: Context, instance: Instance) -> None:
        now, observed = self._claims.of(ctx)
        if _old(ctx).name != _new(ctx).name:
            await self._host.seed(replace(instance, pool=now.pool, devices=now.devices))
        await self._host.reserve(instance, observed, at_rest=True)

    async def _clone(self, ctx: Context) -> None:
        now, new = self._claims.of(ctx)[0], _new(ctx)
        if now.pool == new.pool:
            return
        driver = self._host.driver_of(new.pool)
        size = root_of(self._host.expanded(new).devices).size
        await driver.clone_volume(new.pool, new.id, self._host.volume_of(now), size=size)
        for id in _moved_snapshots(ctx):
            await driver.clone_volume(new.pool, id, self._host.volume_of(replace(now, id=id)))

    async def _remove_clones(self, ctx: Context) -> None:
        now, new = self._claims.of(ctx)[0], _new(ctx)
        if now.pool != new.pool:
            for id in (new.id, *_moved_snapshots(ctx)):
                await self._host.remove_volume(new.pool, id)

    async def _switch(self, ctx: Context) -> None:
        """From here on it is in its new pool: a commit of its own, since the old volumes go after it."""
        new = _new(ctx)
        txn = Txn().put(keys.instance(new.project, new.name), new)
        for entry in self._store.instance_snapshots(new):
            key = keys.snapshot(new.id, entry.record.name)
            if ctx.input["instance_only"]:
                txn.delete(key)
            else:
                txn.put(key, replace(entry.record, instance=of_owner(entry.record.instance, new)))
        await self._store.commit(txn)

    async def _clean(self, ctx: Context) -> None:
        new, observed = self._claims.of(ctx)
        old = _old(ctx)
        await self._remove_left(ctx)
        self._claims.settle(ctx, ctx.txn, replace(observed, name=new.name, project=new.project))
        context = {"old_name": old.name, "old_project": old.project, "old_pool": old.pool}
        ctx.txn.emit(ctx.event("instance-renamed", "instances", new.name, **context))

    async def _remove_left(self, ctx: Context) -> None:
        """Remove from its old pool what is not recorded there any more, however far the move came."""
        old, now = _old(ctx), self._claims.of(ctx)[0]
        recorded = {now.id} if now.pool == old.pool else set()
        snapshots = (entry.record for entry in self._store.instance_snapshots(now))
        recorded |= {snapshot.id for snapshot in snapshots if snapshot.instance.pool == old.pool}
        for id in (now.id, *ctx.input["snapshots"]):
            if id not in recorded:
                await self._host.remove_volume(old.pool, id)

    def _is_elsewhere(self, ctx: Context) -> bool:
        """Say whether it is in its new pool already: then there is no way back."""
        return self._claims.of(ctx)[0].pool == _new(ctx).pool != _old(ctx).pool

    async def _as_found(self, ctx: Context) -> None:
        """A move that failed before its switch never was; after it, only old volumes may be left."""
        now, observed = self._claims.of(ctx)
        if not self._is_elsewhere(ctx):
            old, new = _old(ctx), _new(ctx)
            if keys.instance(new.project, new.name) != keys.instance(old.project, old.name):
                ctx.undo_txn.delete(keys.instance(new.project, new.name))
            ctx.undo_txn.put(keys.instance(old.project, old.name), old)
            now = old
        self._claims.settle(ctx, ctx.undo_txn, replace(observed, name=now.name, project=now.project))


def _moved_snapshots(ctx: Context) -> list[str]:
    return [] if ctx.input["instance_only"] else ctx.input["snapshots"]


def _old(ctx: Context) -> Instance:
    return codec.decode(Instance, ctx.input["old"].encode())


def _new(ctx: Context) -> Instance:
    return codec.decode(Instance, ctx.input["new"].encode())


@contextlib.contextmanager
def _lxd_words(before: str) -> Iterator[None]:
    try:
        yield
    except NotFound as exc:
        raise NotFound(exc.reason, f"{before}{exc.message}", about=exc.about) from None
