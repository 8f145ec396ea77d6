"""Bring an instance up to date with another server's, that has arrived: its root, and its snapshots.

Its configuration stays; clients that want another one write it afterwards, as LXD's do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import WrongState
from core.operations.operation import Context, Operation
from core.records import Instance, Snapshot
from core.state import keys
from core.state.store import Txn
from services.runtime.domain import arrivals
from services.runtime.domain.arrivals import Arrived
from services.runtime.domain.offers import is_same, missing
from services.runtime.usecases.claims import Claims
from services.runtime.usecases.host import Host
from services.runtime.usecases.instances.refreshing import Refreshing
from services.runtime.usecases.policy import Policy

KIND = "instance.renew"


@dataclass(frozen=True)
class Staged:
    """Volumes that hold already what arrived: of the instance, and of its snapshots by name."""

    id: str
    snapshots: Mapping[str, str]


class Renewals(Refreshing):
    """The volumes of the new snapshots are there before it begins."""

    def __init__(self, host: Host, policy: Policy, claims: Claims) -> None:
        super().__init__(host, claims, KIND, new="make")
        self._policy = policy

    async def accept(
        self, project: str, name: str, arrived: Arrived, staged: Staged, *, instance_only: bool
    ) -> Operation:
        """Raises: NotFound, Invalid, WrongState when it runs, Busy."""
        input: dict[str, Any] = {"staged": staged.id}

        def change() -> Txn:
            target = self._store.instance(project, name)
            txn = Txn().unchanged(keys.instance(project, name), target.revision)
            input.update(remove=[], make=[])
            if not instance_only:
                self._plan(txn, input, target.record, arrived, staged)
            return txn

        return await self._claims.accept(KIND, "refresh", project, name, change=change, input=input)

    def _plan(
        self, txn: Txn, input: dict[str, Any], target: Instance, arrived: Arrived, staged: Staged
    ) -> None:
        """Raises: WrongState when one is gone from here that was not sent because it was here."""
        has = [entry.record for entry in self._store.instance_snapshots(target)]
        for entry in missing(arrived.snapshots, [(s.name, s.created_at) for s in has]):
            id = staged.snapshots.get(entry.name, "")
            if not id:
                why = "A snapshot was deleted while the instance was refreshed; try again"
                raise WrongState("NOT_STILL", why, about=target.name)
            new = arrivals.snapshot_of(entry, arrived.fingerprint, target, id, name=arrived.instance.name)
            self._policy.admit(Txn(), new.instance, replaces=target)
            txn.put(keys.snapshot(target.id, new.name), new)
            input["make"].append(new.id)
        input["remove"] = self._forget(txn, target, lambda snapshot: _is_sent(snapshot, arrived))

    # --- steps -----------------------------------------------------------------------------------

    async def _root(self, ctx: Context) -> None:
        """Let the volume be the one that arrived, which goes: where it is gone, that was done before."""
        (target, _), staged = self._claims.of(ctx), ctx.input["staged"]
        driver = self._host.driver_of(target.pool)
        if staged in await driver.volumes(target.pool):
            size, folder = self._host.root_size(target), driver.volume(target.pool, staged)
            await driver.replace_volume(target.pool, target.id, folder, size=size)
            await self._host.remove_volume(target.pool, staged)
        await self._host.seed(target, await self._host.lower(target))

    async def _as_before(self, ctx: Context) -> None:
        """Leave the root as it is, the old or the new one."""
        target, _ = self._claims.of(ctx)
        await self._host.remove_volume(target.pool, ctx.input["staged"])
        await super()._as_before(ctx)


def _is_sent(snapshot: Snapshot, arrived: Arrived) -> bool:
    return any(is_same(snapshot.name, snapshot.created_at, entry) for entry in arrived.snapshots)
