"""Instances that come as archives: backups that are imported, and instances of other servers.

The image service has converted the archive; here it becomes an instance whose root lies on that base, with
nothing above. What the archive says of it and of its snapshots goes through the policy like any request.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from core.errors import AlreadyExists, NotFound, Unsupported
from core.names import instance_name
from core.operations.operation import Context, Operation, Step, Story
from core.records import Instance
from core.state import keys
from core.state.store import Txn
from services.runtime.domain import arrivals
from services.runtime.domain.arrivals import Arrived, ArrivedEntry
from services.runtime.domain.expand import root_of
from services.runtime.usecases.claims import Claims
from services.runtime.usecases.host import Host
from services.runtime.usecases.instances.create import Birth, Create, runnable
from services.runtime.usecases.instances.volatile import APPLY_TEMPLATE
from services.runtime.usecases.policy import Policy
from services.runtime.usecases.transfers.renew import KIND as RENEW
from services.runtime.usecases.transfers.renew import Renewals, Staged

IMPORT = "instance.import"


@dataclass(frozen=True)
class Spec:
    """What a copy of another server's instance is to be here, in the place of what its archive says."""

    description: str
    architecture: str
    ephemeral: bool
    profiles: tuple[str, ...]
    config: dict[str, str]
    devices: dict[str, dict[str, str]]


@dataclass(frozen=True)
class WantedArrival:
    """What was asked for. name, pool "": as the archive says; spec None: a backup, which is as it was."""

    project: str
    ticket: str
    name: str = ""
    pool: str = ""
    spec: Spec | None = None
    instance_only: bool = False
    refresh: bool = False


