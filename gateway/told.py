"""Operations that the runtime of this host told this gateway of before the state knows them.

A command whose pipes are lent is recorded when it lasts or ends (core/operations/late.py). Until its end is
in the state, this is what is known of it. When the line is lost, so is every command that was lent on it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from core.errors import Kind
from core.logs import get_logger
from core.operations import outcomes
from core.operations.operation import FAILED, Operation

log = get_logger(__name__)
_KEEP_S = 60.0


class Told:
    def __init__(self) -> None:
        self._known: dict[str, Operation] = {}
        self._outcomes: dict[str, str] = {}
        self._callbacks: list[Callable[[Operation], None]] = []

    def on_change(self, callback: Callable[[Operation], None]) -> None:
        """Call *callback* with each operation that begins or ends."""
        self._callbacks.append(callback)

    def find(self, id: str) -> Operation | None:
        return self._known.get(id)

    def all(self) -> list[Operation]:
        return list(self._known.values())

    def begun(self, operation: Operation) -> Operation:
        """Take an operation that has no record yet, and return it as it is by now."""
        self._set(operation)
        if word := self._outcomes.pop(operation.id, ""):
            self.ended(operation.id, word)
        return self._known.get(operation.id, operation)

    def ended(self, id: str, word: str) -> None:
        """Take an outcome, which may come before the answer that tells of the begin."""
        if operation := self._known.get(id):
            try:
                self._set(outcomes.applied(operation, word))
            except (ValueError, KeyError, TypeError) as exc:
                log.error("outcome_unreadable", operation=id, error=repr(exc))
        else:
            self._outcomes[id] = word
        # Where the state never tells (the runtime died in between), nobody asks after a minute either.
        asyncio.get_running_loop().call_later(_KEEP_S, self.forget, id)

    def lost(self) -> None:
        """The runtime is gone, and its commands with it."""
        for operation in [operation for operation in self._known.values() if not operation.is_final]:
            self._set(_ended_with_the_service(operation))
            asyncio.get_running_loop().call_later(_KEEP_S, self.forget, operation.id)

    def forget(self, id: str) -> None:
        """The state tells what there is to know."""
        self._known.pop(id, None)
        self._outcomes.pop(id, None)

    def _set(self, operation: Operation) -> None:
        self._known[operation.id] = operation
        for callback in self._callbacks:
            callback(operation)


def _ended_with_the_service(operation: Operation) -> Operation:
    return replace(
        operation,
        state=FAILED,
        error_kind=Kind.UNAVAILABLE.wire,
        error_reason="SERVICE_GONE",
        error_message="The runtime service went away while the command ran; look whether it ended",
        error_about=operation.id,
        updated_at=time.time(),
    )
