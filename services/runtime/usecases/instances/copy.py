"""Copy an instance or one of its snapshots to a new instance, in any pool and project of this member."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from core.configkeys.schema import without_empty
from core.errors import Invalid, NotFound
from core.operations.operation import Context, Operation, Step, Story
from core.records import Instance, Snapshot
from core.state import keys
from core.state.store import Txn
from services.runtime.domain import snapshots as rules
from services.runtime.domain.expand import root_of
from services.runtime.usecases.claims import Claims
from services.runtime.usecases.host import Host
from services.runtime.usecases.instances.create import Birth, Create
from services.runtime.usecases.instances.still import Stillness
from services.runtime.usecases.instances.volatile import APPLY_TEMPLATE

KIND = "instance.copy"


@dataclass(frozen=True)
class Origin:
    """What is copied: an instance, or with *snapshot* one of its snapshots."""

    project: str
    name: str
    snapshot: str = ""


@dataclass(frozen=True)
class WantedCopy:
    """What was asked for. Keys and devices win over those of the source; profiles None: those it has."""

    project: str
    name: str
    source: Origin
    description: str = ""
    ephemeral: bool = False
    profiles: tuple[str, ...] | None = None
    config: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, dict[str, str]] = field(default_factory=dict)
    instance_only: bool = False
    start: bool = False


class Copies:
    def __init__(self, host: Host, claims: Claims, create: Create, still: Stillness, member: str) -> None:
        self._host = host
        self._store = host.store
        self._claims = claims
        self._create = create
        self._still = still
        self._member = member
        claims.runner.register(
            Story(
                KIND,
                "Creating instance",
                (
                    Step("clone", self._clone, create.remove),
                    Step("seed", self._seed),
                    Step("reserve_nics", create.reserve_nics, create.release_nics),
                    Step("seal", self._seal),
                ),
                on_failure=create.forget,
            )
        )

    async def accept(self, wanted: WantedCopy) -> Operation:
        """Raises: Invalid, NotFound, AlreadyExists, WrongState."""
        source, snapshot = self.find(wanted.source)
        taken = [] if snapshot or wanted.instance_only else self._store.whole_snapshots(source)
        new_ids = {each.id: str(uuid.uuid4()) for each in taken}

        def also(txn: Txn, instance: Instance) -> None:
            txn.exists(keys.instance(source.project, source.name))
            for each in taken:
                copy = rules.of_copy(each, instance, new_ids[each.id])
                txn.put(keys.snapshot(instance.id, copy.name), copy)

        input = {
            "start": wanted.start,
            "source": source.id,
            "source_snapshot": snapshot.id if snapshot else "",
            "snapshots": {new: old for old, new in new_ids.items()},
        }
        birth = Birth(KIND, wanted.project, wanted.name, {APPLY_TEMPLATE: "copy"}, input, also)
        self._check_project(wanted.project)
        was = rules.of_now(snapshot, source) if snapshot else source
        return await self._create.born(birth, lambda: self._decide(wanted, was))

    def _check_project(self, project: str) -> None:
        if self._store.projects.get(keys.project(project)) is None:
            raise NotFound("NO_PROJECT", "Failed loading project: Project not found", about=project)

    def find(self, origin: Origin) -> tuple[Instance, Snapshot | None]:
        """Return the instance, and its snapshot if that is named. Raises: Invalid, NotFound."""
        if not origin.name:
            raise Invalid("NO_SOURCE", "Must specify a source instance")
        entry = self._store.instances.get(keys.instance(origin.project, origin.name))
        if entry is None:
            shown = f"{origin.name}/{origin.snapshot}" if origin.snapshot else origin.name
            why = f'Failed to fetch instance "{shown}" in project "{origin.project}": Instance not found'
            raise NotFound("NO_INSTANCE", why, about=origin.name)
        if not origin.snapshot:
            return entry.record, None
        return entry.record, self._store.snapshot(entry.record, origin.snapshot).record

    def _decide(self, wanted: WantedCopy, was: Instance) -> Instance:
        config = without_empty({**was.config, **wanted.config})
        return Instance(
            id=str(uuid.uuid4()),
            project=wanted.project,
            name=self._create.name_for(wanted.name),
            description=wanted.description,
            architecture=was.architecture,
            ephemeral=wanted.ephemeral,
            profiles=was.profiles if wanted.profiles is None else wanted.profiles,
            config={k: v for k, v in config.items() if not k.startswith("volatile.")},
            devices={**was.devices, **wanted.devices},
            created_at=time.time(),
            member=self._member,
            image=was.image,
            base_dir=was.base_dir,
            base_shift=was.base_shift,
        )

    # --- steps -----------------------------------------------------------------------------------

    async def _clone(self, ctx: Context) -> None:
        instance, _ = self._claims.of(ctx)
        driver = self._host.driver_of(instance.pool)
        source = self._source(ctx)
        size = root_of(self._host.expanded(instance).devices).size
        for new, old in ctx.input["snapshots"].items():
            folder = self._host.volume_of(replace(source, id=old))
            async with self._still.of_snapshot(source, old):
                await driver.clone_volume(instance.pool, new, folder)
        snapshot = ctx.input["source_snapshot"]
        folder = self._host.volume_of(replace(source, id=snapshot or source.id))
        still = self._still
        async with still.of_snapshot(source, snapshot) if snapshot else still.of(source, instance.pool):
            await driver.clone_volume(instance.pool, instance.id, folder, size=size)

    def _source(self, ctx: Context) -> Instance:
        found = self._store.find_instance(ctx.input["source"])
        if found is None:
            raise NotFound(
                "NO_INSTANCE", "The source instance was deleted meanwhile", about=ctx.input["name"]
            )
        return found

    async def _seed(self, ctx: Context) -> None:
        """Give the copy the name that it has, not that of its source."""
        instance, _ = self._claims.of(ctx)
        await self._host.seed(instance, await self._host.lower(instance))

    async def _seal(self, ctx: Context) -> None:
        instance, _ = self._claims.of(ctx)
        for entry in self._store.instance_snapshots(instance):
            snapshot = replace(entry.record, status="Created")
            ctx.txn.put(keys.snapshot(instance.id, snapshot.name), snapshot)
            name = f"{instance.name}/snapshots/{snapshot.name}"
            ctx.txn.emit(ctx.event("instance-snapshot-created", "instances", name))
        await self._create.seal(ctx)
