"""Create an instance: checked and recorded in one commit, then made step by step."""

from __future__ import annotations

import asyncio
import platform
import random
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from core.configkeys.schema import without_empty
from core.errors import AlreadyExists, Busy, Invalid, NotFound, Stale, WrongState
from core.events import Event
from core.names import instance_name
from core.operations.operation import Context, Operation, Step, Story
from core.records import Instance, InstanceObserved, Pool
from core.rpc.identity import current_identity
from core.rpc.once import new_operation_id
from core.state import keys
from core.state.repository import Entry
from core.state.store import Txn
from services.runtime.domain import expand, idmaps
from services.runtime.domain.cloudinit import INSTANCE_ID
from services.runtime.domain.words import two_words
from services.runtime.usecases import ids
from services.runtime.usecases.claims import Claims
from services.runtime.usecases.host import Host
from services.runtime.usecases.peers import FoundImage
from services.runtime.usecases.policy import Policy
from services.runtime.usecases.power import Power, forget
from services.runtime.usecases.volatile import APPLY_TEMPLATE, with_nics

KIND = "instance.create"
_ATTEMPTS = 16
_PAUSE_S = 0.01


@dataclass(frozen=True)
class Source:
    """Exactly one is set."""

    fingerprint: str = ""
    alias: str = ""
    properties: Mapping[str, str] = field(default_factory=dict)
    empty: bool = False


@dataclass(frozen=True)
class Wanted:
    """What was asked for. profiles None: those the image names."""

    project: str
    name: str
    source: Source
    description: str = ""
    architecture: str = ""
    ephemeral: bool = False
    profiles: tuple[str, ...] | None = None
    config: dict[str, str] = field(default_factory=dict)
    devices: dict[str, dict[str, str]] = field(default_factory=dict)
    start: bool = False


