"""One operation per custom volume at a time: the record of the volume names the one that owns it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from core.errors import Busy, NotFound, WrongState
from core.events import Event
from core.operations.operation import Context, Operation
from core.operations.runner import Runner
from core.records import Volume
from core.rpc.identity import current_identity
from core.rpc.once import new_operation_id
from core.state import keys
from core.state.repository import Entry
from core.state.store import Txn
from services.runtime.store import RuntimeStore

_ENDING_S = 2.0


def key_of(volume: Volume) -> str:
    return keys.volume(volume.pool, volume.project, volume.name)


def event(
    action: str, volume: Volume, ctx: Context | None = None, *, part: str = "", **context: str
) -> Event:
    """Return what is told of a volume, or of its *part* "snapshots/NAME", on behalf of who asked."""
    who = ctx.operation.requestor if ctx else current_identity().as_dict()
    kind = f"storage-pools/{volume.pool}/volumes/custom"
    if action.endswith("-created"):
        context = {"type": "custom", **context}
    name = f"{volume.name}/{part}" if part else volume.name
    return Event(action, kind, volume.project, name, who, context)


class VolumeClaims:
    """Accepts operations on custom volumes."""

    def __init__(self, store: RuntimeStore, runner: Runner) -> None:
        self.store = store
        self.runner = runner

    async def free(self, find: Callable[[], Entry[Volume]]) -> Entry[Volume]:
        """Return the volume that *find* finds once nothing works on it. Raises: Busy, WrongState."""
        await self.caught_up(find())
        entry = find()
        volume, name = entry.record, entry.record.name
        if volume.operation and self.runner.find_live(volume.operation):
            raise Busy("BUSY", f"The storage volume {name!r} is busy; try again", about=name)
        if volume.status == "Pending":
            raise WrongState("NOT_READY", f"The storage volume {name!r} is being made", about=name)
        return entry

    async def caught_up(self, *entries: Entry[Volume]) -> None:
        """Return when no outcome about them is being recorded: the caller may have read it already."""
        for entry in entries:
            if entry.record.operation in self.runner.ending:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_ENDING_S):
                        await self.runner.wait(entry.record.operation)

    async def accept(
        self,
        kind: str,
        volume: Volume,
        txn: Txn,
        *,
        others: Sequence[Entry[Volume]] = (),
        input: dict[str, Any] | None = None,
        wait: bool = False,
    ) -> Operation:
        """Record *volume* as owned by a new operation, and *others* with it, in one commit with *txn*.

        Raises: Stale when a check of *txn* failed.
        """
        id = new_operation_id()
        txn.put(key_of(volume), replace(volume, operation=id))
        for other in others:
            record = other.record
            txn.unchanged(key_of(record), other.revision).put(key_of(record), replace(record, operation=id))
        owned = [volume.id, *(other.record.id for other in others)]
        return await self.runner.accept(
            kind,
            id=id,
            project=volume.project,
            resources={"storage_volumes": (volume.name,)},
            input={**(input or {}), "volume": volume.id, "owned": owned},
            txn=txn,
            wait=wait,
        )

    def of(self, ctx: Context) -> Volume:
        """Return the volume that an operation is about, whatever it is called by now. Raises: NotFound."""
        return self.by_id(ctx.input["volume"])

    def by_id(self, id: str) -> Volume:
        for entry in self.store.volumes.entries():
            if entry.record.id == id:
                return entry.record
        raise NotFound("NO_VOLUME", "Storage pool volume not found")

    def settle(self, ctx: Context, txn: Txn, volume: Volume | None, *, without: Volume | None = None) -> None:
        """Put into *txn* what the volume is once its operation is over, and let go of the others."""
        if volume:
            txn.put(key_of(volume), replace(volume, operation=""))
        let_go = set(ctx.input["owned"]) - {ctx.input["volume"], without.id if without else ""}
        for record in [entry.record for entry in self.store.volumes.entries()]:
            if record.id in let_go:
                txn.put(key_of(record), replace(record, operation=""))
