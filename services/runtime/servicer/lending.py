"""The other face of commands: pipes lent to a gateway of this host, which moves the bytes itself.

A gateway says:  hello NAME | connect OPERATION SECRET... | flushed OPERATION | gone OPERATION
It is told:      lent OPERATION (with the pipes of 0, 1 and 2) | ended OPERATION | over OPERATION
                 outcome OPERATION WORD (core/operations/outcomes.py)
                 file TICKET (with the pipe of a file that it asked for by that; servicer/pouring.py)
A line that ends takes the commands of its clients along.
"""

from __future__ import annotations

from pathlib import Path

from core.errors import NotFound
from core.rpc.line import Exchange, Line
from services.runtime.usecases.inside.exec import Execs
from services.runtime.usecases.inside.session import Session


class Lending:
    """Answers lines at *path*."""

    def __init__(self, path: Path, execs: Execs) -> None:
        self._execs = execs
        self._exchange = Exchange(path, self._hear, execs.give_up)

    @property
    def lines(self) -> dict[str, Line]:
        """The lines of the gateways that said their name."""
        return self._exchange.named

    async def start(self) -> None:
        await self._exchange.start()

    async def stop(self) -> None:
        await self._exchange.stop()

    def _hear(self, line: Line, words: list[str]) -> None:
        match words:
            case ["connect", operation, *secrets]:
                self._connect(line, operation, secrets)
            case ["flushed", operation] if session := self._session(operation):
                session.flushed()
            case ["gone", operation] if session := self._session(operation):
                session.abandon()

    def _connect(self, line: Line, operation: str, secrets: list[str]) -> None:
        try:
            session = self._execs.session(operation)
            for secret in secrets:
                session.connect(secret)
        except NotFound:
            line.tell("over", operation)

    def _session(self, operation: str) -> Session | None:
        try:
            return self._execs.session(operation)
        except NotFound:
            return None
