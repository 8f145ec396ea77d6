"""Accept operations, run their stories, undo what failed, and pick up after a crash.

One runner per service and member. What is written of operations, and when, is the ledger's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from core.errors import Internal, NotFound, PodiumError, Unavailable, WrongState, from_exception
from core.failpoints import declare, failpoint, publish
from core.logs import get_logger
from core.membership import is_here
from core.operations import operation as op_states
from core.operations.ledger import Ledger, Tell, acceptance
from core.operations.operation import Context, Operation, Step, Story
from core.rpc.identity import current_identity
from core.rpc.once import new_operation_id, ticket_for
from core.state.store import Store, Txn
from core.tasks import nothing

T = TypeVar("T")
log = get_logger(__name__)
_UNDO_PATIENCE_S = 30.0
_STEP_PATIENCE_S = 10.0


class Runner:
    """Runs the operations of one service on one member."""

    def __init__(
        self, store: Store, *, service: str, member: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._ledger = Ledger(store, clock)
        self._service = service
        self._member = member
        self._clock = clock
        self._stories: dict[str, Story] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._accepting: set[asyncio.Task[Any]] = set()

    def register(self, *stories: Story) -> None:
        for story in stories:
            self._stories[story.kind] = story
            declare(*(f"{story.kind}.{step.name}.{at}" for step in story.steps for at in _points(step)))

    async def start(self) -> None:
        """Resume or undo what a crash left. Call once, after all stories are registered."""
        publish(self._service)
        for operation, revision in await self._ledger.recorded():
            if operation.service == self._service and operation.member == self._member:
                self._adopt(operation, revision)
        await self._ledger.prune()

    async def stop(self) -> None:
        """Stop working; what runs is left as a crash would leave it, and resumed at the next start."""
        await self._ledger.stop()
        tasks = [*self._accepting, *self._tasks.values()]
        for task in tasks:
            task.cancel("stopping")
        await asyncio.gather(*tasks, return_exceptions=True)

    def get(self, id: str) -> Operation:
        """Raises: NotFound."""
        found = self.find(id)
        if found is None:
            raise NotFound("NO_OPERATION", "Operation not found", about=id)
        return found

    def find(self, id: str) -> Operation | None:
        return self._ledger.find(id)

    def is_own(self, member: str) -> bool:
        """Return whether what a record says to be on *member* is on this one."""
        return is_here(member, self._member)

    def require_own(self, member: str, what: str) -> None:
        """Raises: Unavailable for what is another member's, as a caller that knows late may not."""
        if not self.is_own(member):
            raise Unavailable("ELSEWHERE", f"{what} is on member {member!r}; try again", about=member)

    def find_live(self, id: str) -> Operation | None:
        return self._ledger.live.get(id)

    @property
    def has_worked(self) -> bool:
        """Whether any operation is recorded; when none is, the state is new, or was lost."""
        return self._ledger.has_any

    @property
    def revisions(self) -> dict[str, int]:
        """At which the operations that are in memory were last written."""
        return self._ledger.revisions

    @property
    def ending(self) -> frozenset[str]:
        """The operations whose outcome is being recorded: who watches them may know it before we do."""
        return self._ledger.ending

    async def caught_up(self, within_s: float) -> None:
        """Return when no outcome is being recorded that others may have read already, or *within_s*."""
        await self._ledger.caught_up(within_s)

    def live_of(self, kind: str) -> list[str]:
        """Return the ids of the operations of *kind* that have not ended."""
        return [id for id, operation in self._ledger.live.items() if operation.kind == kind]

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
        if_refused: Callable[[], Awaitable[None]] = nothing,
    ) -> Operation:
        """Record the operation together with *txn* in one commit, then run its story.

        *description* is told instead of the story's. With *wait* the answer is the final record.
        *if_refused* takes back what lies ready for the story, once it is certain that it will not run.
        A caller that is cancelled stops nothing.

        Raises:
            Stale: a check of *txn* failed.
            AlreadyExists: the request was accepted before (see core.rpc.once).
        """
        story = self._stories[kind]
        words = description or story.description
        operation = self._new(kind, words, project, resources, metadata, input, requestor, id)
        operation = replace(operation, state=op_states.RUNNING, may_cancel=story.may_cancel)
        task = await asyncio.shield(self._detached(self._begin(story, operation, txn, if_refused)))
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
        self._ledger.begin(operation)
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
        await self._ledger.end(id, op_states.SUCCEEDED, metadata or {}, None, txn, before)

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
        await self._ledger.end(id, op_states.FAILED, metadata or {}, error, txn, before)

    async def cancel(self, id: str) -> Operation:
        """Ask for an end. Raises: NotFound, WrongState when it cannot be cancelled (any more)."""
        operation = self.get(id)
        if operation.is_final:
            raise WrongState("NOT_RUNNING", "Only running operations can be cancelled", about=id)
        if not operation.may_cancel:
            raise WrongState("NOT_CANCELLABLE", "This operation can't be cancelled", about=id)
        task = self._tasks.get(id)
        if task is None:
            await self._ledger.end(id, op_states.CANCELLED, {}, None, None)
            return self.get(id)
        await self._ledger.change(replace(operation, state=op_states.CANCELLING))
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

    async def _begin(
        self, story: Story, operation: Operation, txn: Txn | None, if_refused: Callable[[], Awaitable[None]]
    ) -> asyncio.Task[None]:
        try:
            await self._record(operation, txn, if_refused)
        except PodiumError:
            if not self.find_live(operation.id):  # else it is in doubt
                await if_refused()
            raise
        return self._spawn(operation, self._run(story, operation))

    def _abandon(self, operation: Operation) -> None:
        """End what was opened for a caller that left; where the write is in doubt, others see to that."""
        is_free = self.find_live(operation.id) and operation.id not in self._tasks
        if is_free and operation.op_class != op_states.TOKEN:
            error = Unavailable("CALLER_LEFT", "The connection to the service was lost; try again")
            self._spawn(operation, self.fail(operation.id, error))

    async def _record(
        self, operation: Operation, txn: Txn | None, if_refused: Callable[[], Awaitable[None]] = nothing
    ) -> None:
        whole = acceptance(operation, txn)
        try:
            await self._ledger.record(operation, whole)
        except Unavailable:
            if self.find_live(operation.id):
                self._spawn(operation, self._settle_doubt(operation, whole, if_refused))
            raise

    async def _settle_doubt(
        self, operation: Operation, whole: Txn, if_refused: Callable[[], Awaitable[None]]
    ) -> None:
        recorded, revision = await self._ledger.settle_doubt(operation, whole)
        self._adopt(recorded, revision)
        if recorded.is_final:
            await if_refused()

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
        context = Context(operation, lambda metadata: self._ledger.progress(operation.id, metadata))
        started: list[Step] = []
        try:
            for step in story.steps:
                started.append(step)
                failpoint(f"{story.kind}.{step.name}.before")
                await self._do(step, context)
                failpoint(f"{story.kind}.{step.name}.after")
            await self._ledger.end(operation.id, op_states.SUCCEEDED, context.results, None, context.txn)
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
        await self._ledger.end(context.operation.id, state, context.results, error, context.undo_txn)

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

    # --- after a crash -------------------------------------------------------------------------

    def _adopt(self, operation: Operation, revision: int) -> None:
        self._ledger.adopt(operation, revision)
        if operation.is_final or operation.op_class == op_states.TOKEN:
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
        context = Context(operation, lambda metadata: self._ledger.progress(operation.id, metadata))
        error: PodiumError | None = None
        if operation.state != op_states.CANCELLING:
            error = Internal("INTERRUPTED", "Interrupted by a restart and undone; try again")
        await self._undo(story, context, list(story.steps), error)


def _points(step: Step) -> tuple[str, ...]:
    return ("before", "after", "undo") if step.undo else ("before", "after")
