"""Pipes of commands that the runtime of this host lends to this gateway: bytes take no detour.

The other side and the messages are described in services/runtime/servicer/lending.py. Without a line
(another host's runtime, or one that is away) commands go through ConnectChannel.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from core.descriptors import Reader, Writer
from core.errors import NotFound
from core.rpc.line import Line, dial
from gateway.told import Told

_OUTPUTS = ("1", "2")


class Pipes:
    """The pipes of one command, for its channels. Each channel is taken once."""

    def __init__(self, operation: str, line: Line, fds: list[int]) -> None:
        self.operation = operation
        self.ended = asyncio.Event()
        self._line = line
        self.input = Writer(fds[0])
        self._fds = dict(zip(_OUTPUTS, fds[1:], strict=True))
        self.readers = {name: Reader(fd) for name, fd in self._fds.items()}
        self._free = {"0", *_OUTPUTS}
        self._untold: list[str] = []

    def take(self, name: str, secret: str) -> None:
        """Connect a channel. Raises: NotFound when it is taken."""
        if name not in self._free:
            raise NotFound("NO_CHANNEL", "No channel of this operation has that secret", about=self.operation)
        self._free.discard(name)
        self._untold.append(secret)
        # The first one lets the command begin, the last one lets it end; each message is a wake-up.
        if name == "0" or not self._free:
            self._line.tell("connect", self.operation, *self._untold)
            self._untold.clear()

    def done(self, name: str, *, complete: bool) -> None:
        """Output *name* was sent whole, or its client is gone: standard output takes the command along."""
        self._close(name)
        if not complete and name == "1":
            self._line.tell("gone", self.operation)
        if not self._fds:
            self._line.tell("flushed", self.operation)

    def finish(self) -> None:
        """The command ended: what is in the pipes is all there will be."""
        self.ended.set()
        for reader in self.readers.values():
            reader.finish()

    def close(self) -> None:
        self.finish()
        self.input.close()
        for name in _OUTPUTS:
            self._close(name)

    def _close(self, name: str) -> None:
        self.readers[name].close()
        if (fd := self._fds.pop(name, -1)) >= 0:
            os.close(fd)


class Ticket:
    """What one file's pipe is asked for by. line is empty where there is none to ask on."""

    def __init__(self, line: str) -> None:
        self.line = line
        self.id = uuid.uuid4().hex if line else ""
        self.pipe: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def close(self) -> None:
        """Close the pipe, if it came."""
        if self.pipe.done() and not self.pipe.cancelled():
            os.close(self.pipe.result())
        self.pipe = asyncio.get_running_loop().create_future()


class Lender:
    """The line to the runtime, and what it has lent. *told* hears how commands end."""

    def __init__(self, path: Path, told: Told | None = None) -> None:
        self._path = path
        self._told = told
        self._line: Line | None = None
        self._name = ""
        self._lent: dict[str, Pipes] = {}
        self._tickets: dict[str, Ticket] = {}

    @contextlib.contextmanager
    def ticket(self) -> Iterator[Ticket]:
        """Give a ticket for the pipe of a file, which is closed at the end."""
        ticket = Ticket(self.line())
        if ticket.id:
            self._tickets[ticket.id] = ticket
        try:
            yield ticket
        finally:
            self._tickets.pop(ticket.id, None)
            ticket.close()

    def line(self) -> str:
        """Return the name of the line to ask for pipes by; empty when there is none."""
        if self._line and self._line.is_open:
            return self._name
        with contextlib.suppress(OSError):
            self._line = dial(self._path, self._hear, self._lose)
            self._name = uuid.uuid4().hex
            self._line.tell("hello", self._name)
            return self._name
        return ""

    def find(self, operation: str) -> Pipes | None:
        """Return the pipes of a command; they were sent before the answer that named it."""
        if operation not in self._lent and self._line:
            self._line.hear()
        return self._lent.get(operation)

    def close(self) -> None:
        if self._line:
            self._line.close()

    def _hear(self, words: list[str], fds: list[int]) -> None:
        match words:
            case ["lent", operation] if self._line and len(fds) == 1 + len(_OUTPUTS):
                self._lent[operation] = Pipes(operation, self._line, fds)
                return
            case ["file", id] if id in self._tickets and len(fds) == 1:
                os.set_blocking(fds[0], False)
                self._tickets[id].pipe.set_result(fds[0])
                return
            case ["ended", operation] if operation in self._lent:
                self._lent[operation].finish()
            case ["over", operation] if operation in self._lent:
                self._lent.pop(operation).close()
            case ["outcome", operation, word] if self._told:
                self._told.ended(operation, word)
        for fd in fds:
            os.close(fd)

    def _lose(self) -> None:
        for pipes in self._lent.values():
            pipes.close()
        self._lent.clear()
        if self._told:
            self._told.lost()


class NoLender(Lender):
    """Stands for the runtime of another host, to which there is no line: its bytes come through gRPC."""

    def __init__(self) -> None:
        super().__init__(Path())

    def line(self) -> str:
        return ""
