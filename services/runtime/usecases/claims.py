"""One operation per instance at a time: the observed record names the one that owns it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from core.errors import Busy, Stale, Unavailable
from core.operations.operation import Context, Operation
from core.operations.runner import Runner
from core.records import Instance, InstanceObserved
from core.rpc.once import new_operation_id
from core.state import keys
from core.state.repository import Entry
from core.state.store import Txn
from services.runtime.domain import lifecycle
from services.runtime.store import RuntimeStore

_ATTEMPTS = 40
_PAUSE_S = 0.02
_ENDING_S = 2.0
# Done in a moment on their own; who comes meanwhile waits instead of hearing that it is busy.
_QUICK = ("snapshot.", "instance.update", "instance.exit")
_QUICK_S = 30.0
_LOOK_S = 0.25


class Claims:
    """Accepts operations on existing instances."""

    def __init__(self, store: RuntimeStore, runner: Runner) -> None:
        self.store = store
        self.runner = runner

    async def accept(
        self,
        kind: str,
        event: str,
        project: str,
        name: str,
        *,
        input: dict[str, Any] | None = None,
        change: Txn | Callable[[], Txn] | None = None,
        resources: dict[str, tuple[str, ...]] | None = None,
        wait: bool = False,
    ) -> Operation:
        """Take the instance for a new operation, in one commit with *change* and the operation.

        A function is asked for its change anew at each try: for checks (of Policy) whose answer may be
        another one by then. What it decides, it may put into *input*.

        Raises: NotFound, WrongState, Busy when another operation has it, Unavailable.
        """
        for _ in range(_ATTEMPTS):
            entry = self.store.instance(project, name)
            self.runner.require_own(entry.record.member, f"Instance {name!r}")
            observed = self.store.observed_of(entry.record)
            if await self._ends_just_now(observed.record) or await self._ends_soon(observed.record):
                continue
            self._refuse_owned(entry, observed.record, event)
            state = lifecycle.after(observed.record.status, event, name)
            id = new_operation_id()
            key = keys.observed(entry.record.id)
            txn = Txn().unchanged(key, observed.revision)
            txn.put(key, replace(observed.record, status=state, operation=id))
            try:
                new = change() if callable(change) else change
                txn.merge(new) if new else txn.exists(keys.instance(project, name))
                whole = {**(input or {}), "id": entry.record.id, "project": project, "name": name}
                whole["before"] = observed.record.status
                return await self.runner.accept(
                    kind,
                    id=id,
                    project=project,
                    resources=resources or {"instances": (name,)},
                    input=whole,
                    txn=txn,
                    wait=wait,
                )
            except Stale:
                await asyncio.sleep(_PAUSE_S)
        raise Busy("BUSY", f"Instance {name!r} is busy with another operation; try again", about=name)

    async def caught_up(self, project: str, name: str) -> None:
        """Return when no outcome about *name* is being recorded: the caller may have read it already."""
        if entry := self.store.instances.get(keys.instance(project, name)):
            with contextlib.suppress(Unavailable):
                await self._ends_just_now(self.store.observed_of(entry.record).record)

    async def all_caught_up(self) -> None:
        """Return when no outcome is being recorded that was begun before: see caught_up()."""
        if ending := self.runner.ending:
            with contextlib.suppress(TimeoutError, Unavailable):
                async with asyncio.timeout(_ENDING_S):
                    await asyncio.gather(*(self._ended(id, _ENDING_S) for id in ending))

    async def _ends_just_now(self, observed: InstanceObserved) -> bool:
        """Wait for an owner whose outcome is being recorded: a client may have read it before we know."""
        if observed.operation not in self.runner.ending:
            return False
        return await self._ended(observed.operation, _ENDING_S)

    async def _ended(self, operation_id: str, within_s: float) -> bool:
        """Say whether it ends in time. Raises: Unavailable without a state store, when nothing can end."""
        for _ in range(round(within_s / _LOOK_S)):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self.runner.wait(operation_id)
                    return True
            await self.store.get(keys.operation(operation_id))
        return False

    async def _ends_soon(self, observed: InstanceObserved) -> bool:
        live = self.runner.find_live(observed.operation) if observed.operation else None
        if live is None or not live.kind.startswith(_QUICK):
            return False
        return await self._ended(observed.operation, _QUICK_S)

    def _refuse_owned(self, entry: Entry[Instance], observed: InstanceObserved, event: str) -> None:
        """Raises: Busy in LXD's words."""
        if operation := self.runner.find_live(observed.operation) if observed.operation else None:
            other = operation.kind.rpartition(".")[2]
            why = (
                f'Failed to create instance {event} operation: Instance is busy running a "{other}" operation'
            )
            raise Busy("BUSY", why, about=entry.record.name)

    def of(self, ctx: Context) -> tuple[Instance, InstanceObserved]:
        """Return the records of the instance an operation owns, wherever it was renamed to."""
        id = ctx.input["id"]
        if found := self.store.find_instance(id):
            return found, self.store.observed_of(found).record
        return Instance(id=id, project=ctx.input["project"], name=ctx.input["name"]), InstanceObserved(id=id)

    def settle(self, ctx: Context, txn: Txn, observed: InstanceObserved, **changes: Any) -> None:
        """Put into *txn* what the instance is once its operation is over."""
        settled = replace(observed, operation="", **{"message": "", **changes})
        txn.put(keys.observed(observed.id), settled)
