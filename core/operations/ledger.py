"""The records of one service's operations: accepted, changed and ended, one commit each.

The store checks the claim (`core.state.claims`) in every commit, so a ledger alone writes the records of
its operations. It runs nothing: what an operation does is the runner's.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from core.errors import PodiumError, Stale, Unavailable
from core.logs import get_logger
from core.operations import operation as op_states
from core.operations.history import History
from core.operations.late import Late
from core.operations.operation import Operation
from core.rpc.once import Ticket, accepted_before, ticket_for
from core.state import codec, keys
from core.state.store import Check, Store, Txn

T = TypeVar("T")
Tell = Callable[[Operation], None]
log = get_logger(__name__)
NOT_ACCEPTED = "NOT_ACCEPTED"
_PROGRESS_EVERY_S = 0.25
_PRUNE_AT_ONCE = 100


class Ledger:
    """live: those that have not ended. revisions: at which each one that is in memory was last written."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._history = History()
        self._late = Late(self._record_late)
        self._told_at: dict[str, float] = {}
        self._ending: dict[str, asyncio.Future[None]] = {}
        self.live: dict[str, Operation] = {}
        self.revisions: dict[str, int] = {}

    def find(self, id: str) -> Operation | None:
        return self.live.get(id) or self._history.find(id)

    @property
    def has_any(self) -> bool:
        return bool(self.live) or len(self._history) > 0

    @property
    def ending(self) -> frozenset[str]:
        """The operations whose outcome is being recorded: who watches them may know it before we do."""
        return frozenset(self._ending)

    async def caught_up(self, within_s: float) -> None:
        """Return when no outcome is being recorded that others may have read already, or *within_s*."""
        if self._ending:
            await asyncio.wait(list(self._ending.values()), timeout=within_s)

    async def recorded(self) -> list[tuple[Operation, int]]:
        """Return all operations of all services with their revisions, the oldest change first."""
        listing = await patiently(lambda: self._store.list(keys.OPERATIONS))
        found = [(codec.decode(Operation, kv.value), kv.revision) for kv in listing.kvs]
        return sorted(found, key=lambda pair: pair[0].updated_at)

    def adopt(self, operation: Operation, revision: int) -> None:
        """Take over what was recorded before."""
        if operation.is_final:
            self._history.add(operation)
        else:
            self.live[operation.id] = operation
            self.revisions[operation.id] = revision

    async def record(self, operation: Operation, whole: Txn) -> None:
        """Accept *operation* by committing *whole*, which acceptance() returned.

        Raises:
            Stale: a check of it failed.
            AlreadyExists: the request was accepted before (see core.rpc.once).
            Unavailable: nothing was written; or the answer was lost, the write perhaps not: then the
                operation is live, and settle_doubt() has to follow.
        """
        ticket = ticket_for(operation.id)
        if ticket:
            ticket.is_used = True  # what the story accepts in turn is not what was asked for
        try:
            self.revisions[operation.id] = await self._store.commit(whole)
        except Stale:
            if ticket:
                await self._refuse_second(ticket)
            raise
        except Unavailable:
            # Until it is known what was written it owns what it is about.
            self.live[operation.id] = operation
            raise
        self.live[operation.id] = operation

    def begin(self, operation: Operation) -> None:
        """Take in one that is recorded when it lasts, or ends."""
        self.live[operation.id] = operation
        self._late.add(operation)

    async def stop(self) -> None:
        await self._late.stop()

    async def _record_late(self, operation: Operation) -> None:
        key = keys.operation(operation.id)
        try:
            revision = await patiently(lambda: self._store.commit(Txn().absent(key).put(key, operation)))
        except Stale:  # an earlier try was carried out, and its answer lost
            found = await patiently(partial(self._store.get, key))
            assert found
            revision = found.revision
        self.revisions[operation.id] = revision

    async def _refuse_second(self, ticket: Ticket) -> None:
        """Raises: AlreadyExists when *ticket* was used by an earlier try of the same request."""
        if await self._store.get(keys.operation(ticket.operation_id)):
            raise accepted_before(ticket.operation_id)
        ticket.is_used = False

    async def settle_doubt(self, operation: Operation, whole: Txn) -> tuple[Operation, int]:
        """Find out whether *operation* was recorded, or see that it never will be.

        Returns what is recorded, and its revision; it is for the caller to adopt.
        """
        key = keys.operation(operation.id)
        error = Unavailable(NOT_ACCEPTED, "The state store did not answer in time; nothing was done")
        never = _ended(operation, op_states.FAILED, {}, error, self._clock())
        # Whichever of the two writes comes first keeps the other out: both want the key absent.
        with contextlib.suppress(Stale):
            await self._commit_patiently(Txn().absent(key).put(key, never), operation.id)
        found = await patiently(partial(self._store.get, key))
        assert found
        recorded, revision = codec.decode(Operation, found.value), found.revision
        if not recorded.is_final:
            revision = await self._write_again(whole, revision)
        self.live.pop(operation.id, None)
        return recorded, revision

    async def _write_again(self, wanted: Txn, revision: int) -> int:
        """Repeat what was written at *revision*: our store puts into its caches only what it wrote.

        Returns the revision at which it is written now.
        """
        again = Txn(puts=wanted.puts, deletes=wanted.deletes)
        for key in wanted.puts:
            again.unchanged(key, revision)
        try:
            return await patiently(lambda: self._store.commit(again))
        except Stale:
            return revision

    async def progress(self, id: str, metadata: dict[str, Any]) -> None:
        """Record *metadata* beside what is there, unless that was done a moment ago or etcd is away."""
        now = time.monotonic()
        if now - self._told_at.get(id, 0.0) < _PROGRESS_EVERY_S:
            return
        self._told_at[id] = now
        operation = self.live[id]
        with contextlib.suppress(Unavailable):
            await self.change(replace(operation, metadata={**operation.metadata, **metadata}))

    async def change(self, operation: Operation) -> None:
        operation = replace(operation, updated_at=self._clock())
        txn = Txn().put(keys.operation(operation.id), operation)
        self.revisions[operation.id] = await self._store.commit(txn)
        self.live[operation.id] = operation

    async def end(
        self,
        id: str,
        state: str,
        metadata: dict[str, Any],
        error: PodiumError | None,
        txn: Txn | None,
        before: Tell | None = None,
    ) -> None:
        """Tell *before* the outcome and record it together with *txn*. Those that ended stay as they are."""
        operation = self.live.get(id)
        if operation is None:
            return
        final = _ended(operation, state, metadata, error, self._clock())
        if before:
            before(final)
        whole = (txn or Txn()).put(keys.operation(id), final)
        if await self._late.settle(id):
            whole.absent(keys.operation(id))
        for expired in self._history.take_expired(self._clock()):
            whole.delete(keys.operation(expired))
        known = self._ending[id] = asyncio.get_running_loop().create_future()
        try:
            await self._commit_patiently(whole, id)
        except Stale as exc:
            log.warning("operation_outcome_stale", operation=id, error=str(exc))
            final = _ended(operation, op_states.FAILED, metadata, exc, self._clock())
            await self._commit_patiently(Txn().put(keys.operation(id), final), id)
        finally:
            self._ending.pop(id, None)
            known.set_result(None)  # who waits for it goes on after the lines below
        self.live.pop(id, None)
        self._told_at.pop(id, None)
        for forgotten in self._history.add(final):
            self.revisions.pop(forgotten, None)

    async def _commit_patiently(self, txn: Txn, id: str) -> None:
        """Commit, however long etcd is away: an outcome must not be lost, nor be written a second time.

        Each try wants the operation as this process last saw it. So a try that is carried out late, or
        one after a try whose answer got lost, cannot undo what others have done since.
        """
        key, has_ended = keys.operation(id), False
        while not has_ended:
            seen = self.revisions.get(id, 0)
            guarded = replace(txn, checks=[*txn.checks, Check("unchanged", key, seen)]) if seen else txn
            try:
                self.revisions[id] = await patiently(partial(self._store.commit, guarded))
                has_ended = True
            except Stale:
                found = await patiently(partial(self._store.get, key))
                has_ended = found is not None and found.value == txn.puts[key]
                if found is None or (found.revision == seen and not has_ended):
                    raise  # it is not the operation that differs
                self.revisions[id] = found.revision

    async def prune(self) -> None:
        """Delete records of operations that ended long ago."""
        while expired := self._history.take_expired(self._clock(), most=_PRUNE_AT_ONCE):
            txn = Txn()
            for id in expired:
                txn.delete(keys.operation(id))
            await self._store.commit(txn)


def acceptance(operation: Operation, txn: Txn | None) -> Txn:
    """Return what accepts *operation* together with *txn*."""
    key = keys.operation(operation.id)
    return (txn or Txn()).absent(key).put(key, operation)


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Return what *call* does, tried again for as long as etcd is away."""
    pause_s = 0.1
    while True:
        try:
            return await call()
        except Unavailable:
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, 2.0)


def _ended(
    operation: Operation, state: str, metadata: dict[str, Any], error: PodiumError | None, now: float
) -> Operation:
    ended = replace(
        operation,
        state=state,
        may_cancel=False,
        metadata={**operation.metadata, **metadata},
        updated_at=now,
        input={},
    )
    if error is None:
        return ended
    return replace(
        ended,
        error_kind=error.kind.wire,
        error_reason=error.reason,
        error_message=error.message,
        error_about=error.about,
    )
