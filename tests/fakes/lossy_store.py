"""A store in memory that loses one request or one answer, as a network or a stopped etcd does."""

from __future__ import annotations

from core.errors import Unavailable
from core.state.memory import MemoryStore
from core.state.store import Txn


class LossyStore(MemoryStore):
    """Loses what `lose` names, once."""

    def __init__(self) -> None:
        super().__init__()
        self._loses = ""
        self._late: Txn | None = None

    def lose(self, what: str) -> None:
        """*what* is "request" (nothing is written) or "answer" (it is written, but nobody is told)."""
        self._loses = what

    async def commit(self, txn: Txn) -> int:
        loses, self._loses = self._loses, ""
        if loses == "request":
            self._late = txn
        elif loses == "answer":
            await super().commit(txn)
        if loses:
            raise Unavailable("ETCD_UNAVAILABLE", "lost")
        return await super().commit(txn)

    async def deliver_late(self) -> int:
        """Carry out the request that was lost, now."""
        assert self._late
        return await super().commit(self._late)