class Arrivals:
    def __init__(self, host: Host, policy: Policy, claims: Claims, create: Create, member: str) -> None:
        self._renewals = Renewals(host, policy, claims)
        self._host = host
        self._store = host.store
        self._policy = policy
        self._claims = claims
        self._create = create
        self._member = member
        claims.runner.register(
            Story(
                IMPORT,
                "Restoring backup",
                (
                    Step("create_rootfs", self._make, create.remove),
                    Step("reserve_nics", create.reserve_nics, create.release_nics),
                    Step("seal", self._seal),
                ),
                on_failure=create.forget,
            )
        )

    async def accept(self, wanted: WantedArrival) -> Operation:
        """Raises: Invalid, NotFound, AlreadyExists, Forbidden."""
        arrived = await self._host.images.take(wanted.project, wanted.ticket)
        if arrived.kind != "container":
            raise Unsupported("NO_INSTANCE", "The backup is of a custom volume; import it as one")
        return await self._accept(wanted, arrived, None)

    async def accept_staged(self, wanted: WantedArrival, arrived: Arrived, staged: Staged) -> Operation:
        """Do the same for what lies in volumes already. Raises: as accept(), WrongState."""
        return await self._accept(wanted, arrived, staged)

    def renewable(self, wanted: WantedArrival) -> Instance | None:
        """Return the instance that is here and is to be brought up to date."""
        name = instance_name(wanted.name)
        if not (wanted.refresh and self._renewals.is_possible(wanted.project, name)):
            return None
        return self._store.instance(wanted.project, name).record

    @contextmanager
    def expected(self, wanted: WantedArrival) -> Iterator[Instance]:
        """Give the record that a new instance would have, with an id that it may get; it counts meanwhile.

        Raises: Invalid, NotFound, AlreadyExists, Forbidden, LimitReached.
        """
        name = instance_name(wanted.name)
        entry = replace(ArrivedEntry(name, ""), **_told(wanted.spec))
        plan = self._decide(wanted.project, name, "", Arrived("", "", entry), None)
        plan = self._create.looked_at(plan)
        with self._policy.expecting(plan):
            yield plan

    def taken_ids(self) -> set[str]:
        """Return the ids of all volumes that a record tells of, or a running operation works with."""
        live = (self._claims.runner.get(id).input for id in self._claims.runner.live_of(RENEW))
        store = self._store
        recorded = {e.record.id for cache in (store.instances, store.snapshots) for e in cache.entries()}
        return recorded | {str(input.get("staged", "")) for input in live}

    async def _accept(self, wanted: WantedArrival, arrived: Arrived, staged: Staged | None) -> Operation:
        name = instance_name(wanted.name or arrived.instance.name)
        if staged and wanted.refresh and self._renewals.is_possible(wanted.project, name):
            only, renewals = wanted.instance_only, self._renewals
            return await renewals.accept(wanted.project, name, arrived, staged, instance_only=only)
        if wanted.spec:
            arrived = replace(arrived, instance=replace(arrived.instance, **_told(wanted.spec)))
        pool = "" if wanted.spec else self._pool(wanted, arrived)
        snapshots = () if wanted.instance_only else arrived.snapshots
        # A copy gets its own name into its root, also by a restore.
        was_named = arrived.instance.name if wanted.spec else name

        def also(txn: Txn, instance: Instance) -> None:
            for entry in snapshots:
                id = staged.snapshots[entry.name] if staged else str(uuid.uuid4())
                snapshot = arrivals.snapshot_of(entry, arrived.fingerprint, instance, id, name=was_named)
                self._policy.admit(Txn(), snapshot.instance, replaces=instance)
                txn.put(keys.snapshot(instance.id, snapshot.name), snapshot)

        volatile = arrivals.kept_volatile(arrived.instance)
        if wanted.spec:
            volatile[APPLY_TEMPLATE] = "copy"
        # A backup is left as it was, but for another name.
        input = {"start": False, "seed": wanted.spec is not None or name != arrived.instance.name}
        birth = Birth(IMPORT, wanted.project, name, volatile, input, also)
        try:
            return await self._create.born(
                birth, lambda: self._decide(wanted.project, name, pool, arrived, staged)
            )
        except AlreadyExists as exc:
            if wanted.spec:
                raise
            why = "Create instance from backup: Cannot restore volume, already exists on target"
            raise AlreadyExists(exc.reason, why, about=name) from None

    def _decide(
        self, project: str, name: str, pool: str, arrived: Arrived, staged: Staged | None
    ) -> Instance:
        id = staged.id if staged else str(uuid.uuid4())
        blank = Instance(id=id, project=project, name=name, created_at=time.time(), member=self._member)
        instance = arrivals.instance_of(arrived.instance, arrived.fingerprint, blank)
        instance = replace(instance, architecture=runnable(instance.architecture))
        if not pool:
            return instance
        profiles = self._store.profiles_of(project, instance.profiles)
        return replace(instance, devices=arrivals.with_root(instance.devices, profiles, pool))

    def _pool(self, wanted: WantedArrival, arrived: Arrived) -> str:
        """Return the pool asked for, or that of the archive where it is here too, or the default one."""
        pool = wanted.pool or arrived.pool
        if self._store.pools.get(keys.pool(pool)):
            return pool
        if not wanted.pool:
            (default,) = self._store.profiles_of(wanted.project, ("default",))
            return root_of(default.devices).pool
        raise NotFound("NO_POOL", "Storage pool not found: Storage pool not found", about=pool)

    # --- steps ---------------------------------------------------------------------------------------

    async def _make(self, ctx: Context) -> None:
        instance, _ = self._claims.of(ctx)
        # The root is looked at before anything is made: whether it is a folder nobody has checked yet.
        lower = await self._host.lower(instance)
        await self._host.volume(instance)
        if ctx.input["seed"]:
            await self._host.seed(instance, lower)
        driver = self._host.driver_of(instance.pool)
        for entry in self._store.instance_snapshots(instance):
            await self._host.lower(entry.record.instance)
            await driver.ensure_volume(instance.pool, entry.record.id)

    async def _seal(self, ctx: Context) -> None:
        instance, _ = self._claims.of(ctx)
        for entry in self._store.instance_snapshots(instance):
            whole = replace(entry.record, status="Created")
            ctx.txn.put(keys.snapshot(instance.id, whole.name), whole)
        await self._create.seal(ctx)


def _told(spec: Spec | None) -> dict[str, Any]:
    return {**vars(spec), "created_at": 0.0} if spec else {}
