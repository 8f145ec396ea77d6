"""Create an instance: checked and recorded in one commit, then made step by step."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from core.architectures import known, of_host
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
from services.runtime.domain import applications, cloudinit, expand, idmaps
from services.runtime.domain.cloudinit import INSTANCE_ID
from services.runtime.domain.words import two_words
from services.runtime.usecases.claims import Claims
from services.runtime.usecases.host import Host
from services.runtime.usecases.instances import ids
from services.runtime.usecases.instances.volatile import APPLY_TEMPLATE, checked, with_nics
from services.runtime.usecases.peers import FoundImage
from services.runtime.usecases.policy import Policy
from services.runtime.usecases.running.power import Power, forget

KIND = "instance.create"
_NOT_INITIALISED = "Failed creating instance record: Failed initialising instance: "
NO_COPY_POOL = f"{_NOT_INITIALISED}Failed loading storage pool: "
_ATTEMPTS = 16
_PAUSE_S = 0.01
_OWN_HWADDR = re.compile(r"volatile\..+\.hwaddr")


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


def _nothing(txn: Txn, instance: Instance) -> None:
    return None


@dataclass(frozen=True)
class Birth:
    """How a new instance is recorded: the story that makes it, its input, and what is written besides.

    Of the input, "start" says whether it runs in the end. volatile: keys that are not decided here.
    id and requestor: of the operation, where they are not the caller's.
    """

    kind: str
    project: str
    name: str
    volatile: Mapping[str, str]
    input: Mapping[str, Any]
    also: Callable[[Txn, Instance], None] = _nothing
    id: str = ""
    requestor: dict[str, str] | None = None

    is_of_image: bool = False

    @contextlib.contextmanager
    def words(self) -> Iterator[None]:
        """Say of what is missing what LXD says."""
        try:
            yield
        except NotFound as exc:
            if exc.reason != "NO_POOL":
                raise
            of_image = f'Failed loading storage pool "{exc.about}": {exc.message}'
            said = of_image if self.is_of_image else f"{NO_COPY_POOL}{exc.message}"
            raise NotFound(exc.reason, said, about=exc.about) from None


class Create:
    def __init__(self, host: Host, policy: Policy, claims: Claims, power: Power, member: str) -> None:
        self._host = host
        self._policy = policy
        self._store = host.store
        self._claims = claims
        self._power = power
        self._member = member
        self._promised: set[int] = set()
        self._random = random.Random()  # noqa: S311 - a name is no secret
        claims.runner.register(
            Story(
                KIND,
                "Creating instance",
                (
                    Step("ensure_image", self._ensure_image),
                    Step("create_rootfs", self._create_rootfs, self.remove),
                    Step("reserve_nics", self.reserve_nics, self.release_nics),
                    Step("seal", self.seal),
                ),
                on_failure=self.forget,
            )
        )

    async def accept(
        self, wanted: Wanted, *, id: str = "", requestor: dict[str, str] | None = None
    ) -> Operation:
        """Accept it as operation *id*, and on behalf of *requestor*, where they are given.

        Raises: Invalid, NotFound, AlreadyExists.
        """
        image = await self.image_of(wanted.project, wanted.source)
        self._policy.check_new_volatile(wanted.config)
        asked = {k: checked(k, v) for k, v in wanted.config.items() if v and _OWN_HWADDR.fullmatch(k)}
        birth = Birth(
            *(KIND, wanted.project, wanted.name, asked, {"start": wanted.start}),
            id=id,
            requestor=requestor,
            is_of_image=image is not None,
        )
        return await self.born(birth, lambda: self._decide(wanted, image))

    async def born(self, birth: Birth, decide: Callable[[], Instance]) -> Operation:
        """Record what *decide* says, given ids and checked, together with the operation that makes it.

        Raises: Invalid, NotFound, AlreadyExists.
        """
        await self._claims.caught_up(birth.project, birth.name)
        async with self._policy.turn(birth.project):
            for _ in range(_ATTEMPTS):
                try:
                    txn = Txn()
                    with birth.words():
                        instance = self._admitted(txn, decide())
                    with self._promised_to(instance):
                        return await self._commit(txn, instance, birth)
                except Stale:
                    if birth.name and self._store.instances.get(keys.instance(birth.project, birth.name)):
                        raise self._taken(birth.name) from None
                    await asyncio.sleep(_PAUSE_S)
        raise Busy("BUSY", "Too much changes right now; try again", about=birth.name)

    @contextlib.contextmanager
    def _promised_to(self, instance: Instance) -> Iterator[None]:
        """Let no other creation of this process decide on the same ids until it is known who has them."""
        blocks = set(idmaps.blocks(instance.idmap_base, instance.idmap_size))
        self._promised |= blocks
        try:
            yield
        finally:
            self._promised -= blocks

    def _taken(self, name: str) -> AlreadyExists:
        why = 'Add instance info to the database: This "instances" entry already exists'
        return AlreadyExists("EXISTS", f"Failed creating instance record: {why}", about=name)

    def name_for(self, asked: str) -> str:
        """Return the name asked for, or one of two words. Raises: Invalid."""
        return instance_name(asked or two_words(self._random))

    async def image_of(self, project: str, source: Source) -> FoundImage | None:
        """Return the image of a source; None for an empty one. Raises: Invalid, NotFound."""
        home = self._store.home_of(project, "images")
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

    def _decide(self, wanted: Wanted, image: FoundImage | None) -> Instance:
        profiles = wanted.profiles
        if profiles is None:
            profiles = image.profiles if image else ("default",)
        own = {k: v for k, v in without_empty(wanted.config).items() if not k.startswith("volatile.")}
        properties = {f"image.{k}": v for k, v in image.properties.items()} if image else {}
        if image and image.application:
            properties |= applications.keys_of(image.application)
        instance = Instance(
            id=str(uuid.uuid4()),
            project=wanted.project,
            name=self.name_for(wanted.name),
            description=wanted.description,
            architecture=runnable(wanted.architecture or (image.architecture if image else "")),
            ephemeral=wanted.ephemeral,
            profiles=profiles,
            config={**properties, **own},
            devices=wanted.devices,
            created_at=time.time(),
            member=self._member,
            image=image.fingerprint if image else "",
        )
        if image and image.application:
            applications.need_command(self._host.expanded(instance).config)
        return instance

    def looked_at(self, instance: Instance) -> Instance:
        """Return the whole record that *instance* would have now. Raises: as born()."""
        with Birth("", "", "", {}, {}).words():
            return self._admitted(Txn(), instance)

    def _admitted(self, txn: Txn, instance: Instance) -> Instance:
        """Return the whole record, checked after expansion."""
        expanded = self._policy.admit(txn, instance)
        pool = expand.root_of(expanded.devices).pool
        self.ready_pool(pool)
        if self._store.instances.get(keys.instance(instance.project, instance.name)):
            raise self._taken(instance.name)
        want = idmaps.wanted(expanded.config)
        return ids.decide(self._store, replace(instance, pool=pool), want, promised=self._promised)

    def ready_pool(self, name: str) -> Entry[Pool]:
        """Raises: NotFound, WrongState."""
        entry = self._store.pool(name)
        if entry.record.status != "Created":
            why = entry.record.error or "it is being made or deleted"
            raise WrongState("POOL_NOT_READY", f"Storage pool {name!r} cannot be used: {why}", about=name)
        return entry

    async def _commit(self, txn: Txn, instance: Instance, birth: Birth) -> Operation:
        key = keys.instance(instance.project, instance.name)
        id = birth.id or new_operation_id()
        volatile = {
            APPLY_TEMPLATE: "create",
            "volatile.base_image": instance.image,
            **birth.volatile,
            "volatile.uuid": instance.id,
            INSTANCE_ID: str(uuid.uuid4()),
            **ids.volatile(instance, self._host.expanded(instance).config),
            "volatile.last_state.idmap": "[]",
        }
        volatile = without_empty(volatile)
        observed = InstanceObserved(
            instance.id,
            instance.project,
            instance.name,
            "creating",
            operation=id,
            cloud_init=cloudinit.told(self._host.expanded(instance)),
            volatile=volatile,
        )
        txn.absent(key)
        ids.claim(txn, self._member, instance)
        txn.unchanged(keys.pool(instance.pool), self.ready_pool(instance.pool).revision)
        txn.put(key, instance)
        txn.put(keys.observed(instance.id), observed)
        who = birth.requestor or current_identity().as_dict()
        told = {"type": "container", "storage-pool": instance.pool}
        txn.emit(Event("instance-created", "instances", instance.project, instance.name, who, told))
        birth.also(txn, instance)
        return await self._claims.runner.accept(
            birth.kind,
            id=id,
            project=instance.project,
            resources={"instances": (instance.name,)},
            input={
                **birth.input,
                "id": instance.id,
                "project": instance.project,
                "name": instance.name,
            },
            txn=txn,
            requestor=birth.requestor,
        )

    # --- steps -----------------------------------------------------------------------------------

    async def _ensure_image(self, ctx: Context) -> None:
        ctx.scratch["lower"] = await self._host.lower(self._claims.of(ctx)[0])

    async def _create_rootfs(self, ctx: Context) -> None:
        instance, _ = self._claims.of(ctx)
        await self._host.seed(instance, ctx.scratch["lower"])

    async def remove(self, ctx: Context) -> None:
        await self._host.remove(self._claims.of(ctx)[0])

    async def reserve_nics(self, ctx: Context) -> None:
        instance, observed = self._claims.of(ctx)
        try:
            nics = await self._host.reserve(instance, observed, at_rest=not ctx.input["start"])
        except Invalid as exc:
            raise Invalid(exc.reason, f"{_NOT_INITIALISED}{exc.message}", about=exc.about) from None
        ctx.scratch["nics"] = nics

    async def release_nics(self, ctx: Context) -> None:
        await self._host.networks.release(ctx.input["id"])

    async def seal(self, ctx: Context) -> None:
        instance, observed = self._claims.of(ctx)
        volatile = with_nics(observed.volatile, ctx.scratch["nics"], is_up=False)
        observed = replace(observed, volatile=volatile)
        if ctx.input["start"]:
            observed = await self._power.bring_up(instance, observed)
            ctx.txn.emit(ctx.event("instance-started", "instances", instance.name))
            self._claims.settle(ctx, ctx.txn, observed)
        else:
            self._claims.settle(ctx, ctx.txn, observed, status="stopped")

    async def forget(self, ctx: Context) -> None:
        """The name is free again at once."""
        instance, _ = self._claims.of(ctx)
        forget(ctx.undo_txn, self._store, instance, self._member)
        ctx.undo_txn.emit(ctx.event("instance-deleted", "instances", instance.name))


def runnable(asked: str) -> str:
    """Return the architecture of a new instance, this host's where none is *asked*. Raises: Invalid."""
    here = of_host()
    name = known(asked) or here[0]
    if name not in here:
        why = "Requested architecture isn't supported by this host"
        raise Invalid("FOREIGN_ARCHITECTURE", f"Failed creating instance record: {why}", about=name)
    return name
