"""What an operation is: its record, its states, and the stories and steps it is made of."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from core.errors import Kind, PodiumError, error_of
from core.events import Event
from core.state.store import Txn

PENDING, RUNNING, CANCELLING = "pending", "running", "cancelling"
SUCCEEDED, FAILED, CANCELLED = "succeeded", "failed", "cancelled"
FINAL = frozenset({SUCCEEDED, FAILED, CANCELLED})
TASK, CHANNEL, TOKEN = "task", "channel", "token"


@dataclass(frozen=True)
class Operation:
    """A durable record of something somebody asked for. Writer: the service that accepted it.

    resources: kind of object to names. metadata: results and progress, shown to clients. input: what
    the story needs to run again after a crash, never shown. request_digest: of a request that has a key
    (core.rpc.once), what tells it from others under the same key.
    """

    id: str = ""
    service: str = ""
    member: str = ""
    kind: str = ""
    description: str = ""
    project: str = ""
    op_class: str = TASK
    state: str = PENDING
    resources: dict[str, tuple[str, ...]] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    may_cancel: bool = False
    error_kind: str = ""
    error_reason: str = ""
    error_message: str = ""
    error_about: str = ""
    created_at: float = 0.0
    updated_at: float = 0.0
    requestor: dict[str, str] = field(default_factory=dict)
    input: dict[str, Any] = field(default_factory=dict)
    request_digest: str = ""
    schema: int = 1

    @property
    def is_final(self) -> bool:
        return self.state in FINAL

    @property
    def child_id(self) -> str:
        """The id of the one operation that this one has done for it, so that a crash begins none twice."""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, self.id))

    def error(self) -> PodiumError | None:
        """Return why it failed, as an error of the table; None unless it did."""
        if not self.error_reason:
            return None
        kind = Kind.from_wire(self.error_kind)
        return error_of(kind, self.error_reason, self.error_message, self.error_about)


class Context:
    """What a step sees of its operation.

    `txn` is committed together with SUCCEEDED and `undo_txn` together with FAILED or CANCELLED:
    records and events of the outcome belong there. `scratch` passes values between steps of one run;
    it is empty after a crash, so a step must be able to find them again.
    """

    def __init__(self, operation: Operation, tell: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        self.operation = operation
        self.input: dict[str, Any] = operation.input
        self.scratch: dict[str, Any] = {}
        self.txn = Txn()
        self.undo_txn = Txn()
        self.results: dict[str, Any] = {}
        self._tell = tell

    async def progress(self, **metadata: Any) -> None:
        """Show *metadata* to watchers now (rate-limited); keys ending in _progress are strings."""
        await self._tell(metadata)

    def result(self, **metadata: Any) -> None:
        """Add *metadata* to the final record."""
        self.results.update(metadata)

    def event(self, action: str, kind: str, name: str, **context: str) -> Event:
        """Return an event on behalf of who asked for this operation, to be emitted into a txn."""
        return Event(
            action=action,
            subject_kind=kind,
            project=self.operation.project,
            name=name,
            requestor=self.operation.requestor,
            context=context,
        )


StepFunction = Callable[[Context], Awaitable[None]]


@dataclass(frozen=True)
class Step:
    """One idempotent step. *undo* must cope with a step that did nothing, half or all."""

    name: str
    do: StepFunction
    undo: StepFunction | None = None


@dataclass(frozen=True)
class Story:
    """Ordered steps under a stable kind ("instance.create") and words for people.

    resumable: after a crash run it again from its first step; else undo it and fail.
    on_failure: prepares ctx.undo_txn for the final commit when it fails or is cancelled.
    """

    kind: str
    description: str
    steps: tuple[Step, ...]
    may_cancel: bool = False
    resumable: bool = True
    on_failure: StepFunction | None = None