class Create:
    def __init__(self, host: Host, policy: Policy, claims: Claims, power: Power, member: str) -> None:
        self._host = host
        self._policy = policy
        self._store = host.store
        self._claims = claims
        self._power = power
        self._member = member
        self._random = random.Random()  # noqa: S311 - a name is no secret
        claims.runner.register(
            Story(
                KIND,
                "Creating instance",
                (
                    Step("ensure_image", self._ensure_image),
                    Step("create_rootfs", self._create_rootfs, self._remove),
                    Step("reserve_nics", self._reserve_nics, self._release_nics),
                    Step("seal", self._seal),
                ),
                on_failure=self._forget,
            )
        )

    async def accept(self, wanted: Wanted) -> Operation:
        """Raises: Invalid, NotFound, AlreadyExists."""
        image = await self._image(wanted)
        await self._claims.caught_up(wanted.project, wanted.name)
        async with self._policy.turn(wanted.project):
            for _ in range(_ATTEMPTS):
                try:
                    txn = Txn()
                    return await self._commit(txn, self._decide(txn, wanted, image), wanted)
                except Stale:
                    if wanted.name and self._store.instances.get(keys.instance(wanted.project, wanted.name)):
                        raise self._taken(wanted.name) from None
                    await asyncio.sleep(_PAUSE_S)
        raise Busy("BUSY", "Too much changes right now; try again", about=wanted.name)

    def _taken(self, name: str) -> AlreadyExists:
        return AlreadyExists("EXISTS", f'Instance "{name}" already exists', about=name)

    async def _image(self, wanted: Wanted) -> FoundImage | None:
        source, home = wanted.source, self._store.home_of(wanted.project, "images")
        if source.empty:
            return None
        if source.properties:
            found = await self._host.images.match(home, source.properties)
            if found is None:
                raise NotFound("NO_IMAGE", "No matching image could be found")
            return found
        if not (source.fingerprint or source.alias):
            raise Invalid(
                "NO_SOURCE", "Must specify one of alias, fingerprint or properties for init from image"
            )
        return await self._host.images.find(home, source.fingerprint, source.alias)

    def _decide(self, txn: Txn, wanted: Wanted, image: FoundImage | None) -> Instance:
        """Return the whole record, checked after expansion."""
        profiles = wanted.profiles
        if profiles is None:
            profiles = image.profiles if image else ("default",)
        own = {k: v for k, v in without_empty(wanted.config).items() if not k.startswith("volatile.")}
        properties = {f"image.{k}": v for k, v in image.properties.items()} if image else {}
        instance = Instance(
            id=str(uuid.uuid4()),
            project=wanted.project,
            name=instance_name(wanted.name or two_words(self._random)),
            description=wanted.description,
            architecture=wanted.architecture or (image.architecture if image else "") or platform.machine(),
            ephemeral=wanted.ephemeral,
            profiles=profiles,
            config={**properties, **own},
            devices=wanted.devices,
            created_at=time.time(),
            member=self._member,
            image=image.fingerprint if image else "",
        )
        expanded = self._policy.admit(txn, instance)
        pool = expand.root_of(expanded.devices).pool
        self._ready_pool(pool)
        if self._store.instances.get(keys.instance(instance.project, instance.name)):
            raise self._taken(instance.name)
        want = idmaps.wanted(expanded.config)
        return ids.decide(self._store, replace(instance, pool=pool), want)

    def _ready_pool(self, name: str) -> Entry[Pool]:
        entry = self._store.pool(name)
        if entry.record.status != "Created":
            why = entry.record.error or "it is being made or deleted"
            raise WrongState("POOL_NOT_READY", f"Storage pool {name!r} cannot be used: {why}", about=name)
        return entry

    async def _commit(self, txn: Txn, instance: Instance, wanted: Wanted) -> Operation:
        key = keys.instance(instance.project, instance.name)
        id = new_operation_id()
        asked = {
            k: v for k, v in wanted.config.items() if k.startswith("volatile.") and k.endswith(".hwaddr")
        }
        volatile = {
            **asked,
            APPLY_TEMPLATE: "create",
            "volatile.uuid": instance.id,
            "volatile.base_image": instance.image,
            INSTANCE_ID: str(uuid.uuid4()),
            **ids.volatile(instance, self._host.expanded(instance).config),
            "volatile.last_state.idmap": "[]",
            "volatile.last_state.power": "STOPPED",
        }
        observed = InstanceObserved(
            instance.id, instance.project, instance.name, "creating", operation=id, volatile=volatile
        )
        txn.absent(key)
        ids.claim(txn, self._member, instance)
        txn.unchanged(keys.pool(instance.pool), self._ready_pool(instance.pool).revision)
        txn.put(key, instance)
        txn.put(keys.observed(instance.id), observed)
        who = current_identity().as_dict()
        txn.emit(Event("instance-created", "instances", instance.project, instance.name, who))
        return await self._claims.runner.accept(
            KIND,
            id=id,
            project=instance.project,
            resources={"instances": (instance.name,)},
            input={
                "id": instance.id,
                "project": instance.project,
                "name": instance.name,
                "start": wanted.start,
            },
            txn=txn,
        )

    # --- steps -----------------------------------------------------------------------------------

    async def _ensure_image(self, ctx: Context) -> None:
        ctx.scratch["lower"] = await self._host.lower(self._claims.of(ctx)[0])

    async def _create_rootfs(self, ctx: Context) -> None:
        instance, _ = self._claims.of(ctx)
        await self._host.seed(instance, ctx.scratch["lower"])

    async def _remove(self, ctx: Context) -> None:
        await self._host.remove(self._claims.of(ctx)[0])

    async def _reserve_nics(self, ctx: Context) -> None:
        instance, observed = self._claims.of(ctx)
        ctx.scratch["nics"] = await self._host.reserve(instance, observed, at_rest=not ctx.input["start"])

    async def _release_nics(self, ctx: Context) -> None:
        await self._host.networks.release(ctx.input["id"])

    async def _seal(self, ctx: Context) -> None:
        instance, observed = self._claims.of(ctx)
        volatile = with_nics(observed.volatile, ctx.scratch["nics"], is_up=False)
        observed = replace(observed, volatile=volatile)
        if ctx.input["start"]:
            observed = await self._power.bring_up(instance, observed)
            ctx.txn.emit(ctx.event("instance-started", "instances", instance.name))
            self._claims.settle(ctx, ctx.txn, observed)
        else:
            self._claims.settle(ctx, ctx.txn, observed, status="stopped")

    async def _forget(self, ctx: Context) -> None:
        """The name is free again at once."""
        instance, _ = self._claims.of(ctx)
        forget(ctx.undo_txn, self._store, instance, self._member)
        ctx.undo_txn.emit(ctx.event("instance-deleted", "instances", instance.name))
