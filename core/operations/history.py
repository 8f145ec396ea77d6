"""What has ended: the newest records in memory, and which old ones the state should lose.

Pure bookkeeping. The runner deletes expired records in transactions that it commits anyway.
"""

from __future__ import annotations

from core.operations.operation import Operation

_KEEP_S = 3 * 24 * 3600.0
_KEEP_COUNT = 2000
_IN_MEMORY = 200
_AT_ONCE = 4


class History:
    """Ended operations of one service and member, oldest first."""

    def __init__(self, *, keep_count: int = _KEEP_COUNT, in_memory: int = _IN_MEMORY) -> None:
        self._keep_count = keep_count
        self._in_memory = in_memory
        self._ended_at: dict[str, float] = {}
        self._recent: dict[str, Operation] = {}

    def __len__(self) -> int:
        return len(self._ended_at)

    def find(self, id: str) -> Operation | None:
        return self._recent.get(id)

    def add(self, operation: Operation) -> list[str]:
        """Take an ended operation in; return the ids whose records are no longer in memory."""
        self._ended_at[operation.id] = operation.updated_at
        self._recent[operation.id] = operation
        surplus = list(self._recent)[: -self._in_memory]
        for id in surplus:
            self._recent.pop(id)
        return surplus

    def take_expired(self, now: float, *, most: int = _AT_ONCE) -> list[str]:
        """Forget up to *most* operations that are too old or too many, and return their ids."""
        expired: list[str] = []
        for id, ended_at in self._ended_at.items():
            too_many = len(self._ended_at) - len(expired) > self._keep_count
            if len(expired) == most or not (too_many or ended_at < now - _KEEP_S):
                break
            expired.append(id)
        for id in expired:
            self._ended_at.pop(id)
            self._recent.pop(id, None)
        return expired
