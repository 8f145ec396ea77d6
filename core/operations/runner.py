"""Accept operations, run their stories, undo what failed, and pick up after a crash.

One runner per service and member: its store checks the claim (`core.state.claims`) in each commit, so
it alone writes the records of its operations. Acceptance, outcome, results and events are one commit each.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from core.errors import Internal, NotFound, PodiumError, Stale, Unavailable, WrongState, from_exception
from core.events import Event
from core.failpoints import declare, failpoint, publish
from core.logs import get_logger
from core.operations import operation as op_states
from core.operations.history import History
from core.operations.late import Late
from core.operations.operation import Context, Operation, Step, Story
from core.rpc.identity import current_identity
from core.rpc.once import Ticket, accepted_before, new_operation_id, ticket_for
from core.state import codec, keys
from core.state.store import Check, Store, Txn

T = TypeVar("T")
Tell = Callable[[Operation], None]
log = get_logger(__name__)
NOT_ACCEPTED = "NOT_ACCEPTED"
_PROGRESS_EVERY_S = 0.25
_PRUNE_AT_ONCE = 100
_UNDO_PATIENCE_S = 30.0
_STEP_PATIENCE_S = 10.0


class Runner:
    """Runs the operations of one service on one member."""

    def __init__(
        self, store: Store, *, service: str, member: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._service = service
        self._member = member
        self._clock = clock
        self._stories: dict[str, Story] = {}
        self._live: dict[str, Operation] = {}
        self._history = History()
        self._late = Late(self._record_late)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._accepting: set[asyncio.Task[Any]] = set()
        self._told_at: dict[str, float] = {}
        self._ending: dict[str, asyncio.Future[None]] = {}
        self.revisions: dict[str, int] = {}

    def register(self, *stories: Story) -> None:
        for story in stories:
            self._stories[story.kind] = story
            declare(*(f"{story.kind}.{step.name}.{at}" for step in story.steps for at in _points(step)))

    async def start(self) -> None:
        """Resume or undo what a crash left. Call once, after all stories are registered."""
        publish(self._service)
        listing = await _patiently(lambda: self._store.list(keys.OPERATIONS))
        found = [(codec.decode(Operation, kv.value), kv.revision) for kv in listing.kvs]
        for operation, revision in sorted(found, key=lambda pair: pair[0].updated_at):
            if operation.service == self._service and operation.member == self._member:
                self._adopt(operation, revision)
        await self._prune()

    async def stop(self) -> None:
        """Stop working; what runs is left as a crash would leave it, and resumed at the next start."""
        await self._late.stop()
        tasks = [*self._accepting, *self._tasks.values()]
        for task in tasks:
            task.cancel("stopping")
        await asyncio.gather(*tasks, return_exceptions=True)

    def get(self, id: str) -> Operation:
        """Raises: NotFound."""
        found = self._live.get(id) or self._history.find(id)
        if found is None:
            raise NotFound("NO_OPERATION", "Operation not found", about=id)
        return found

    def find(self, id: str) -> Operation | None:
        return self._live.get(id) or self._history.find(id)

    def find_live(self, id: str) -> Operation | None:
        return self._live.get(id)

    @property
    def has_worked(self) -> bool:
        """Whether any operation is recorded; when none is, the state is new, or was lost."""
        return bool(self._live) or len(self._history) > 0

    @property
    def ending(self) -> frozenset[str]:
        """The operations whose outcome is being recorded: who watches them may know it before we do."""
        return frozenset(self._ending)

    def is_ending(self, id: str) -> bool:
        """Say whether the outcome is being recorded: others may read it before this process knows."""
        return id in self._ending

    async def caught_up(self, within_s: float) -> None:
        """Return when no outcome is being recorded that others may have read already, or *within_s*."""
        if self._ending:
            await asyncio.wait(list(self._ending.values()), timeout=within_s)

    def live_of(self, kind: str) -> list[str]:
        """Return the ids of the operations of *kind* that have not ended."""
        return [id for id, operation in self._live.items() if operation.kind == kind]

    async def accept(
        self,
        kind: str,
        *,
        description: str = "",
        project: str = "",
        resources: dict[str, tuple[str, ...]] | None = None,
        input: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        txn: Txn | None = None,
        requestor: dict[str, str] | None = None,
        wait: bool = False,
        id: str = "",
    ) -> Operation:
        """Record the operation together with *txn* in one commit, then run its story.

        *description* is told instead of the story's. With *wait* the answer is the final record.
        A caller that is cancelled stops nothing.

        Raises:
            Stale: a check of *txn* failed.
            AlreadyExists: the request was accepted before (see core.rpc.once).
        """
        story = self._stories[kind]
        words = description or story.description
        operation = self._new(kind, words, project, resources, metadata, input, requestor, id)
        operation = replace(operation, state=op_states.RUNNING, may_cancel=story.may_cancel)
        task = await asyncio.shield(self._detached(self._begin(story, operation, txn)))
        if wait:
            await asyncio.wait([task])
            return self.get(operation.id)
        return operation

    async def open(
        self,
        kind: str,
        description: str,
        *,
        op_class: str,
        project: str = "",
        resources: dict[str, tuple[str, ...]] | None = None,
        metadata: dict[str, Any] | None = None,
        input: dict[str, Any] | None = None,
        txn: Txn | None = None,
        requestor: dict[str, str] | None = None,
        may_cancel: bool = False,
        id: str = "",
    ) -> Operation:
        """Record an operation without steps (channel or token); end it with finish() or fail().

        A caller that is cancelled leaves a token, or an operation that ends by itself.
        """
        operation = self._new(kind, description, project, resources, metadata, input, requestor, id)
        operation = replace(operation, op_class=op_class, state=op_states.RUNNING, may_cancel=may_cancel)
        recording = self._detached(self._record(operation, txn))
        try:
            await asyncio.shield(recording)
        except asyncio.CancelledError:
            recording.add_done_callback(lambda _: self._abandon(operation))
            raise
        return operation

    def begin(
        self,
        kind: str,
        description: str,
        *,
        project: str = "",
        resources: dict[str, tuple[str, ...]] | None = None,
        metadata: dict[str, Any] | None = None,
        id: str = "",
    ) -> Operation:
        """Open a channel that is recorded when it lasts, or ends; see core.operations.late.

        The caller sees to it that its client hears of begin and end by another way.
        """
        operation = self._new(kind, description, project, resources, metadata, None, None, id)
        operation = replace(operation, op_class=op_states.CHANNEL, state=op_states.RUNNING)
        self._live[operation.id] = operation
        self._late.add(operation)
        return operation

    async def finish(
        self,
        id: str,
        *,
        metadata: dict[str, Any] | None = None,
        txn: Txn | None = None,
        before: Tell | None = None,
    ) -> None:
        """End an open operation well; *before* is told the outcome first. Ended ones stay as they are."""
        await self._end(id, op_states.SUCCEEDED, metadata or {}, None, txn, before)

    async def fail(
        self,
        id: str,
        error: PodiumError,
        *,
        metadata: dict[str, Any] | None = None,
        txn: Txn | None = None,
        before: Tell | None = None,
    ) -> None:
        """End an open operation with *error*; else as finish()."""
        await self._end(id, op_states.FAILED, metadata or {}, error, txn, before)

    async def cancel(self, id: str) -> Operation:
        """Ask for an end. Raises: NotFound, WrongState when it cannot be cancelled (any more)."""
        operation = self.get(id)
        if operation.is_final:
            raise WrongState("NOT_RUNNING", "Only running operations can be cancelled", about=id)
        if not operation.may_cancel:
            raise WrongState("NOT_CANCELLABLE", "This operation can't be cancelled", about=id)
        task = self._tasks.get(id)
        if task is None:
            await self._end(id, op_states.CANCELLED, {}, None, None)
            return self.get(id)
        await self._change(replace(operation, state=op_states.CANCELLING))
        task.cancel("cancelled")
        return self.get(id)

    async def wait(self, id: str) -> Operation:
        """Return the final record of an operation that runs here."""
        task = self._tasks.get(id)
        if task:
            await asyncio.wait([task])
        return self.get(id)

    # --- running -------------------------------------------------------------------------------

    def _new(
        self,
        kind: str,
        description: str,
        project: str,
        resources: dict[str, tuple[str, ...]] | None,
        metadata: dict[str, Any] | None,
        input: dict[str, Any] | None,
        requestor: dict[str, str] | None,
        id: str,
    ) -> Operation:
        now, id = self._clock(), id or new_operation_id()
        ticket = ticket_for(id)
        return Operation(
            id=id,
            request_digest=ticket.digest if ticket else "",
            service=self._service,
            member=self._member,
            kind=kind,
            description=description,
            project=project,
            resources=resources or {},
            metadata=metadata or {},
            input=input or {},
            requestor=requestor if requestor is not None else current_identity().as_dict(),
            created_at=now,
            updated_at=now,
        )

    def _detached(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Let *work* go on without its caller, whom gRPC may cancel after the state took the write."""
        # Owned by the runner until stop().
        task = asyncio.create_task(work)
        self._accepting.add(task)
        task.add_done_callback(self._accepting.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def _begin(self, story: Story, operation: Operation, txn: Txn | None) -> asyncio.Task[None]:
        await self._record(operation, txn)
        return self._spawn(operation, self._run(story, operation))

    def _abandon(self, operation: Operation) -> None:
        """End what was opened for a caller that left; where the write is in doubt, others see to that."""
        is_free = operation.id in self._live and operation.id not in self._tasks
        if is_free and operation.op_class != op_states.TOKEN:
            error = Unavailable("CALLER_LEFT", "The connection to the service was lost; try again")
            self._spawn(operation, self.fail(operation.id, error))

    async def _record(self, operation: Operation, txn: Txn | None) -> None:
        key, ticket = keys.operation(operation.id), ticket_for(operation.id)
        whole = (txn or Txn()).absent(key).put(key, operation)
        if ticket:
            ticket.is_used = True  # what the story accepts in turn is not what was asked for
        try:
            self.revisions[operation.id] = await self._store.commit(_stamped(whole, self._clock()))
        except Stale:
            if ticket:
                await self._refuse_second(ticket)
            raise
        except Unavailable:
            # The answer was lost, the write perhaps not: until that is known it owns what it is about.
            self._live[operation.id] = operation
            self._spawn(operation, self._settle_doubt(operation, whole))
            raise
        self._live[operation.id] = operation

    async def _record_late(self, operation: Operation) -> None:
        key = keys.operation(operation.id)
        try:
            revision = await _patiently(lambda: self._store.commit(Txn().absent(key).put(key, operation)))
        except Stale:  # an earlier try was carried out, and its answer lost
            found = await _patiently(partial(self._store.get, key))
            assert found
            revision = found.revision
        self.revisions[operation.id] = revision

    async def _refuse_second(self, ticket: Ticket) -> None:
        """Raises: AlreadyExists when *ticket* was used by an earlier try of the same request."""
        if await self._store.get(keys.operation(ticket.operation_id)):
            raise accepted_before(ticket.operation_id)
        ticket.is_used = False

    async def _settle_doubt(self, operation: Operation, wanted: Txn) -> None:
        """Find out whether *operation* was recorded, and then run it; else see that it never will be."""
        key = keys.operation(operation.id)
        error = Unavailable(NOT_ACCEPTED, "The state store did not answer in time; nothing was done")
        never = _ended(operation, op_states.FAILED, {}, error, self._clock())
        # Whichever of the two writes comes first keeps the other out: both want the key absent.
        with contextlib.suppress(Stale):
            await self._commit_patiently(Txn().absent(key).put(key, never), operation.id)
        found = await _patiently(partial(self._store.get, key))
        assert found
        recorded = codec.decode(Operation, found.value)
        revision = found.revision
        if not recorded.is_final:
            revision = await self._write_again(wanted, revision)
        self._live.pop(operation.id, None)
        self._adopt(recorded, revision)

    async def _write_again(self, wanted: Txn, revision: int) -> int:
        """Repeat what was written at *revision*: our store puts into its caches only what it wrote.

        Returns the revision at which it is written now.
        """
        again = Txn(puts=wanted.puts, deletes=wanted.deletes)
        for key in wanted.puts:
            again.unchanged(key, revision)
        try:
            return await _patiently(lambda: self._store.commit(again))
        except Stale:
            return revision

    def _spawn(self, operation: Operation, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # Owned by the runner: it outlives the request that asked for it and ends in stop().
        task = asyncio.create_task(work, name=f"operation {operation.id}")
        self._tasks[operation.id] = task
        task.add_done_callback(lambda _: self._ended_task(operation.id, task))
        return task

    def _ended_task(self, id: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(id) is task:
            del self._tasks[id]

    async def _run(self, story: Story, operation: Operation) -> None:
        context = Context(operation, lambda metadata: self._progress(operation.id, metadata))
        started: list[Step] = []
        try:
            for step in story.steps:
                started.append(step)
                failpoint(f"{story.kind}.{step.name}.before")
                await self._do(step, context)
                failpoint(f"{story.kind}.{step.name}.after")
            await self._end(operation.id, op_states.SUCCEEDED, context.results, None, context.txn)
        except asyncio.CancelledError as exc:
            if exc.args != ("cancelled",):
                raise
            await self._undo(story, context, started, None)
        except PodiumError as exc:
            await self._undo(story, context, started, exc)
        except Exception as exc:
            log.exception("operation_crashed", operation=operation.id, kind=story.kind)
            await self._undo(story, context, started, from_exception(exc))

    async def _do(self, step: Step, context: Context) -> None:
        """Do one step, again for a while when another service is away: it will be back."""
        end = time.monotonic() + _STEP_PATIENCE_S
        while True:
            try:
                await step.do(context)
                return
            except Unavailable:
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.1)

    async def _undo(
        self, story: Story, context: Context, started: list[Step], error: PodiumError | None
    ) -> None:
        for step in reversed(started):
            if step.undo:
                await self._undo_step(story, step, context)
        if story.on_failure:
            await story.on_failure(context)
        state = op_states.FAILED if error else op_states.CANCELLED
        await self._end(context.operation.id, state, context.results, error, context.undo_txn)

    async def _undo_step(self, story: Story, step: Step, context: Context) -> None:
        """Undo one step; a service that is away is waited for, since it will be back."""
        assert step.undo
        end = time.monotonic() + _UNDO_PATIENCE_S
        while True:
            try:
                failpoint(f"{story.kind}.{step.name}.undo")
                await step.undo(context)
                return
            except Unavailable as exc:
                if time.monotonic() > end:
                    log.error("undo_gave_up", operation=context.operation.id, step=step.name, error=str(exc))
                    return
                await asyncio.sleep(0.2)
            except Exception:
                # The reconciler removes what this leaves; the other undos must still run.
                log.exception("undo_failed", operation=context.operation.id, step=step.name)
                return

    # --- recording -----------------------------------------------------------------------------

    async def _progress(self, id: str, metadata: dict[str, Any]) -> None:
        now = time.monotonic()
        if now - self._told_at.get(id, 0.0) < _PROGRESS_EVERY_S:
            return
        self._told_at[id] = now
        operation = self._live[id]
        with contextlib.suppress(Unavailable):
            await self._change(replace(operation, metadata={**operation.metadata, **metadata}))

    async def _change(self, operation: Operation) -> None:
        operation = replace(operation, updated_at=self._clock())
        txn = Txn().put(keys.operation(operation.id), operation)
        self.revisions[operation.id] = await self._store.commit(txn)
        self._live[operation.id] = operation

    async def _end(
        self,
        id: str,
        state: str,
        metadata: dict[str, Any],
        error: PodiumError | None,
        txn: Txn | None,
        before: Tell | None = None,
    ) -> None:
        operation = self._live.get(id)
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
            await self._commit_patiently(_stamped(whole, self._clock()), id)
        except Stale as exc:
            log.warning("operation_outcome_stale", operation=id, error=str(exc))
            final = _ended(operation, op_states.FAILED, metadata, exc, self._clock())
            await self._commit_patiently(Txn().put(keys.operation(id), final), id)
        finally:
            self._ending.pop(id, None)
            known.set_result(None)  # who waits for it goes on after the lines below
        self._live.pop(id, None)
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
                self.revisions[id] = await _patiently(partial(self._store.commit, guarded))
                has_ended = True
            except Stale:
                found = await _patiently(partial(self._store.get, key))
                has_ended = found is not None and found.value == txn.puts[key]
                if found is None or (found.revision == seen and not has_ended):
                    raise  # it is not the operation that differs
                self.revisions[id] = found.revision

    # --- after a crash -------------------------------------------------------------------------

    def _adopt(self, operation: Operation, revision: int) -> None:
        if operation.is_final:
            self._history.add(operation)
            return
        self._live[operation.id] = operation
        self.revisions[operation.id] = revision
        if operation.op_class == op_states.TOKEN:
            return
        story = self._stories.get(operation.kind)
        if story is None or operation.op_class == op_states.CHANNEL:
            error = Unavailable("SERVICE_RESTARTED", "The service was restarted meanwhile; try again")
            self._spawn(operation, self.fail(operation.id, error))
        elif operation.state == op_states.CANCELLING or not story.resumable:
            self._spawn(operation, self._undo_all(story, operation))
        else:
            log.info("operation_resumed", operation=operation.id, kind=operation.kind)
            self._spawn(operation, self._run(story, operation))

    async def _undo_all(self, story: Story, operation: Operation) -> None:
        context = Context(operation, lambda metadata: self._progress(operation.id, metadata))
        error: PodiumError | None = None
        if operation.state != op_states.CANCELLING:
            error = Internal("INTERRUPTED", "Interrupted by a restart and undone; try again")
        await self._undo(story, context, list(story.steps), error)

    async def _prune(self) -> None:
        """Delete records of operations that ended long ago."""
        while expired := self._history.take_expired(self._clock(), most=_PRUNE_AT_ONCE):
            txn = Txn()
            for id in expired:
                txn.delete(keys.operation(id))
            await self._store.commit(txn)


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Return what *call* does, tried again for as long as etcd is away."""
    pause_s = 0.1
    while True:
        try:
            return await call()
        except Unavailable:
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, 2.0)


def _points(step: Step) -> tuple[str, ...]:
    return ("before", "after", "undo") if step.undo else ("before", "after")


def _ended(
    operation: Operation,
    state: str,
    metadata: dict[str, Any],
    error: PodiumError | None,
    now: float,
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


def _stamped(txn: Txn, now: float) -> Txn:
    """Give events without a time the time of their commit."""
    txn.events = [event if event.time else _at(event, now) for event in txn.events]
    return txn


def _at(event: Event, now: float) -> Event:
    return replace(event, time=now)
